from slm_helpers.text.damage import KINDS, MOJIBAKE, find_damage

import pytest


@pytest.mark.parametrize("sign", ["é", "ü", "ß", "’", "“", "–", "…", "€", "🙂", "中", "ñ"])
def test_utf8_read_as_windows_1252_is_seen_for_every_kind_of_sign(sign):
    wrong = "".join(bytes([byte]).decode("cp1252", errors="ignore") or chr(byte) for byte in sign.encode())
    assert find_damage(f"a {wrong} b").get(MOJIBAKE) == 1


@pytest.mark.parametrize(
    "text",
    [
        *("", "plain", "Ça va très bien, où étiez-vous ?", "Über Äpfel – “so” … 5 €", "naïve Ångström ½ £3", "R&D & more < less"),
        *("中文 🙂", "What? really?", "C:\\new\\text", "see http://x.org/?a=b", "ÂNGULO DO ÃO"),
    ],
)
def test_sound_texts_have_no_damage(text):
    assert find_damage(text) == {}


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("a\ufffdb", "replacement characters (U+FFFD)"),
        ("R&amp;D", "HTML entities"),
        ("it&#39;s", "HTML entities"),
        ("good<br />bad", "HTML tags"),
        ("caf\\u00e9", "escaped characters"),
        ("one\\n\\ntwo", "escaped characters"),
        ("soft\u00adhyphen", "invisible characters"),
        ("\ue001", "private characters"),
        ("it\x92s", "controls (U+0080 to U+009F)"),
    ],
)
def test_each_kind_is_named(text, kind):
    assert set(find_damage(text)) == {kind} and kind in KINDS
