"""Words, sentences, and what a passage has in common with a question."""

import itertools

from slm_helpers.text.words import overlap_features, split_words

import pytest


def test_words_stand_where_they_say_with_accents_emoji_marks_and_several_spaces():
    text = "Naïve  café 🙂 in Ogród (1922–26).\n\nNew cafe\u0301, 日本 नमस्ते"
    words = split_words(text)
    assert [text[a:b] for a, b in words.places] == words.forms
    assert words.forms == [
        "Naïve",
        "café",
        "🙂",
        "in",
        "Ogród",
        "(",
        "1922",
        "–",
        "26",
        ")",
        ".",
        "New",
        "cafe\u0301",
        ",",
        "日",
        "本",
        "नमस्ते",
    ]
    assert words.sentences.tolist() == [0] * 11 + [1] * 6
    assert split_words("").forms == [] and split_words("  \n ").forms == []


def test_features_tell_the_sentence_that_was_asked_for():
    passage, question = split_words("A cat slept. The dogs barked at the moon. It rained."), split_words("At what did the dog bark?")
    found = overlap_features(passage, question, lambda form: 0.1 if form in ("the", "at", "did") else 1.0)
    assert found.shape == (len(passage.forms), 6) and found.min() >= 0 and found.max() <= 1
    dogs, cat = passage.forms.index("dogs"), passage.forms.index("cat")
    assert found[dogs, 1] == 1 and found[dogs, 0] == 0  # the stem, not the form
    assert found[dogs, 3] == 1 and found[cat, 2] == 0


@pytest.mark.parametrize(
    "sentences",
    [
        ["It was Mrs. Fox who built the mill.", "She lived near St. Ives.", "Dr. J. K. Bell came at 5 p.m.", "The mill stood."],
        ["See No. 5 and Fig. 2, e.g. on Jan. 5.", "It cost 3.14 euros.", "I said no.", "Tom left."],
        ["The U.S. Army left.", "He lives in the U.S.", "It is far."],
        ["He waited ... and waited.", "Well...", "I know.", "What?!", "Yes!"],
        ['"Stop!" he said.', '"Go."', "She left.", "(Really?)", "‘Come.’", "“So be it.”", "He came."],
        ["Cakes, pies, etc. were sold.", "Smith Jr. met Ms. Jones.", "She is a Dr.", "He is not."],
        ["A first line.", "second line?", "third."],
        ["日本。", "中国！", "什么？"],
    ],
)
def test_sentences_end_where_a_reader_ends_them(sentences):
    text = ("\n" if sentences[-1] == "third." else " ").join(sentences)
    words = split_words(text)
    starts = [0, *(i + 1 for i in range(len(words.forms) - 1) if words.sentences[i] != words.sentences[i + 1]), len(words.forms)]
    found = [text[words.places[a, 0] : words.places[b - 1, 1]] for a, b in itertools.pairwise(starts)]
    assert found == sentences
