from slm_helpers.data.schema import (
    ALL_COLUMNS,
    GOES_WITH,
    OPTIONAL,
    TASK_COLUMNS,
    check_labels,
    check_tags,
    clean_row,
    find_columns,
    task_columns,
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
