import gzip
import json

from slm_helpers.data import collection
from slm_helpers.data.collection import load_collection

import pandas as pd
import pytest


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def test_the_column_with_the_longest_cells_is_read_and_said(tmp_path):
    path = write(tmp_path / "a.csv", "id,title,description,kind\n" + "".join(f"{i},Name {i},a much longer text {i},x\n" for i in range(4)))
    found = load_collection(path)
    assert found.columns == {"text": "description"} and found.frame["text"].tolist()[0] == "a much longer text 0"
    assert any("'description'" in note and "--text" in note for note in found.notes)
    assert load_collection(path, columns={"text": "title", "group": "kind"}).frame[["text", "group"]].iloc[1].tolist() == ["Name 1", "x"]


def test_three_rows_one_label_or_no_label_are_no_reason_to_refuse(tmp_path):
    path = write(tmp_path / "a.csv", "text,label\none,x\ntwo,x\nthree,\n")
    frame = load_collection(path).frame
    assert frame["label"].tolist() == ["x", "x", "(none)"] and frame["row"].tolist() == [1, 2, 3]
    assert frame["where"].tolist() == ["line 2", "line 3", "line 4"]


def test_empty_cells_are_left_out_counted_and_keep_the_row_numbers(tmp_path):
    found = load_collection(write(tmp_path / "a.csv", "text,n\none,1\n,2\n   ,3\ntwo,4\n"))
    assert found.frame["row"].tolist() == [1, 4] and found.num_rows == 4 and len(found.skipped) == 2
    assert any("2 of 4 rows were left out" in note for note in found.notes)


def test_lists_turns_numbers_and_several_labels_become_texts(tmp_path):
    rows = [{"turns": [["a", "Hello there"], ["b", "Hi"]], "label": ["x", "y"]}, {"turns": ["Hello there", "Hi"], "label": ["y"]}]
    path = write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows * 4)))
    frame = load_collection(path).frame
    assert frame["text"].tolist()[:2] == ["a: Hello there\nb: Hi", "Hello there\nHi"] and frame["label"].tolist()[:2] == ["x, y", "y"]


def test_a_named_set_and_its_split(tmp_path):
    found = load_collection("messages")
    assert set(found.columns) == {"text", "label", "split"} and len(found.frame) == found.num_rows


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "0,a first sentence that is a row,1\n1,another one of these,0\n", "looks like a row"),
        ("a.csv", "day,n\n" + "".join(f"2024-01-0{i},{i}\n" for i in range(1, 9)), "no column holds texts"),
        ("a.csv", "text,n\n,1\n,2\n", "all 2 cells"),
        ("a.csv", "", "empty"),
        ("a.xlsx", "x", "not known"),
        ("no_such_set", None, "neither a set nor a file"),
    ],
)
def test_what_is_no_collection_is_told_in_one_sentence(tmp_path, name, text, message):
    path = name if text is None else write(tmp_path / name, text)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        load_collection(path)


def test_a_named_column_must_be_there(tmp_path):
    with pytest.raises(ValueError, match="there is no column 'day'"):
        load_collection(write(tmp_path / "a.csv", "text,n\none,1\n"), columns={"time": "day"})


def test_of_too_many_texts_a_random_choice_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(collection, "MAX_TEXTS", 50)
    with gzip.open(tmp_path / "a.csv.gz", "wt") as file:
        pd.DataFrame({"text": [f"text number {i}" for i in range(1000)]}).to_csv(file, index=False)
    first, again = (load_collection(tmp_path / "a.csv.gz", seed=3) for _ in range(2))
    assert first.frame.equals(again.frame) and len(first.frame) == 50 and first.num_rows == 1000
    assert 300 < first.frame["row"].mean() < 700 and first.frame["row"].is_monotonic_increasing
    assert any("of 1,000 texts, 50 drawn" in note for note in first.notes)
