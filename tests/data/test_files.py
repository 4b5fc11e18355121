import gzip
import json
import re

from slm_helpers.data.decoding import read_text
from slm_helpers.data.files import MAX_CELL_CHARS, atomic_write, file_format, read_checked, read_rows, sha256_of

import pandas as pd
import pytest


def rows_of(path, **options):
    return [dict(row) for row in read_rows(path, **options)]


def places_of(path, **options):
    return [row.where.removeprefix(f"{path}, ") for row in read_rows(path, **options)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.csv", ".csv"),
        ("A.CSV.GZ", ".csv"),
        ("b.c.jsonl", ".jsonl"),
        ("n.iob2", ".iob2"),
        ("x.parquet", ".parquet"),
        ("t.txt.gz", ".txt"),
    ],
)
def test_format_is_read_off_the_name(name, expected):
    assert file_format(name) == expected


@pytest.mark.parametrize("name", ["notes.docx", "table.xlsx", "csv", "data.gz"])
def test_unknown_format_lists_the_known_ones(name):
    with pytest.raises(ValueError, match=rf"{re.escape(name)}: this kind of file is not known.*\.csv.*\.parquet"):
        file_format(name)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.csv: there is no such file.*spelling"):
        rows_of(tmp_path / "gone.csv")
    with pytest.raises(ValueError, match="is a folder, but a file is needed"):
        rows_of(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"gone\.txt: there is no such file"):
        read_text(tmp_path / "gone.txt")


@pytest.mark.parametrize("name", ["my.csv", "my.tsv", "my.jsonl", "my.txt", "my.parquet", "my.conll"])
def test_file_of_no_bytes_is_called_empty(write, name):
    with pytest.raises(ValueError, match=rf"{re.escape(name)}: the file is empty.*at least one row"):
        rows_of(write(name, ""))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("my.csv", "text,label\n", "no row under the header. Add at least one"),
        ("my.tsv", "text\tlabel\r\n\r\n", "no row under the header"),
        ("my.jsonl", "\n \n", "there is no row. Add at least one"),
        ("my.txt", "\n\n", "there is no row"),
        ("my.conll", "-DOCSTART- O\n\n", "there is no row"),
        ("my.csv", "\n1,2\n", "line 1: the header line is empty. Put the column names there"),
        ("my.csv", b"\xef\xbb\xbf", "line 1: the header line is empty"),
    ],
)
def test_file_without_rows(write, name, content, message):
    with pytest.raises(ValueError, match=rf"{re.escape(name)}.*{message}"):
        rows_of(write(name, content))


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_separator_is_read_off_the_header(write, separator):
    path = write("my.csv", separator.join(["text", "label"]) + "\n" + separator.join(["good", "5"]) + "\n")
    assert rows_of(path) == [{"text": "good", "label": "5"}]


def test_semicolons_keep_commas_inside_cells(write):
    assert rows_of(write("my.csv", "text;stars\ngood, but dear;3,5\n")) == [{"text": "good, but dear", "stars": "3,5"}]


def test_quoted_cells_hold_separators_quotes_and_line_ends(write):
    path = write("my.csv", 'text,label\n"a, ""b""\nc",1\n\nd,2\n')
    assert rows_of(path) == [{"text": 'a, "b"\nc', "label": "1"}, {"text": "d", "label": "2"}]
    assert places_of(path) == ["line 2", "line 5"]  # as an editor counts them, with the line end inside the cell


def test_spaces_after_separators_and_around_names_do_not_matter(write):
    assert rows_of(write("my.csv", 'text , label\n"a, b", 1\n')) == [{"text": "a, b", "label": "1"}]


def test_tsv_has_no_quoting(write):
    path = write("my.tsv", 'text\tlabel\n"half a quote\t1\nit\'s "fine"\t2\n')
    assert rows_of(path) == [{"text": '"half a quote', "label": "1"}, {"text": 'it\'s "fine"', "label": "2"}]


@pytest.mark.parametrize("line_end", ["\r\n", "\r", "\n"])
def test_line_ends_of_every_system_read_the_same(write, line_end):
    path = write("my.csv", f'text,label{line_end}"a{line_end}b",1{line_end}c,2{line_end}')
    assert rows_of(path) == [{"text": "a\nb", "label": "1"}, {"text": "c", "label": "2"}]


def test_byte_order_mark_is_no_part_of_the_first_name(write):
    assert rows_of(write("my.csv", b"\xef\xbb\xbftext,label\na,1\n")) == [{"text": "a", "label": "1"}]
    assert rows_of(write("my.jsonl", b'\xef\xbb\xbf{"text": "a"}\n')) == [{"text": "a"}]
    assert read_text(write("my.txt", b"\xef\xbb\xbfa\r\nb")) == "a\nb"


@pytest.mark.parametrize(
    "text", ["שלום, עולם!", "مرحبا بالعالم", "👩‍👩‍👧‍👦 🇧🇷 👍🏽", "e\u0301 – „Zitat“", "你好，世界", "a\u200fb", "tab\there"]
)
@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet", "txt"])
def test_text_of_every_script_arrives_unchanged(write, tmp_path, text, ending):
    path = tmp_path / f"my.{ending}"
    if ending == "parquet":
        pd.DataFrame({"text": [text]}).to_parquet(path)
    else:
        content = {"csv": f'text,n\n"{text}",1\n', "jsonl": json.dumps({"text": text}) + "\n", "txt": text + "\n"}
        path = write(path.name, content[ending])
    assert rows_of(path)[0]["text"] == text


@pytest.mark.parametrize(
    ("row", "num_cells"), [("only one", 1), ("a,b,c", 3), ("well, not quoted,1", 3)], ids=["short", "long", "comma not quoted"]
)
def test_ragged_row_is_named_with_its_columns(write, row, num_cells):
    path = write("my.csv", f"text,label\ngood,1\n{row}\n")
    message = rf"{num_cells} cells.*2 columns \(text, label\).*in double quotes"
    with pytest.raises(ValueError, match=rf"my\.csv, line 3: {message}"):
        rows_of(path, strict=True)
    good, bad = read_rows(path)
    assert (good.problem, bad.broken) == ("", num_cells > 2) and re.match(message, bad.problem)


def test_ragged_tsv_row_gets_advice_for_tsv(write):
    with pytest.raises(ValueError, match=r"my\.tsv, line 2: 3 cells.*Without quotes no cell can hold a tab"):
        rows_of(write("my.tsv", "text\tlabel\na\tb\t1\n"), strict=True)


@pytest.mark.parametrize(
    ("rows", "line"),
    [('good,1\n"bad,2\nx,3\n', 3), ('good,1\n"a"b,2\n', 3), ('"two\nlines",1\n"open\nto\nthe end', 4)],
    ids=["no closing quote", "text after a quote", "after a cell of two lines"],
)
def test_broken_quotes_are_named_where_their_row_begins(write, rows, line):
    with pytest.raises(ValueError, match=rf"my\.csv, line {line}: broken quotes.*written twice.*closing one"):
        rows_of(write("my.csv", "text,label\n" + rows), strict=True)


def test_headers_that_stand_twice_or_lack_a_name(write, tmp_path):
    with pytest.raises(ValueError, match=r"my\.csv, line 1: the column name 'text' stands there twice.*own name"):
        rows_of(write("my.csv", "text,label,text\na,1,b\n"))
    with pytest.warns(UserWarning, match=r"my\.csv: column 2 has no name and was left out"):
        assert rows_of(write("my.csv", "text,,label\na,1,b\n")) == [{"text": "a", "label": "b"}]
    with pytest.raises(ValueError, match=r"my\.csv, line 1: no column has a name"):
        rows_of(write("my.csv", ",\na,1\n"))


def test_reading_is_lazy(write):
    rows = read_rows(write("my.csv", "text,label\na,1\nbroken\n"), strict=True)
    assert next(rows)["text"] == "a"
    with pytest.raises(ValueError, match="line 3"):
        next(rows)


def test_wrong_encoding_names_the_line_and_the_way_out(write):
    path = write("my.csv", "text,label\nplain,1\nCafé olé,2\n".encode("cp1252"))
    with pytest.raises(ValueError, match=r"my\.csv, line 3: the bytes are not utf-8 text.*encoding='cp1252'"):
        rows_of(path)
    assert rows_of(path, encoding="cp1252")[1] == {"text": "Café olé", "label": "2"}


def test_undecodable_line_is_found_far_into_a_file(write):
    lines = [f"text {i},1" for i in range(20_000)]  # far more than one buffer
    lines[15_000] = "Café,1"
    with pytest.raises(ValueError, match=r"my\.csv, line 15002:"):
        rows_of(write("my.csv", ("text,label\n" + "\n".join(lines)).encode("latin-1")))


def test_utf16_works_and_its_errors_name_the_file(write):
    text = "text,label\nжar Ċ 你好,1\nb,2\n"  # U+010A holds the byte 0x0a
    assert rows_of(write("my.csv", text.encode("utf-16")), encoding="utf-16")[0]["text"] == "жar Ċ 你好"
    assert rows_of(write("my.csv", text.encode("utf-16")))[0]["text"] == "жar Ċ 你好", "its byte order mark says what it is"
    with pytest.raises(ValueError, match=r"my\.csv, line 1: the bytes are not utf-8 text.*encoding='utf-16-le'"):
        rows_of(write("my.csv", text.encode("utf-16-le")))
    with pytest.raises(ValueError, match=r"my\.csv, line 1: the bytes are not utf-16 text \(UTF-16 stream does not start with BOM"):
        rows_of(write("my.csv", text), encoding="utf-16")
    with pytest.raises(ValueError, match=r"my\.csv, line 4: the bytes are not utf-16 text \(truncated"):
        rows_of(write("my.csv", text.encode("utf-16") + b"\x41"), encoding="utf-16")


def test_unknown_encoding_is_named(write):
    with pytest.raises(ValueError, match=r"my\.csv: the encoding 'utf-9' is not known. Try 'utf-8'"):
        rows_of(write("my.csv", "text\na\n"), encoding="utf-9")


@pytest.mark.parametrize("name", ["my.csv.gz", "MY.CSV.GZ"])
def test_gzip_reads_like_the_plain_file(write, name):
    assert rows_of(write(name, gzip.compress(b"text,label\na,1\n"))) == [{"text": "a", "label": "1"}]


def test_damaged_gzip_is_told(write):
    packed = bytearray(gzip.compress("".join(f"text {i * 7919 % 1000}\n" for i in range(3000)).encode()))
    broken_inside = bytes(packed[:20]) + b"\xff" * 40 + bytes(packed[60:])
    wrong_sum = bytes(packed[:-8]) + bytes(4) + bytes(packed[-4:])
    for content in (bytes(packed[:-20]), broken_inside, wrong_sum, b"text\nplain text\n"):
        with pytest.raises(ValueError, match=r"my\.csv\.gz: the gzip file is damaged or cut short.*Copy it again"):
            rows_of(write("my.csv.gz", content))


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet", "txt"])
def test_cell_of_ten_megabytes_is_refused_with_its_place(write, tmp_path, ending):
    huge = "word " * 2_000_000
    path = tmp_path / f"my.{ending}"
    if ending == "parquet":
        pd.DataFrame({"text": ["a", huge]}).to_parquet(path)
    else:
        content = {"csv": f"text,n\na,1\n{huge},1\n", "jsonl": f'{{"text": "a"}}\n{{"text": "{huge}"}}\n', "txt": f"a\n{huge}\n"}
        path = write(path.name, content[ending])
    place = {"csv": "line 3", "jsonl": "line 2", "parquet": "row 2", "txt": "line 2"}[ending]
    with pytest.raises(
        ValueError, match=rf"my\.{ending}, {place}, column 'text': the cell has [\d,]+ characters.*Split the text into rows"
    ):
        rows_of(path)


def test_longest_allowed_cell_passes(write):
    path = write("my.csv", f"text,n\n{'x' * MAX_CELL_CHARS},1\n")
    assert len(rows_of(path)[0]["text"]) == MAX_CELL_CHARS
    with pytest.raises(ValueError, match="1,000,001 characters"):
        rows_of(write("my.csv", f"text,n\n{'x' * (MAX_CELL_CHARS + 1)},1\n"))


@pytest.mark.parametrize("character", ["\x00", "\x07", "\x1b", "\ud83d"])
def test_control_characters_and_half_surrogates_are_removed_and_listed_or_refused(write, character):
    path = write("my.jsonl", json.dumps({"n": "a", "text": "ok" + character}) + "\n")
    with pytest.raises(ValueError, match=r"my\.jsonl, line 1, column 'text': control character '\\\w+' at place 3.*remove"):
        rows_of(path, strict=True)
    assert rows_of(path, trusted=True)[0]["text"] == "ok" + character  # known public sets hold such things
    (row,) = read_rows(path)
    assert row["text"] == "ok"
    assert row.repairs == [("text", f"1 control character(s) removed, first {character!r}")]


def test_jsonl_keeps_types_and_skips_empty_lines(write):
    path = write("my.jsonl", '{"text": "a", "label": 1}\n\n{"text": null, "label": 2.5}\n')
    assert rows_of(path) == [{"text": "a", "label": 1}, {"text": None, "label": 2.5}]
    assert places_of(path) == ["line 1", "line 3"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "a", "label"', "line 2: not a JSON object .*Each line holds one object"),
        ("text,label", "line 2: not a JSON object"),
        ('["a", 1]', "line 2: a JSON list, but each line must hold an object"),
        ('"a"', "line 2: a JSON str, but"),
        ('{"text": "a", "text": "b"}', "line 2: .*the key 'text' stands there twice"),
    ],
    ids=["cut", "csv", "list", "string", "twice"],
)
def test_broken_jsonl_line_is_named(write, line, message):
    with pytest.raises(ValueError, match=rf"my\.jsonl, {message}"):
        rows_of(write("my.jsonl", f'{{"text": "x", "label": "1"}}\n{line}\n'))


def test_txt_gives_paragraphs_or_lines(write):
    paragraphs = write("p.txt", "\n\none\ntwo\n\n\nthree\n")
    notes = []
    assert rows_of(paragraphs, notes=notes) == [{"text": "one\ntwo"}, {"text": "three"}]
    assert notes == ["the text was cut at its empty lines, into 2 texts; without empty lines, each line is a text"]
    assert places_of(paragraphs, notes=[]) == ["line 3", "line 7"]
    assert rows_of(write("l.txt", "one\ntwo\nthree")) == [{"text": "one"}, {"text": "two"}, {"text": "three"}]


@pytest.mark.parametrize("content", ["one\ntwo\n\n", "\none\ntwo\n \n\n"])
def test_empty_lines_around_the_text_make_no_paragraph_of_it(write, content):
    assert rows_of(write("l.txt", content)) == [{"text": "one"}, {"text": "two"}]


@pytest.mark.parametrize("ending", ["conll", "iob2", "bio"])
def test_conll_rows_are_sentences(write, ending):
    path = write(f"my.{ending}", "-DOCSTART- -X- O\n\nBergen NNP B-LOC\nrains VBZ O\n\n\nYes\tO")
    assert rows_of(path) == [{"tokens": "Bergen rains", "tags": "B-LOC O"}, {"tokens": "Yes", "tags": "O"}]
    assert places_of(path) == ["line 3", "line 7"]


def test_token_without_tag_is_named(write):
    with pytest.raises(ValueError, match=r"my\.conll, line 2: 1 column\(s\), but a token and its tag are needed"):
        rows_of(write("my.conll", "Bergen B-LOC\nrains\n"))


def test_parquet_keeps_types_and_nulls(tmp_path):
    pd.DataFrame({"text": ["a", None], "stars": [1, 2]}).to_parquet(tmp_path / "my.parquet")
    assert rows_of(tmp_path / "my.parquet") == [{"text": "a", "stars": 1}, {"text": None, "stars": 2}]
    assert places_of(tmp_path / "my.parquet") == ["row 1", "row 2"]


def test_what_is_no_parquet_file_or_has_no_row(write, tmp_path):
    with pytest.raises(ValueError, match=r"my\.parquet: not a parquet file, or cut short"):
        rows_of(write("my.parquet", "text,label\na,1\n"))
    pd.DataFrame({"text": ["a"] * 100}).to_parquet(tmp_path / "whole.parquet")
    with pytest.raises(ValueError, match=r"my\.parquet: not a parquet file, or cut short"):
        rows_of(write("my.parquet", (tmp_path / "whole.parquet").read_bytes()[:-10]))
    pd.DataFrame({"text": pd.Series([], dtype=str)}).to_parquet(tmp_path / "none.parquet")
    with pytest.raises(ValueError, match=r"none\.parquet: there is no row"):
        rows_of(tmp_path / "none.parquet")


def test_atomic_write_makes_folders_and_replaces_whole_files(tmp_path):
    path = tmp_path / "new" / "folder" / "a.txt"
    for text in ("a long first text, é\n", "short\n"):
        with atomic_write(path) as file:
            file.write(text)
    assert path.read_bytes() == b"short\n"
    assert [p.name for p in path.parent.iterdir()] == ["a.txt"]
    assert path.stat().st_mode & 0o044 == 0o044  # others can read it


def test_atomic_write_leaves_the_old_file_and_nothing_else_when_it_fails(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    for error in (RuntimeError, KeyboardInterrupt):
        with pytest.raises(error), atomic_write(path) as file:
            file.write("half of the new")
            assert path.read_text() == "old"  # a reader never sees half a file
            raise error
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_atomic_write_takes_bytes_and_keeps_line_ends(tmp_path):
    with atomic_write(tmp_path / "b", "wb") as file:
        file.write(b"\x00\r\n")
    assert (tmp_path / "b").read_bytes() == b"\x00\r\n"
    with atomic_write(tmp_path / "t") as file:
        file.write("a\nb\n")
    assert (tmp_path / "t").read_bytes() == b"a\nb\n"  # on Windows too


def test_sha256_of_abc_is_the_published_one(write):
    assert sha256_of(write("abc", "abc")) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_read_text_of_gzip(write):
    assert read_text(write("a.txt.gz", gzip.compress(b"one\r\ntwo"))) == "one\ntwo"


def test_bundled_file_is_read_only_with_the_recorded_hash(write):
    path = write("a.jsonl", '{"text": "a"}\n')
    with pytest.raises(ValueError, match=r"a\.jsonl: the file was changed \(SHA-256 .*recorded 000000000000.*Restore it"):
        read_checked(path, "0" * 64)
    with pytest.raises(FileNotFoundError, match=r"b\.jsonl: the bundled file is missing"):
        read_checked(path.with_name("b.jsonl"), "0" * 64)
