from slm_helpers.data.loading import load_dataset
from slm_helpers.text.languages import NAMES, detect_language, detect_languages

import pytest

SENTENCES = {
    "en": "We have not been there since the summer, but they would like to go.",
    "es": "No hemos estado allí desde el verano, pero a ellos les gustaría ir.",
    "fr": "Nous n'y sommes pas allés depuis l'été, mais ils aimeraient bien y aller.",
    "de": "Wir waren seit dem Sommer nicht mehr dort, aber sie würden gern hinfahren.",
    "it": "Non ci siamo stati dall'estate, ma loro vorrebbero andarci con noi.",
    "pt": "Não estivemos lá desde o verão, mas eles gostariam de ir com você.",
    "nl": "Wij zijn er niet meer geweest sinds de zomer, maar zij willen er graag heen.",
    "zh": "从夏天起我们就没去过那里。",
    "ja": "夏からそこへ行っていません。",
    "ko": "우리는 여름부터 거기에 가지 않았다.",
    "ru": "Мы не были там с лета.",
    "uk": "Ми не були там із літа.",
    "ar": "لم نذهب إلى هناك منذ الصيف.",
    "he": "לא היינו שם מאז הקיץ.",
    "el": "Δεν έχουμε πάει εκεί από το καλοκαίρι.",
    "hi": "हम गर्मियों से वहाँ नहीं गए हैं।",
    "th": "เราไม่ได้ไปที่นั่นตั้งแต่ฤดูร้อน",
}


def test_a_sentence_of_each_language_is_told():
    assert {language: detect_language(text) for language, text in SENTENCES.items()} == {language: language for language in SENTENCES}
    assert set(SENTENCES) | {""} == set(NAMES)


@pytest.mark.parametrize("text", ["", "   ", "12345", "Oslo", "🙂🙂", "$$$ --- !!!", "GTX 4070"])
def test_nothing_is_said_without_evidence(text):
    assert detect_language(text) == ""


def test_a_foreign_name_in_latin_text_does_not_decide():
    assert detect_language("The city of Москва is the capital, and it has been so for a long time.") == "en"


def test_four_languages_and_chinese_on_whole_sentences():
    frame = load_dataset("translations")
    for language in ("es", "fr", "de", "zh"):
        found = detect_languages(frame.loc[frame["target_language"] == language, "target"])
        right, silent = (sum(each == wanted for each in found) / len(found) for wanted in (language, ""))
        assert right > 0.93 and 1 - right - silent < 0.03, language
    found = detect_languages(frame["source"].drop_duplicates())
    assert sum(each == "en" for each in found) > 0.97 * len(found)
