import codecs
import gzip
import os
import zipfile

from slm_helpers.data.decoding import MAX_LINE_CHARS, fitting_encodings, read_lines, read_text
from slm_helpers.data.files import file_format, read_rows

import pytest


@pytest.mark.parametrize("mark", ["utf-8-sig", "utf-16", "utf-32"])
def test_byte_order_mark_decides_whatever_encoding_is_named(write, mark):
    for named in ("utf-8", "cp1252"):
        assert list(read_lines(write("a.txt", "Grüße\nzwei".encode(mark)), named)) == ["Grüße", "zwei"]


@pytest.mark.parametrize(
    ("text", "encoding", "expected"),
    [
        ("Señor López llegó mañana, ¡qué alegría!", "latin-1", "cp1252"),
        ("“quoted” – naïve £5", "cp1252", "cp1252"),
        ("caf\u00e9 \u0081", "latin-1", "latin-1"),  # 0x81 stands for nothing in cp1252
        ("这家餐馆的菜很好吃，服务也很好。", "gb18030", "gb18030"),
        ("とても良い商品でした。また買います。", "shift_jis", "shift_jis"),
        ("정말 좋은 제품입니다. 추천합니다.", "euc_kr", "euc_kr"),
        ("Очень хороший товар, всем советую", "cp1251", "cp1251"),
        ("plain text", "utf-16-le", "utf-16-le"),
        ("plain text", "utf-16-be", "utf-16-be"),
    ],
)
def test_encodings_that_fit_the_bytes(text, encoding, expected):
    assert expected in fitting_encodings(text.encode(encoding))[:3]


def test_advice_names_another_encoding_than_the_one_tried(write):
    path = write("a.csv", "text,label\nGrüße,1\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"line 2: the bytes are not utf-8 text.*encoding='cp1252', in the shell --encoding cp1252"):
        list(read_lines(path))
    path = write("b.csv", "text,label\nSeñor,\x81\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"not cp1252 text.*encoding='latin-1'"):
        list(read_lines(path, "cp1252"))
    with pytest.raises(ValueError, match=r"not ascii text.*encoding='utf-8'"):
        list(read_lines(write("c.csv", "Grüße"), "ascii"))


def test_lone_carriage_return_is_text_where_lines_end_otherwise(write):
    assert list(read_lines(write("a.txt", "one\rmore\ntwo\r\nthree"))) == ["one more", "two", "three"]
    assert list(read_lines(write("b.txt", "one\rtwo\rthree\r"))) == ["one", "two", "three"]  # an old Mac
    assert list(read_lines(write("c.txt", "one\u2028more\x85\ntwo\n"))) == ["one\u2028more\x85", "two"]
    assert read_text(write("d.txt", "one\r\ntwo\r")) == "one\ntwo\r"


@pytest.mark.parametrize("name", ["a.csv.gz", "a.jsonl.gz", "a.txt.gz", "a.conll.gz"])
def test_packed_line_is_bounded_while_it_is_read(write, name):
    path = write(name, gzip.compress(b"text\n" + b"a" * (MAX_LINE_CHARS + 10), compresslevel=1))
    assert path.stat().st_size < 200_000
    with pytest.raises(ValueError, match=r"line 2: the line has more than 16,777,216 characters|line 1: not a JSON|line 1: 1 column"):
        list(read_rows(path))


def test_pipe_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "my.csv")
    for read in (read_text, lambda path: next(read_rows(path))):
        with pytest.raises(ValueError, match=r"my\.csv is a pipe or a device, but a file is needed"):
            read(tmp_path / "my.csv")


def test_zip_archive_of_one_table_reads_like_the_table(tmp_path):
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.writestr("inner/rows.csv", "text,label\na,1\n")
        archive.writestr("__MACOSX/inner/._rows.csv", "x")
    assert file_format(tmp_path / "all.zip") == ".csv"
    assert [dict(row) for row in read_rows(tmp_path / "all.zip")] == [{"text": "a", "label": "1"}]


def test_zip_archives_that_hold_no_one_table(write, tmp_path):
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        archive.writestr("a.csv", "text\na\n")
        archive.writestr("b.csv", "text\nb\n")
    with pytest.raises(ValueError, match=r"two\.zip: the archive holds 2 files \(a\.csv, b\.csv\).*Unpack it"):
        list(read_rows(tmp_path / "two.zip"))
    with pytest.raises(ValueError, match=r"bad\.zip: the zip file is damaged or cut short"):
        list(read_rows(write("bad.zip", "PK no archive")))
    with pytest.raises(ValueError, match=r"my\.xlsx: this kind of file is not known.*saved as CSV"):
        list(read_rows(write("my.xlsx", "PK")))


def test_marks_are_known_by_their_first_bytes():
    assert codecs.BOM_UTF32_LE.startswith(codecs.BOM_UTF16_LE), "so the longer one has to be looked for first"


def test_one_odd_byte_in_utf8_is_told_as_such(write):
    path = write("my.csv", ("text\n" + "Grüße\n" * 50).encode() + b"odd \xff byte\n")
    with pytest.raises(
        ValueError, match=r"line 52: the bytes are not utf-8 text.*All but 1 of its characters are UTF-8.*write this line anew"
    ):
        list(read_lines(path))
