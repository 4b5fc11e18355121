"""Scrubbing finds what has a form and what a tagger calls a name, lists every replacement, and leaves all else alone."""

import json

from slm_helpers import scrub
from slm_helpers.analysis.scrubbing import KINDS, find_patterns, scrub_file, split_tokens
from slm_helpers.cli import main

import pandas as pd
import pytest


class Names:
    """A tagger that calls every word of a list a person."""

    def __init__(self, *names):
        self.names = names

    def predict(self, sentences):
        return [["B-PER" if word in self.names else "O" for word in words] for words in sentences]


@pytest.mark.parametrize(
    ("text", "kind", "part"),
    [
        ("Write to ada.moss+x@post.example today.", "e-mail address", "ada.moss+x@post.example"),
        ("See www.shop.example/a?b=1.", "web address", "www.shop.example/a?b=1"),
        ("Go to parcel.example, now", "web address", "parcel.example"),
        ("Ring 555-0134 now", "telephone number", "555-0134"),
        ("We live at 12 Old Mill Road.", "street address", "12 Old Mill Road."),
        ("Born 3 May 1990 in", "date", "3 May 1990"),
        ("on 2024-05-17 at", "date", "2024-05-17"),
        ("Post to SW1A 2AA please", "postcode", "SW1A 2AA"),
        ("The code is 4719.", "number", "4719"),
        ("Flight AB-12345 left", "number", "AB-12345"),
    ],
)
def test_each_kind_is_found_where_it_stands(text, kind, part):
    assert [(text[start:end], found) for start, end, found in find_patterns(text)] == [(part, kind)]


@pytest.mark.parametrize("text", ["", "He paid 12,000 for 3.1415 of 300 e.g. pages.", "Room 12, at 9:30", "A 5 to 4 win in lane 7"])
def test_plain_numbers_are_left_alone(text):
    assert find_patterns(text) == []


def test_placeholders_are_numbered_and_every_replacement_is_listed():
    text = "Ann met Bo; Ann's code is 4719, Bo's 4720."
    result = scrub([text, ""], tagger=Names("Ann", "Bo"))
    assert result.texts == ["[person 1] met [person 2]; [person 1]'s code is [number 1], [person 2]'s [number 2].", ""]
    assert [text[row.start : row.end] for row in result.replaced.itertuples()] == result.replaced["text"].tolist()
    counts = result.counts.set_index("kind")
    assert counts.loc["person"].tolist() == [4, 1] and counts.loc["number"].tolist() == [2, 1]
    assert set(counts.index) == set(KINDS) and counts["replaced"].sum() == len(result.replaced) == 6


def test_kinds_and_names_can_be_left_out():
    text = "Ann's code is 4719"
    assert scrub([text], tagger=Names("Ann"), kinds=("person",)).texts == ["[person 1]'s code is 4719"]
    assert scrub([text], tagger=Names("Ann"), names=False).texts == ["Ann's code is [number 1]"]
    # A date that is not asked for is not taken for a number instead.
    assert scrub(["on 2024-05-17"], names=False, kinds=("number",)).texts == ["on 2024-05-17"]


def test_a_name_of_several_words_is_one_replacement():
    class Full:
        def predict(self, sentences):
            return [["B-PER", "I-PER", "O", "B-MISC", "O"] for _ in sentences]

    assert scrub(["Ada Moss spoke Dutch ."], tagger=Full()).texts == ["[person 1] spoke Dutch ."]


def test_the_bundled_tagger_finds_names_it_has_not_seen():
    result = scrub(["Wilhelmina Abernethy of Trondheim called.", "the cat sat on the mat"])
    assert "Wilhelmina" not in result.texts[0] and "Trondheim" not in result.texts[0] and result.texts[1] == "the cat sat on the mat"


def test_tokens_are_those_of_the_bundled_entities():
    text = "Mr. Roth's well-known U.N. team can't win 4,000.5 cups."
    (sentence,) = split_tokens(text)
    words = [text[start:end] for start, end in sentence]
    assert words == ["Mr.", "Roth", "'s", "well-known", "U.N.", "team", "can't", "win", "4,000.5", "cups", "."]


def test_what_is_no_text_and_unknown_kinds_are_refused():
    with pytest.raises(TypeError, match="Text 1 is '3'"):
        scrub(["a", 3])
    with pytest.raises(ValueError, match="kind is 'face'"):
        scrub(["a"], kinds=("face",))


def test_a_file_keeps_its_rows_and_columns_and_the_list_hides_what_stood_there(tmp_path):
    source, target = tmp_path / "a.csv", tmp_path / "b.csv"
    source.write_text('id,note,stars\n1,"Ann, code 4719",5\n2,,4\n3,fine,3\n', encoding="utf-8")
    found = scrub_file(source, target, column="note", tagger=Names("Ann"))
    table = pd.read_csv(target, keep_default_na=False)
    assert table.columns.tolist() == ["id", "note", "stars"] and table["note"].tolist() == ["[person 1], code [number 1]", "", "fine"]
    assert (found["rows"], found["without_text"], found["texts_changed"]) == (3, 1, 1)
    listed = pd.read_csv(tmp_path / "b.replaced.csv")
    assert listed["row"].tolist() == [1, 1] and "text" not in listed and "Ann" not in (tmp_path / "b.replaced.csv").read_text()
    scrub_file(source, target, column="note", tagger=Names("Ann"), show_originals=True)
    assert pd.read_csv(tmp_path / "b.replaced.csv")["text"].tolist() == ["Ann", "4719"]


def test_a_text_within_an_object_is_refused(tmp_path):
    source = tmp_path / "a.jsonl"
    source.write_text('{"data": {"text": "code 4719"}}\n', encoding="utf-8")
    with pytest.raises(ValueError, match="lies inside another one"):
        scrub_file(source, tmp_path / "b.jsonl", column="data.text", names=False)


def test_the_command_prints_one_object_and_errors_in_one_line(tmp_path, capsys):
    source, target = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    source.write_text('{"text": "ring 555-0134", "n": 1}\n', encoding="utf-8")
    assert main(["scrub", "--data", str(source), "--text", "text", "--out", str(target), "--no-names", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["replaced"]["telephone number"] == 1 and found["rows"] == 1
    assert json.loads(target.read_text()) == {"text": "ring [telephone number 1]", "n": 1}
    assert main(["scrub", "--data", str(source), "--out", str(tmp_path / "b.xlsx")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and ".csv, .tsv, .jsonl" in error
    assert main(["scrub", "--data", str(source), "--text", "words", "--out", str(target)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
