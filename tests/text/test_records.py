"""Records of facts: read, put into texts and taken out of them."""

from slm_helpers.text.records import delexicalise, fill, parse_facts, states

import pytest

LAMP = "name: Aurora | type: desk lamp | price: 20 euros"


def test_a_record_is_read_from_text_dictionary_and_triples():
    record = parse_facts(LAMP, {"price": "p"})
    assert record.names == ("name", "type", "price") and record.contents == ("Aurora", "desk lamp", "20 euros")
    assert record.letters == ("A", "B", "p")
    assert parse_facts({"opening hours": "8.30: always"}) == parse_facts("opening hours: 8.30: always")
    triples = parse_facts('Alan Bean : crew member of : Apollo 12 | Apollo 12 : operator : "NASA"')
    assert triples.contents == ("Alan Bean", "Apollo 12", "NASA") and triples.names == ("subject", "crew member of", "operator")
    assert triples.relations == ("#A crew member of #B", "#B operator #C")


@pytest.mark.parametrize(
    ("source", "contents"),
    [
        ("title: Star Wars : Episode : One", ("Star Wars : Episode : One",)),
        ("name: Aurora | Title: Star Wars : Episode : One", ("Aurora", "Star Wars : Episode : One")),
        ("1634: The Baltic War : author : David Weber", ("1634: The Baltic War", "David Weber")),
        ("A : of : B | 1634: The Baltic War : author : A", ("A", "B", "1634: The Baltic War")),
    ],
)
def test_a_value_or_a_subject_may_hold_colons(source, contents):
    assert parse_facts(source).contents == contents


@pytest.mark.parametrize(
    ("source", "message"),
    [("", "no facts"), (" | ", "no facts"), ({}, "no facts"), ("Aurora", "'Aurora' is no fact"), ("name: ", "is no fact"),
     ("name: A | name: B", "'name' stands twice"), ("a: b | c : d : e", "mixes"),
     (" | ".join(f"fact {n}: {n}" for n in range(27)), "27 values, but at most 26")],
)  # fmt: skip
def test_what_is_no_record_is_refused(source, message):
    with pytest.raises(ValueError, match=message):
        parse_facts(source)


def test_values_are_found_as_whole_words_only():
    assert states("Costs 20\n EUROS.", "20 euros") and not states("Costs 120 euros.", "20 euros") and not states("plums", "plum")
    assert states("for £20-25 a head", "£20-25") and states("(Café Rouge)", "café rouge")


def test_placeholders_go_in_and_out():
    record = parse_facts("type: umbrella | price: 20 euros | note: 2 euros | club: eu club")
    text = "An umbrella for 20 euros. Umbrella, a eu club, 2 euros."
    assert delexicalise(text, record) == "A #A for #B. #A, a #D, #C."
    assert fill(delexicalise(text, record), record) == text
    assert delexicalise("A lamp, 20 euros", record, copied=[True, False, True, True]) == "A lamp, 20 euros"
    assert fill("#E and a #A", record) == "#E and an umbrella"
    for value, article in {
        "hourglass": "an",
        "unicycle": "a",
        "8 am walk": "an",
        "18 km run": "an",
        "1800 m run": "a",
        "one-off": "a",
    }.items():
        assert fill("See a #A", parse_facts({"walk": value})) == f"See {article} {value}"
