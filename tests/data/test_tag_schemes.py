from slm_helpers.data.tag_schemes import spans_to_tags, to_iob2

import pytest

IOB2 = ["B-PER I-PER O B-LOC B-LOC", "O B-ORG I-ORG I-ORG B-LOC"]


@pytest.mark.parametrize(
    ("rows", "name"),
    [
        (["I-PER I-PER O I-LOC B-LOC", "O I-ORG I-ORG I-ORG I-LOC"], "IOB1"),
        (["B-PER E-PER O S-LOC S-LOC", "O B-ORG I-ORG E-ORG S-LOC"], "BIOES"),
        (["B-PER L-PER O U-LOC U-LOC", "O B-ORG I-ORG L-ORG U-LOC"], "BILOU"),
        (["B-PER E-PER O S-LOC S-LOC", "O B-ORG M-ORG E-ORG S-LOC"], "BIOES"),
    ],
)
def test_other_schemes_become_iob2_without_loss(rows, name):
    tags, note = to_iob2([row.split() for row in rows])
    assert [" ".join(row) for row in tags] == IOB2
    assert note == f"the tags were {name} and were converted to IOB2"


def test_iob2_stays_and_needs_no_note():
    rows = [row.split() for row in IOB2]
    assert to_iob2(rows) == (rows, "")
    assert to_iob2([["O", "B-LOC"]]) == ([["O", "B-LOC"]], "")


def test_types_alone_make_neighbours_one_entity():
    tags, note = to_iob2([["PER", "PER", "O", "LOC", "ORG"], ["O", "O"]])
    assert tags == [["B-PER", "I-PER", "O", "B-LOC", "B-ORG"], ["O", "O"]] and "neighbours of one type" in note


def test_numbers_are_pairs_of_begin_and_inside_where_rows_allow_it():
    assert to_iob2([["1", "2", "0", "5", "0"]])[0] == [["B-1", "I-1", "O", "B-3", "O"]]
    tags, note = to_iob2([["2", "2", "0", "3"]])  # 2 begins an entity, so it cannot mean "inside"
    assert tags == [["B-2", "I-2", "O", "B-3"]] and "each other number as a type" in note


@pytest.mark.parametrize("row", ["O I-LOC B-PER", "B-PER x", "B- O", "o B-PER"])
def test_what_fits_no_scheme_is_left_for_the_check(row):
    assert to_iob2([row.split()]) == ([row.split()], "")


@pytest.mark.parametrize(
    "span", [[4, 13, "PER"], {"start": 4, "end": 13, "label": "PER"}, {"start_offset": 4, "end_offset": 13, "label": ["PER"]}]
)
def test_spans_of_characters_become_tags(span):
    assert spans_to_tags("So, Ada Quill: row.", [span]) == ("So , Ada Quill : row .", "O O B-PER I-PER O O O")


def test_tokens_are_cut_at_the_borders_of_spans_and_signs_of_chinese():
    assert spans_to_tags("Osloman ate", [[0, 4, "LOC"]]) == ("Oslo man ate", "B-LOC O O")
    assert spans_to_tags("我在北京。", [[2, 4, "LOC"]]) == ("我 在 北 京 。", "O O B-LOC I-LOC O")
    assert spans_to_tags("no span here", []) == ("no span here", "O O O")


@pytest.mark.parametrize(
    ("spans", "message"),
    [
        ([[0, 3, "A"], [2, 5, "B"]], "spans of A and B overlap at character 2"),
        ([[0, 99, "A"]], "lies outside its text, which has 10 characters"),
        ([["x", 2, "A"]], "no span of characters"),
        ([[0, 2]], "no span of characters"),
    ],
)
def test_bad_spans_are_told(spans, message):
    with pytest.raises(ValueError, match=message):
        spans_to_tags("Ada rowed.", spans)
