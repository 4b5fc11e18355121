from slm_helpers.data.checks import describe_problems
from slm_helpers.data.loading import load_dataset

import pandas as pd
import pytest

WORDS = (
    *("amber", "birch", "cloud", "delta", "ember", "frost", "grove", "hazel"),
    *("inlet", "jetty", "knoll", "lemon", "maple", "night", "ocean", "pearl"),
)


def frame_of(*rows):
    return pd.DataFrame(rows, columns=["text", "label", "split"])


def good_rows(number=20, split="train"):
    """Rows of which nothing is odd: every text has words of its own."""
    return [(f"{split} {WORDS[i % 16]} {WORDS[i // 16]} {'x' * i}", "ab"[i % 2], split) for i in range(number)]


def test_nothing_odd_gives_no_line():
    frame = frame_of(*good_rows(), *good_rows(6, "valid"), *good_rows(6, "test"))
    assert describe_problems(frame, task="classify") == describe_problems(frame) == []


def test_texts_of_test_that_stand_in_train_are_counted():
    leaked = [(text.upper(), label, "test") for text, label, _ in good_rows(4)]
    (line,) = describe_problems(frame_of(*good_rows(), *leaked, *good_rows(4, "valid")))
    assert line == "4 of 4 test texts stand in train too: scores on them show what was learned by heart."


def test_texts_nearly_in_train_are_counted_apart():
    long = " ".join(WORDS)
    rows = [*good_rows(), (long, "a", "train"), (f"{long}!! again", "a", "test"), ("b " + " ".join(WORDS[8:]), "b", "test")]
    (line,) = describe_problems(frame_of(*rows))
    assert line.startswith("1 of 2 test texts are nearly in train")


def test_copies_are_found_where_no_spaces_are_written():
    rows = [
        *good_rows(),
        ("这家餐馆的菜很好吃服务也很好", "a", "train"),
        ("这家餐馆的菜很好吃服务也很好啊", "a", "test"),
        ("今天下雨了路上很滑请小心开车", "b", "test"),
    ]
    assert describe_problems(frame_of(*rows)) == ["1 of 2 test texts are nearly in train: most of their runs of 8 words stand there."]


def test_labels_in_two_spellings_and_missing_ones_are_named():
    rows = [(f"t {word}", label, "train") for word, label in zip(WORDS, ["Good", "good", "NA", "bad"] * 4, strict=True)]
    lines = describe_problems(frame_of(*rows), task="classify")
    assert "values of label differ in case only and count as different classes: 'Good', 'good'. Write each in one way." in lines
    assert "label 'NA' (4 rows) looks like a missing value, but counts as a class. Leave the cell empty where there is no label." in lines


def test_classes_that_are_rare_or_absent_from_a_part_are_named():
    rows = [*good_rows(60), ("x one", "fraud", "train"), ("x two", "fraud", "train"), *good_rows(4, "valid"), *good_rows(4, "test")]
    lines = describe_problems(frame_of(*rows))
    assert lines == [
        "1 of 3 classes of label have fewer than 5 rows in train: 'fraud' (2).",
        "valid and test: no row of 1 of 3 classes of label, so no score tells of them: 'fraud' (2).",
    ]
    lines = describe_problems(frame_of(*good_rows(), ("y", "c", "test")))
    assert "1 classes of label never stand in train: 'c' (1)." in lines


def test_one_text_with_two_labels_and_one_large_class_are_named():
    rows = [*good_rows(), ("the same", "a", "train"), ("The  same", "b", "train")]
    (line,) = describe_problems(frame_of(*rows))
    assert line.startswith("1 texts have several values of label ('a', 'b' for 'the same')")
    large = [(f"a{'x' * i}", "a", "train") for i in range(99)]
    assert any(line.startswith("99.0% of train are 'a'") for line in describe_problems(frame_of(*large, ("b", "b", "train"))))


def test_numbers_and_combinations_as_labels_are_named():
    rows = [(f"t {'x' * i}", f"{i / 10}", "train") for i in range(30)]
    assert any(line.startswith("label has 30 different numbers") for line in describe_problems(frame_of(*rows)))
    rows = [(f"t {'x' * i}", ["joy", "fear", "joy,fear"][i % 3], "train") for i in range(30)]
    assert any("1 values of label look like several labels in one, e.g. 'joy,fear'" in line for line in describe_problems(frame_of(*rows)))


def test_learners_in_two_parts_are_counted():
    rows = [("s1", 0, "adding", 1, "train"), ("s1", 1, "adding", 0, "test"), ("s2", 0, "adding", 1, "test")]
    frame = pd.DataFrame(rows, columns=["student", "step", "skill", "correct", "split"])
    assert describe_problems(frame, task="trace") == ["1 of 2 test students stand in train too."]


def test_questions_are_compared_with_their_context():
    rows = [("Ada rowed.", "Who?", "Ada", 0, "train"), ("Jon sang.", "Who?", "Jon", 0, "test")]
    frame = pd.DataFrame(rows, columns=["context", "question", "answer", "answer_start", "split"])
    assert describe_problems(frame, task="answer") == []


def test_rows_left_out_and_cells_repaired_are_counted(write):
    rows = "".join(f"{text},{label}\n" for text, label, _ in good_rows())
    path = write("my.csv", f"text,label\n{rows},a\nbell\x07,b\n")
    with pytest.warns(UserWarning):
        frame = load_dataset(path, split="train")
    assert describe_problems(frame)[:2] == [
        "1 rows were left out: 1 text empty.",
        "1 cells were repaired: 1 text 1 control character(s) removed, first '\\x07'.",
    ]
