"""Read rows from a person's own file, one at a time, and say exactly where a bad one stands.

Formats by the end of the name: .csv, .tsv, .jsonl, .txt, .parquet, each also with .gz (parquet without), and two-column
CoNLL files (.conll, .iob2, .bio: token and tag, an empty line between sentences).
"""

import codecs
import csv
import gzip
import hashlib
import json
import os
import re
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import IO, Any

MAX_CELL_CHARS = 1_000_000  # one cell; a longer one is nearly always a missing quote or a whole file in a cell


FORMATS = (".csv", ".tsv", ".jsonl", ".txt", ".parquet", ".conll", ".iob2", ".bio")


# Half a surrogate pair ("\ud83d" in a JSON file) is no character either, and cannot be written back.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff]")


class Row(dict):
    """One row of a file by column name; `where` says which file and row it is."""

    where: str = ""


def file_format(path: str | Path) -> str:
    """Return the format of `path`, one of FORMATS, with a final .gz looked through."""
    name = str(path).lower().removesuffix(".gz")
    for ending in FORMATS:
        if name.endswith(ending):
            return ending
    raise ValueError(f"{path}: this kind of file is not known. Use one of {', '.join(FORMATS)} (also with .gz).")


def read_rows(path: str | Path, *, encoding: str = "utf-8", check_cells: bool = True) -> Iterator[Row]:
    """Yield the rows of a file in constant memory (parquet: one row group at a time).

    A .csv may use comma, semicolon or tab (read off its header) and double quotes. A .tsv has no quoting. A .txt gives
    rows with the one column `text`: paragraphs between empty lines, or lines where no line is empty. CoNLL files give the
    columns `tokens` and `tags`, joined by single spaces. `check_cells=False` leaves long cells and control characters alone
    (for known public sets).

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is empty, not in `encoding`, or a row is broken; the message names file, row and column.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder, but a file is needed.")
    if not path.exists():
        raise FileNotFoundError(f"{path}: there is no such file. Check the spelling and the folder ({Path.cwd()}).")
    ending = file_format(path)
    if path.stat().st_size == 0:
        raise ValueError(f"{path}: the file is empty. It needs a header line and at least one row.")
    reader = {".csv": _read_csv, ".tsv": _read_csv, ".jsonl": _read_jsonl, ".txt": _read_txt}.get(ending, _read_conll)
    rows = _read_parquet(path) if ending == ".parquet" else reader(path, encoding)
    number = 0
    for number, row in enumerate(rows, 1):
        row.where = row.where or f"{path}, row {number}"
        if check_cells:
            _check_cells(row)
        yield row
    if number == 0:
        raise ValueError(f"{path}: there is no row{' under the header' if ending in ('.csv', '.tsv') else ''}. Add at least one.")


def read_text(path: str | Path, *, encoding: str = "utf-8") -> str:
    """Return a whole text file as one string, line ends as `\\n`, without a byte order mark."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file. Check the spelling and the folder ({Path.cwd()}).")
    with _open_text(path, encoding) as file:
        return file.read()


def sha256_of(path: str | Path) -> str:
    """Return the SHA-256 of a file as 64 hex digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def atomic_write(path: str | Path, mode: str = "w") -> Iterator[IO]:
    """Open a temporary file beside `path` and rename it to `path` when the block ends well; else leave nothing behind."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": "\n"}
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with open(handle, mode, **text) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)  # mkstemp makes files that only their owner can read
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def check_writable(folder: str | Path) -> None:
    """Make a folder if it is not there, and raise OSError unless files can be written into it: better now than after hours."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"0")
    except OSError as error:
        raise OSError(error.errno, f"No file can be written there ({error.strerror}). Choose another folder", str(folder)) from error


@contextmanager
def _open_text(path: Path, encoding: str) -> Iterator[IO[str]]:
    """Open plain or gzipped text; a wrong encoding becomes an error that names the line."""
    if encoding.lower().replace("_", "-") in ("utf-8", "utf8"):
        encoding = "utf-8-sig"  # spreadsheets put a byte order mark in front
    opener = _opener(path)
    try:
        # newline=None turns CRLF and CR into \n everywhere, inside quoted cells too.
        with opener(path, "rt", encoding=encoding, newline=None) as file:
            yield file
    except LookupError as error:
        raise ValueError(f"{path}: the encoding {encoding!r} is not known. Try 'utf-8', 'cp1252' or 'utf-16'.") from error
    except UnicodeError as error:  # plain UnicodeError where UTF-16 lacks its byte order mark
        line = _first_undecodable_line(path, encoding)
        raise ValueError(
            f"{path}, line {line}: the bytes are not {encoding.removesuffix('-sig')} text ({getattr(error, 'reason', error)}). "
            "Save the file as UTF-8, or name its encoding, e.g. encoding='cp1252' (Windows) or 'utf-16'; in the shell --encoding cp1252."
        ) from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: the gzip file is damaged or cut short ({error}). Copy it again.") from error


def _opener(path: Path) -> Callable[..., IO]:
    return gzip.open if path.suffix.lower() == ".gz" else open


def _first_undecodable_line(path: Path, encoding: str) -> int:
    decoder = codecs.getincrementaldecoder(encoding)()
    number = 1
    with _opener(path)(path, "rb") as file:
        try:
            for line in file:
                # Count decoded line ends: in UTF-16 the byte 0x0a also stands inside other characters.
                number += decoder.decode(line).count("\n")
        except UnicodeError:
            pass
    return number


def _read_csv(path: Path, encoding: str) -> Iterator[Row]:
    csv.field_size_limit(1 << 30)  # our own check of long cells names the row
    with _open_text(path, encoding) as file:
        header = file.readline().rstrip("\n")
        if not header.strip():
            raise ValueError(f"{path}, line 1: the header line is empty. Put the column names there.")
        if file_format(path) == ".tsv":
            options: dict[str, Any] = {"delimiter": "\t", "quoting": csv.QUOTE_NONE}
            hint = "A .tsv has no quotes: no cell can hold a tab or a line end."
        else:
            options = {"delimiter": max(",;\t", key=header.count), "strict": True, "skipinitialspace": True}
            hint = "A cell that holds the separator or a quote must stand in double quotes."
        reader = csv.reader(file, **options)
        row_start = 1
        try:
            columns = [name.strip() for name in next(csv.reader([header], **options))]
            _check_header(path, columns)
            row_start = 2
            for cells in reader:
                if cells:  # an empty line between rows is harmless
                    if len(cells) != len(columns):
                        raise ValueError(
                            f"{path}, line {row_start}: {len(cells)} cells, but the header has {len(columns)} columns "
                            f"({', '.join(columns)}). {hint}"
                        )
                    row = Row(zip(columns, cells, strict=True))
                    row.where = f"{path}, line {row_start}"
                    yield row
                row_start = reader.line_num + 2
        except csv.Error as error:
            raise ValueError(
                f'{path}, line {row_start}: broken quotes ({error}). Inside a quoted cell a quote is written twice (""), '
                "and each opening quote needs a closing one."
            ) from error


def _check_header(path: Path, columns: list[str]) -> None:
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        raise ValueError(f"{path}, line 1: the column name {twice[0]!r} stands there twice. Give each column its own name.")
    if "" in columns:
        raise ValueError(f"{path}, line 1: column {columns.index('') + 1} has no name. Name every column.")


def _read_jsonl(path: Path, encoding: str) -> Iterator[Row]:
    def no_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        if len(set(names)) < len(names):
            raise ValueError(f"the key {next(n for n in names if names.count(n) > 1)!r} stands there twice")
        return dict(pairs)

    with _open_text(path, encoding) as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                value = json.loads(line, object_pairs_hook=no_twice)
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: not a JSON object ({error}). Each line holds one object.") from error
            if not isinstance(value, dict):
                raise ValueError(f"{path}, line {number}: a JSON {type(value).__name__}, but each line must hold an object {{...}}.")
            row = Row(value)
            row.where = f"{path}, line {number}"
            yield row


def _read_txt(path: Path, encoding: str) -> Iterator[Row]:
    with _open_text(path, encoding) as file:
        # An empty line at the end of the file parts nothing.
        has_gaps = sum(filled for filled, _ in groupby(file, key=lambda line: bool(line.strip()))) > 1
    with _open_text(path, encoding) as file:
        block: list[str] = []
        start = 1
        for number, line in enumerate(file, 1):
            if line.strip():
                if not block:
                    start = number
                block.append(line.rstrip("\n"))
            if block and (not line.strip() or not has_gaps):
                yield _text_row(path, start, block)
                block = []
        if block:
            yield _text_row(path, start, block)


def _text_row(path: Path, line: int, block: list[str]) -> Row:
    row = Row(text="\n".join(block))
    row.where = f"{path}, line {line}"
    return row


def _read_conll(path: Path, encoding: str) -> Iterator[Row]:
    with _open_text(path, encoding) as file:
        tokens: list[str] = []
        tags: list[str] = []
        start = 1
        for number, line in enumerate(file, 1):
            cells = line.split()
            if cells and cells[0] != "-DOCSTART-":
                if len(cells) < 2:
                    raise ValueError(f"{path}, line {number}: one column, but a token and its tag are needed ('Bergen\\tB-LOC').")
                if not tokens:
                    start = number
                tokens.append(cells[0])
                tags.append(cells[-1])
            elif tokens:
                yield _tag_row(path, start, tokens, tags)
                tokens, tags = [], []
        if tokens:
            yield _tag_row(path, start, tokens, tags)


def _tag_row(path: Path, line: int, tokens: list[str], tags: list[str]) -> Row:
    row = Row(tokens=" ".join(tokens), tags=" ".join(tags))
    row.where = f"{path}, line {line}"
    return row


def _read_parquet(path: Path) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path}: not a parquet file, or cut short ({error}).") from error
    _check_header(path, file.schema_arrow.names)
    for batch in file.iter_batches(batch_size=1024):
        for values in batch.to_pylist():
            yield Row(values)


def _check_cells(row: Row) -> None:
    for name, value in row.items():
        if isinstance(value, str):
            if len(value) > MAX_CELL_CHARS:
                raise ValueError(
                    f"{row.where}, column {name!r}: the cell has {len(value):,} characters (at most {MAX_CELL_CHARS:,}). "
                    "Split the text into rows, or look for a missing closing quote."
                )
            control = _CONTROL.search(value)
            if control:
                raise ValueError(
                    f"{row.where}, column {name!r}: control character {control.group()!r} at place {control.start() + 1}. "
                    "The file may be binary or in another encoding; remove the character."
                )


def read_checked(path: Path, sha256: str) -> list[dict[str, Any]]:
    """Return the rows of a bundled file after comparing its SHA-256 with the recorded one."""
    if not path.exists():
        raise FileNotFoundError(f"{path}: the bundled file is missing. Clone the repository again.")
    found = sha256_of(path)
    if found != sha256:
        raise ValueError(
            f"{path}: the file was changed (SHA-256 {found[:12]}..., recorded {sha256[:12]}...). "
            "Restore it with git, or load your own copy by its path."
        )
    return list(read_rows(path))
