from slm_helpers.data.files import read_rows
from slm_helpers.data.tables import looks_like_data

import pytest


def read(path, **options):
    """Return the rows as dicts, and the notes on how the file was understood."""
    notes = []
    return [dict(row) for row in read_rows(path, notes=notes, **options)], notes


ROWS = [{"text": "so good", "label": "1"}, {"text": "a, b; c", "label": "2"}]


@pytest.mark.parametrize(
    "content",
    [
        'text,label\nso good,1\n"a, b; c",2\n',
        'text;label\nso good;1\n"a, b; c";2\n',
        "text|label\nso good|1\na, b; c|2\n",
        "text\tlabel\nso good\t1\na, b; c\t2\n",
        '\ufeffsep=;\r\ntext;label\r\nso good;1\r\n"a, b; c";2\r\n',
        'text;label;\nso good;1;\n"a, b; c";2;\n',
        'text,label,,\nso good,1,,\n"a, b; c",2,,\n',
        '"text","label"\n"so good","1"\n"a, b; c","2"\n',
        'text,label\nso good,1,\n"a, b; c",2,,\n',
    ],
    ids=["comma", "semicolon", "pipe", "tab", "sep line", "ends in a separator", "unnamed and empty", "all quoted", "only rows end so"],
)
def test_usual_forms_of_a_csv_give_the_same_rows(write, content):
    path = write("my.csv", content)
    assert read(path) == read(path, task="classify") == (ROWS, [])


@pytest.mark.parametrize(
    ("content", "note"),
    [
        (',text,label\n0,so good,1\n1,"a, b; c",2\n', ["column 1 has no name and was left out"]),
        ('"","text","label"\n"1","so good","1"\n"2","a, b; c","2"\n', ["column 1 has no name and was left out"]),
        ('"text","label"\n"1","so good","1"\n"2","a, b; c","2"\n', ["column 1 has no name and was left out"]),
        ('text,label,\nso good,1,x\n"a, b; c",2,\n', ["column 3 has no name and was left out"]),
    ],
    ids=["pandas", "R", "R without a name", "remark"],
)
def test_columns_without_a_name_are_left_out_and_said(write, content, note):
    assert read(write("my.csv", content)) == (ROWS, note)


def test_separators_are_counted_outside_of_quotes_in_the_header(write):
    rows, _ = read(write("a.csv", '"Comment (tick; or write; or leave)",Verdict\n"so good",1\n'))
    assert rows == [{"Comment (tick; or write; or leave)": "so good", "Verdict": "1"}]
    rows, _ = read(write("b.csv", '"Text, in full";label\nso good;1\n'))
    assert rows == [{"Text, in full": "so good", "label": "1"}]


def test_header_may_go_over_several_lines(write):
    path = write("my.csv", 'when,"What did you like?\n(one sentence)",label\n1,so good,2\n')
    assert read(path)[0] == [{"when": "1", "What did you like? (one sentence)": "so good", "label": "2"}]
    assert [row.where for row in read_rows(path)] == [f"{path}, line 3"]


def test_one_column_may_hold_every_separator(write):
    assert read(write("my.csv", "text\nso, so; good|bad\nfine\n"))[0] == [{"text": "so, so; good|bad"}, {"text": "fine"}]


def test_tsv_with_quotes_is_told_from_one_that_has_none(write):
    assert read(write("a.tsv", 'text\tlabel\n"He said ""no"" twice"\t1\nplain\t2\n'))[0][0]["text"] == 'He said "no" twice'
    assert read(write("b.tsv", 'text\tlabel\n"one\ttab"\t1\nplain\t2\n'))[0] == [
        {"text": "one\ttab", "label": "1"},
        {"text": "plain", "label": "2"},
    ]
    assert read(write("c.tsv", 'text\tlabel\n"one"\t1\n"two"\t2\n'))[0][0]["text"] == "one"
    # A title in quotes among texts without is a title in quotes.
    assert read(write("d.tsv", 'text\tlabel\n"The Mill" is old\t1\n"Yes"\t2\nplain\t2\n'))[0][0]["text"] == '"The Mill" is old'


@pytest.mark.parametrize("name", ["my.csv", "my.tsv", "my.txt"])
def test_without_a_header_columns_are_numbers(write, name):
    separator = "," if name == "my.csv" else "\t"
    path = write(name, separator.join(["1", "so good"]) + "\n" + separator.join(["2", "so bad"]) + "\n")
    assert read(path, header=False)[0] == [{"1": "1", "2": "so good"}, {"1": "2", "2": "so bad"}]


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["text", "label"], False),
        (["Comment (tick; or write)", "1st label"], False),
        (["0", "so good"], True),
        (["4,5", "so good"], True),
        (["bad", "We waited for two hours."], True),
        (["这家餐馆的菜 很 好 吃。", "5"], True),
    ],
)
def test_first_line_of_cells_is_told_from_one_of_names(cells, expected):
    assert looks_like_data(cells) is expected


def test_equal_cells_in_a_first_row_bring_the_hint_on_headers(write):
    with pytest.raises(ValueError, match=r"'0' stands there twice.*header=False.*text=\"1\", label=\"2\"; in the shell --no-header"):
        read(write("my.csv", "0,0,so good\n1,1,so bad\n"))


def test_header_in_the_midst_of_rows_is_no_row(write):
    good, again, last = read_rows(write("my.csv", "text,label\na,1\ntext,label\nb,2\n"))
    assert again.broken and again.problem == "the header stands here again"
    assert (dict(good), dict(last)) == ({"text": "a", "label": "1"}, {"text": "b", "label": "2"})


def test_rows_go_on_after_one_with_broken_quotes(write):
    path = write("my.csv", 'text,label\na,1\n"so" good,2\nb,3\n')
    rows = list(read_rows(path))
    assert [dict(row) for row in rows[1:]] == [{"text": "so good", "label": "2"}, {"text": "b", "label": "3"}]
    assert [row.repairs for row in rows] == [[], [("text", "a stray quote was left out")], []]
    path = write("two.csv", 'text,label\na,1\n"so\ngood" it was,2\nb,3\n')
    rows = list(read_rows(path))
    assert [row.broken for row in rows] == [False, True, False]
    assert "written twice" in rows[1].problem and "The 1 lines after it are lost" in rows[1].problem


def test_quote_that_would_take_many_lines_with_it_stops_the_file(write):
    lines = [f"text {i},1" for i in range(40)]
    with pytest.raises(ValueError, match=r"my\.csv, line 3: broken quotes"):
        read(write("my.csv", "\n".join(["text,label", "a,1", '"open,2', *lines, 'b","3']) + "\n"))


def test_missing_cells_at_the_end_are_empty_and_a_problem_of_the_row(write):
    full, short = read_rows(write("my.csv", "text,label,note\na,1,x\nb\n"))
    assert (full.problem, dict(short)) == ("", {"text": "b", "label": "", "note": ""})
    assert short.problem.startswith("1 cells, but the header has 3 columns") and not short.broken


def test_three_lines_a_learner_are_attempts(write):
    rows, notes = read(write("my.csv", "3\n4,7,4\n0,1,1\n2,\n9,4,\n1,0,\n"))
    assert [tuple(row.values()) for row in rows] == [
        ("1", 0, "4", "0"),
        ("1", 1, "7", "1"),
        ("1", 2, "4", "1"),
        ("2", 0, "9", "1"),
        ("2", 1, "4", "0"),
    ]
    assert notes == ["three lines a learner (number, skills, answers) were read as one row an attempt"]
    with pytest.raises(ValueError, match=r"line 4: 3 attempts are announced, but 2 skills and 2 answers follow"):
        read(write("cut.csv", "3\n4,7,4\n0,1,1\n3\n9,4\n1,0\n"))


def test_backslashes_before_quotes_and_single_quotes(write):
    rows, _ = read(write("a.csv", '"text","label"\n"He said \\"no, no\\" twice","1"\n"plain","2"\n'))
    assert rows == [{"text": 'He said "no, no" twice', "label": "1"}, {"text": "plain", "label": "2"}]
    rows, _ = read(write("b.csv", "'text','label'\n'so, so','1'\n'it''s','2'\n"))
    assert rows == [{"text": "so, so", "label": "1"}, {"text": "it's", "label": "2"}]
    rows, _ = read(write("c.csv", 'path,label\n"C:\\dir\\",1\n'))
    assert rows == [{"path": "C:\\dir\\", "label": "1"}]  # a backslash at the end of a cell is no escape


@pytest.mark.parametrize("separator", ["\t", ";", "|", ","])
@pytest.mark.parametrize("name", ["my.txt", "my", "my.data"])
def test_text_files_may_be_tables(write, name, separator):
    path = write(name, separator.join(["Text", "Label"]) + "\n" + "".join(separator.join([f"so good {i}", "1"]) + "\n" for i in range(3)))
    assert read(path)[0][0] == {"Text": "so good 0", "Label": "1"}
    assert read(path, header=False)[0][1] == {"1": "so good 0", "2": "1"}
    assert read(write("prose.txt", "one; two\nthree; four\n"))[0] == [{"text": "one; two"}, {"text": "three; four"}]


def test_other_columns_may_stand_there_twice(write):
    rows, _ = read(write("my.csv", "text,note,note,label\na,x,y,1\n"))
    assert rows == [{"text": "a", "note": "x", "note (2)": "y", "label": "1"}]


@pytest.mark.parametrize("before", ["# exported by hand\n# in May\n", "Report; of May, June\n\n", "\n"])
def test_lines_before_the_header_are_left_out_where_its_names_are_known(write, before):
    path = write("my.csv", f'{before}text,label\nso good,1\n"a, b; c",2\n')
    rows, notes = read(path, task="classify")
    assert rows == ROWS and notes == [f"{before.count(chr(10))} line(s) before the header were left out"]
    first = next(read_rows(path, columns={"text": "Text"}, notes=[]))
    assert first.where == f"{path}, line {before.count(chr(10)) + 2}"
