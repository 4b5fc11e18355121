from slm_helpers.data.files import read_rows
from slm_helpers.data.loading import load_dataset

import pytest

GOLD = [{"tokens": "Ada saw Bergen", "tags": "B-PER O B-LOC"}, {"tokens": "It rains", "tags": "O O"}]


def read(path, **options):
    notes = []
    return [dict(row) for row in read_rows(path, notes=notes, **options)], notes


@pytest.mark.parametrize(
    "lines",
    [
        "Ada\tB-PER|saw\tO|Bergen\tB-LOC||It\tO|rains\tO|",
        "Ada B-PER|saw O|Bergen B-LOC||It O|rains O",
        "-DOCSTART- -X- -X- O||Ada NN I-NP B-PER|saw VB I-VP O|Bergen NN I-NP B-LOC||It PR I-NP O|rains VB I-VP O|",
        "# id 1 a=b|Ada _ _ B-PER|saw _ _ O|Bergen _ _ B-LOC||# id 2 a=b|It _ _ O|rains _ _ O|",
        "B-PER\tAda|O\tsaw|B-LOC\tBergen||O\tIt|O\trains|",
        "token\tner|Ada\tB-PER|saw\tO|Bergen\tB-LOC||It\tO|rains\tO|",
    ],
    ids=["tabs", "spaces", "CoNLL-2003", "comments", "tag first", "header"],
)
def test_usual_layouts_give_the_same_sentences(write, lines):
    assert read(write("my.conll", lines.replace("|", "\n"))) == (GOLD, [])


@pytest.mark.parametrize(
    "lines",
    [
        "1 Ada NN B-PER|2 saw VB O|3 Bergen NN B-LOC||1 It PR O|2 rains VB O|",
        "0\tAda\tB-PER|1\tsaw\tO|2\tBergen\tB-LOC||0\tIt\tO|1\trains\tO|",
        "1\tAda\tada\tX\tX\t_\t0\tr\t_\tner=B-PER|2-3\tx\t_\t_\t_\t_\t_\t_\t_\t_|2\tsaw\tsee\tX\tX\t_\t0\tr\t_\tSpaceAfter=No\\ner=O|"
        "3\tBergen\tb\tX\tX\t_\t0\tr\t_\tner=B-LOC||1\tIt\tit\tX\tX\t_\t0\tr\t_\tner=O|2\trains\tr\tX\tX\t_\t0\tr\t_\tner=O|",
    ],
    ids=["from 1", "from 0", "CoNLL-U"],
)
def test_numbers_of_tokens_are_no_tokens(write, lines):
    content = lines.replace("|", "\n").replace("\\", "|")
    assert read(write("my.conll", content)) == (GOLD, ["the first column numbers the tokens and was left out"])


def test_numbers_as_tokens_stay(write):
    rows, notes = read(write("my.conll", "12\tO\nmen\tO\n\nIn\tO\n1812\tO\n"))
    assert [row["tokens"] for row in rows] == ["12 men", "In 1812"] and notes == []


def test_hash_sign_as_a_token_is_no_comment(write):
    rows, _ = read(write("my.conll", "# id 1\n# O\n1 O\nhit O\n\nAda B-PER\n"))
    assert rows[0] == {"tokens": "# 1 hit", "tags": "O O O"}


def test_no_break_space_stays_in_its_token(write):
    rows, _ = read(write("my.conll", "1\u00a0000\u00a0km\tO\nto\tO\n\u00a0\tO\nNew York\tB-LOC\n"))
    assert rows == [{"tokens": "1\u00a0000\u00a0km to \u00a0 New\u00a0York", "tags": "O O O B-LOC"}]
    frame = load_dataset(write("b.conll", "\u00a0\tO\nto\tO\nBergen\tB-LOC\n"), split="train", task="tag")
    assert frame["tokens"].tolist() == ["\u00a0 to Bergen"]


def test_two_columns_of_tags_need_a_choice(write):
    path = write("my.conll", "1\tAda\tB-PER\tO\n2\tsaw\tO\tO\n3\tBergen\tB-LOC\tB-ORG\n")
    with pytest.raises(ValueError, match=r"columns 3 and 4 both hold tags.*tags=\"3\", in the shell --tags 3"):
        read(path)
    assert load_dataset(path, split="train", tags="3")["tags"].tolist() == ["B-PER O B-LOC"]
    frame = load_dataset(path, split="train", task="tag", tokens="2", tags="4")
    assert frame[["tokens", "tags"]].to_numpy().tolist() == [["Ada saw Bergen", "O O B-ORG"]]
    with pytest.raises(ValueError, match=r"no column '7' \(asked for as tags\). It has the columns 1 to 4"):
        load_dataset(path, split="train", tags="7")


def test_columns_of_universal_dependencies_have_names(write):
    path = write("my.conllu", "1\tAda\tada\tPROPN\t_\t_\t0\troot\t_\t_\n2\tsaw\tsee\tVERB\t_\t_\t0\tr\t_\t_\n")
    with pytest.warns(UserWarning, match="types without B- and I-"):
        frame = load_dataset(path, split="train", tokens="LEMMA", tags="UPOS")
    assert frame[["tokens", "tags"]].to_numpy().tolist() == [["ada see", "B-PROPN B-VERB"]]


@pytest.mark.parametrize("name", ["my.tsv", "my.txt", "my.csv"])
def test_layout_is_recognised_under_other_names(write, name):
    content = "Ada\tB-PER\nsaw\tO\nBergen\tB-LOC\n\nIt\tO\nrains\tO\n"
    assert read(write(name, content))[0] == GOLD
    assert read(write(name, content.replace("\t", " ")), task="tag")[0] == GOLD


def test_other_text_is_not_taken_for_tokens(write):
    assert read(write("a.txt", "so good\nso bad\n\nso so\nno no\n"))[0] == [{"text": "so good\nso bad"}, {"text": "so so\nno no"}]
    assert read(write("b.tsv", "text\tlabel\n\nso good\tO\nso bad\tP\n"))[0][0] == {"text": "so good", "label": "O"}


def test_tokens_without_tags_can_be_read_to_be_tagged(write):
    assert read(write("my.conll", "Ada\nsaw\n\nBergen\n"))[0] == [{"tokens": "Ada saw"}, {"tokens": "Bergen"}]
