from slm_helpers.data.cells import spell_label, whole_number
from slm_helpers.data.schema import clean_row

import pytest


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


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("b, a,b", "a, b"),
        ("New York, NY; Bonn", "Bonn, New York NY"),
        ("x|y", "x, y"),
        ('["b", "a"]', "a, b"),
        (["a"], "a"),
        ("[]", ""),
        (3, "3"),
    ],
)
def test_several_labels_are_each_once_and_sorted(cell, expected):
    assert clean_row({"labels": cell}, {"labels": "labels"})[0] == {"labels": expected}


def test_a_cell_without_labels_is_left_out_since_it_may_mean_that_nobody_looked():
    assert clean_row({"labels": ""}, {"labels": "labels"})[1]["reason"] == "empty"
