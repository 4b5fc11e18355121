from slm_helpers.data.schema import (
    ALL_COLUMNS,
    GOES_WITH,
    OPTIONAL,
    TASK_COLUMNS,
    check_labels,
    check_tags,
    clean_row,
    find_columns,
    spell_label,
    task_columns,
    whole_number,
)

import pandas as pd
import pytest


def test_without_a_file_an_unseen_label_is_told_by_its_row_in_the_split():
    frame = pd.DataFrame({"label": ["1", "2", "1", "1", "7"], "split": ["train", "train", "valid", "test", "test"]})
    with pytest.raises(ValueError, match=r"^test, row 2: label '7' stands in test but never in train"):
        check_labels(frame)


def test_good_tags_pass_and_frames_without_a_file_get_row_numbers():
    check_tags(pd.DataFrame({"tokens": ["Ada K. saw Bergen Bergen"], "tags": ["B-PER I-PER O B-LOC B-LOC"]}))
    with pytest.raises(ValueError, match="wnut17, row 2, token 1"):
        check_tags(pd.DataFrame({"tokens": ["a", "b"], "tags": ["O", "I-X"]}, index=[7, 7]), name="wnut17")


def test_check_labels_on_a_frame():
    frame = pd.DataFrame({"label": ["a", "b", "a", "c"], "split": ["train", "train", "valid", "test"]})
    check_labels(frame[:3])
    with pytest.raises(ValueError, match="mine, row 4: label 'c' stands in test"):
        check_labels(frame, name="mine")
    with pytest.raises(ValueError, match="two at least"):
        check_labels(frame[:1])


def test_clean_row_serves_one_row_at_a_time():
    wanted = {"text": "comment", "label": "stars"}
    assert clean_row({"comment": " a ", "stars": 3.0, "other": 1}, wanted) == ({"text": " a ", "label": "3"}, None)
    clean, problem = clean_row({"comment": "a"}, wanted)
    assert clean == {}
    assert problem["column"] == "stars"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1, "1"), (1.0, "1"), ("1.0", "1"), ("1", "1"), (2.5, "2.5"), ("2.50", "2.5"), ("-1.0", "-1"), ("01", "01"), ("1.2.3", "1.2.3"),
        (True, "true"), ("TRUE", "true"), ("True", "true"), ("true", "true"), (False, "false"), ("tRue", "tRue"), ("1,5", "1,5"),
        (" good ", "good"), ("1.", "1"), ("v1.0", "v1.0"),
    ],
)  # fmt: skip
def test_one_value_has_one_spelling_whatever_its_format(value, expected):
    assert spell_label(value) == expected


def test_decimal_comma_counts_only_where_a_file_uses_it():
    assert [spell_label(value, decimal_comma=True) for value in ("1,5", "1,0", "a,b", "1,5,2")] == ["1.5", "1", "a,b", "1,5,2"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (9007199254740993, 9007199254740993),  # 2^53 + 1, which no float holds
        ("1380000000000000007", 1380000000000000007),
        ("3.0", 3), (3.0, 3), (" 7 ", 7), ("-2", -2), (True, 1), ("1e3", 1000),
    ],
)  # fmt: skip
def test_whole_numbers_lose_no_digit(value, expected):
    assert whole_number(value) == expected


@pytest.mark.parametrize("value", ["1.5", "inf", "nan", "maybe", "", None, 2**63, "1" * 400])
def test_what_is_no_whole_number_of_64_bits_is_refused(value):
    with pytest.raises(ValueError, match="is not a whole number"):
        whole_number(value)


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        (["Ada", "rows"], "Ada rows"),
        ("['Ada', 'rows']", "Ada rows"),
        ('["Ada", "rows"]', "Ada rows"),
        ("['Ada' 'rows']", "Ada rows"),
        ("['Ada'\n 'rows' \"it's\"]", "Ada rows it's"),
        ("array(['Ada', 'rows'], dtype=object)", "Ada rows"),
        (["New York", ""], "New\u00a0York \u00a0"),
        ([1, 2, 0], "1 2 0"),
        ("[ 1 ] Ada rows", "[ 1 ] Ada rows"),
        (" Ada rows ", "Ada rows"),
    ],
)
def test_lists_of_tokens_are_read_in_every_spelling(cell, expected):
    assert clean_row({"tokens": cell}, {"tokens": "tokens"}) == ({"tokens": expected}, None)


@pytest.mark.parametrize("cell", ["[" * 100_000, "[" + "(" * 100_000, "[1, __import__('os')]"])
def test_text_that_is_no_list_stays_text(cell):
    assert clean_row({"tokens": cell}, {"tokens": "tokens"})[0] == {"tokens": cell}


@pytest.mark.parametrize(("cell", "expected"), [("TRUE", 1), ("false", 0), ("yes", 1), ("No", 0), (True, 1), ("1.0", 1), (0, 0)])
def test_answers_may_be_words(cell, expected):
    assert clean_row({"correct": cell}, {"correct": "correct"})[0] == {"correct": expected}


def test_dates_are_steps_in_their_order():
    cells = ["2012-09-28 15:00:22.0", "2012-09-28 15:00:22.5", "2012-09-28T15:01:00", "2012-10-01"]
    steps = [clean_row({"step": cell}, {"step": "step"})[0]["step"] for cell in cells]
    assert steps == sorted(set(steps)) and steps[0] == 1348844422 * 10**9
    with pytest.raises(ValueError, match="row \\?, column 'step': '99-99-99' is neither a whole number nor a date"):
        clean_row({"step": "99-99-99"}, {"step": "step"})


@pytest.mark.parametrize("cell", [["a", "b"], '["a", "b"]', "['a', 'b']"])
def test_several_labels_are_refused_with_what_to_do(cell):
    with pytest.raises(ValueError, match=r"column 'label': 2 labels \(a, b\), but each text has one label here.*Keep one of them"):
        clean_row({"label": cell}, {"label": "label"})
    assert clean_row({"label": ["a"]}, {"label": "label"})[0] == {"label": "a"}


def test_every_task_finds_its_columns_in_the_table():
    for task in (*TASK_COLUMNS, "lm"):
        assert set(task_columns(task)) <= set(ALL_COLUMNS)
        assert find_columns(ALL_COLUMNS, {}, task=task) == {name: name for name in task_columns(task)}
    assert set(OPTIONAL) == set(GOES_WITH)
    with pytest.raises(ValueError, match="task is 'classyfy', but must be one of"):
        task_columns("classyfy")


@pytest.mark.parametrize(
    ("present", "named", "task", "expected"),
    [
        (["id", "Text", "LABEL", "tags"], {}, "classify", {"text": "Text", "label": "LABEL"}),
        (["text", "label", "step", "correct", "tags", "source"], {}, None, {"text": "text", "label": "label"}),
        (["Sentence #", "Word", "Tag"], {}, "tag", {"tokens": "Word", "tags": "Tag", "sentence": "Sentence #"}),
        (["1", "2", "3"], {"text": "3", "label": "1"}, "classify", {"text": "3", "label": "1"}),
        (["a", "b", "c"], {"text": "3", "label": "1"}, "classify", {"text": "c", "label": "a"}),
        (["What  is it? ", "label"], {"text": "what is it?"}, "classify", {"text": "What  is it? ", "label": "label"}),
        (["text", "label"], {"text": "label", "label": "text"}, "classify", {"text": "label", "label": "text"}),
        (["source", "target", "tone", "target_language"], {}, "translate",
         {"source": "source", "target": "target", "target_language": "target_language"}),
        (["context", "question", "answers"], {}, "answer",
         {"context": "context", "question": "question", "answer": "answers", "answer_start": "answers"}),
    ],
)  # fmt: skip
def test_columns_are_found_by_name_number_or_usual_name(present, named, task, expected):
    assert find_columns(present, named, task=task) == expected


def test_missing_columns_are_told_with_those_that_are_there():
    with pytest.raises(
        ValueError, match=r"my\.csv: the task classify needs the columns text, label, but label is missing. It has: text, stars"
    ):
        find_columns(["text", "stars"], {}, task="classify", where="my.csv")
    with pytest.raises(ValueError, match=r"no column '4' \(asked for as text\). It has: a, b"):
        find_columns(["a", "b"], {"text": "4"})
