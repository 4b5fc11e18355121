"""Which task and columns a file is taken to have."""

import json

from slm_helpers.data.guess import guess_columns
from slm_helpers.data.loading import load_dataset

import pytest

TEXTS = [f"The {noun} on {place} street was {how}." for noun in ("soup", "room", "tea") for place in "ABCDE" for how in ("fine", "cold")]


def write(folder, text: str, name: str = "mine.csv"):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def table(header: str, *columns: list, sep: str = ",") -> str:
    rows = [sep.join(map(str, cells)) for cells in zip(*columns, strict=True)]
    return "\n".join([*([header] if header else []), *rows]) + "\n"


def test_the_long_text_and_the_few_values_under_a_telling_name_are_taken(tmp_path):
    links = [f"https://shop.example/very/long/path/of/an/item/{n}" for n in range(30)]
    regions, stars = ["north", "south"] * 15, [1, 2, 3, 4, 5] * 6
    path = write(tmp_path, table("id,link,region,comment,star_rating", list(range(30)), links, regions, TEXTS, stars))
    guess = guess_columns(path, {})
    assert (guess.task, guess.columns, guess.header) == ("classify", {"text": "comment", "label": "star_rating"}, True)
    assert "--text 'comment' --label 'star_rating'" in guess.why


def test_what_was_named_stays_and_only_the_rest_is_guessed(tmp_path):
    path = write(tmp_path, table("title,body,topic", TEXTS, [text + text for text in TEXTS], ["a", "b"] * 15))
    assert guess_columns(path, {"text": "title"}).columns == {"text": "title", "label": "topic"}
    both = guess_columns(path, {"text": "title", "label": "topic"})
    assert both.columns == {"text": "title", "label": "topic"} and both.why == ""


@pytest.mark.parametrize(("name", "sep"), [("mine.csv", ","), ("mine.tsv", "\t"), ("mine.txt", "\t")])
def test_a_first_line_that_is_a_row_is_no_header(tmp_path, name, sep):
    path = write(tmp_path, table("", TEXTS, [0, 1] * 15, sep=sep), name)
    guess = guess_columns(path, {})
    assert (guess.columns, guess.header) == ({"text": "1", "label": "2"}, False) and "looks like a row" in guess.why


@pytest.mark.parametrize(
    ("row", "task"),
    [
        ({"tokens": ["Ann", "ran"], "tags": ["B-PER", "O"]}, "tag"),
        ({"tokens": "play jazz", "tags": "O B-genre", "intent": "play"}, "command"),
        ({"context": "Ann ran.", "question": "Who ran?", "answers": {"text": ["Ann"], "answer_start": [0]}}, "answer"),
        ({"source": "good day", "target": "buenos dias"}, "translate"),
        ({"student": "a", "skill": "sums", "correct": 1}, "trace"),
        ({"text": "so good", "label": "praise", "tags": "x;y;z"}, "classify"),  # tags that are none
    ],
)
def test_a_task_is_known_by_its_columns(tmp_path, row, task):
    path = write(tmp_path, "\n".join(json.dumps(row) for _ in range(12)), "mine.jsonl")
    assert guess_columns(path, {}).task == task


def test_a_file_of_tokens_needs_no_names(tmp_path):
    path = write(tmp_path, "\n".join(f"Ann B-PER\nlikes O\n{letter}{letter}tea O\n" for letter in "abcdefghijkl"), "mine.conll")
    guess = guess_columns(path, {})
    assert (guess.task, guess.columns) == ("tag", {})
    assert len(load_dataset(str(path), task=guess.task, **guess.columns)) == 12


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (table("a,b", list(range(30)), [1, 2] * 15), "no column looks like a text; it has a, b"),
        (table("a,b", TEXTS, list(range(30))), "the text seems to be 'a', but no column looks like its class"),
    ],
)
def test_what_cannot_be_guessed_is_asked_for_with_the_columns(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        guess_columns(write(tmp_path, text), {})


def test_several_labels_a_text_are_seen_unless_the_task_was_said(tmp_path):
    labels = ["joy", "fear", "joy,fear", "anger"] * 5
    path = write(tmp_path, table("text,emotion", [f"a text of some words {i}" for i in range(20)], [f'"{label}"' for label in labels]))
    guess = guess_columns(path, {})
    assert (guess.task, guess.columns) == (
        "multilabel",
        {"text": "text", "labels": "emotion"},
    ) and "25% of the first rows have several" in guess.why
    assert guess_columns(path, {"text": "text", "label": "emotion"}).columns == {"text": "text", "labels": "emotion"}
    assert guess_columns(path, {}, task="classify").task == "classify"
    assert guess_columns(path, {"label": "emotion"}, task="multilabel").columns["labels"] == "emotion"


def test_a_comma_within_a_label_is_not_several(tmp_path):
    labels = ["Bonn, Germany", "Oslo, Norway"] * 10
    path = write(tmp_path, table("text,label", [f"a text of some words {i}" for i in range(20)], [f'"{label}"' for label in labels]))
    assert guess_columns(path, {}).task == "classify"


def test_a_list_of_labels_is_several_even_where_none_stands_alone(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(
        "".join(json.dumps({"text": f"a text of words {i}", "label": ["bad", "trip"]}) + "\n" for i in range(9)), encoding="utf-8"
    )
    assert (guess_columns(path, {}).task, guess_columns(path, {}).columns) == ("multilabel", {"labels": "label"})
