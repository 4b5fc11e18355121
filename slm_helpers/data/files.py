"""Read rows from a person's own file, one at a time, and say exactly where a bad one stands; write files whole or not at all.

Formats by the end of the name: .csv, .tsv, .jsonl, .json, .txt, .parquet, each also as .gz or .zip (parquet without), and files
with one token a line (.conll, .conllu, .iob2, .bio), which are recognised under the names .tsv and .txt too.
"""

import hashlib
import json
import os
import re
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby, islice
from pathlib import Path
from typing import IO, Any

from slm_helpers.data.conll import looks_like_conll, read_conll
from slm_helpers.data.decoding import check_file, read_lines, zip_member
from slm_helpers.data.json_rows import read_json, read_jsonl
from slm_helpers.data.rows import Reading, Row
from slm_helpers.data.tables import (
    first_cells,
    header_advice,
    looks_like_attempt_triples,
    looks_like_table,
    read_attempt_triples,
    read_table,
)

MAX_CELL_CHARS = 1_000_000  # one cell; a longer one is nearly always a missing quote or a whole file in a cell
FORMATS = (".csv", ".tsv", ".tab", ".jsonl", ".ndjson", ".json", ".txt", ".parquet", ".conll", ".conllu", ".iob2", ".bio")
SPREADSHEETS = (".xlsx", ".xls", ".xlsm", ".ods")
_TABLES = (".csv", ".tsv", ".tab")
# Half a surrogate pair ("\ud83d" in a JSON file) is no character either, and cannot be written back.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
_FASTTEXT = re.compile(r"(?:^|\s)__label__(\S+)")


def file_format(path: str | Path) -> str:
    """Return the format of `path`, one of FORMATS, with a final .gz or .zip looked through."""
    name = str(path).lower().removesuffix(".gz")
    if name.endswith(".zip"):
        name = zip_member(Path(path)).lower() if Path(path).is_file() else name.removesuffix(".zip")
    for ending in FORMATS:
        if name.endswith(ending):
            return ending
    if Path(path).is_file() and re.search(r"(^|[/\\])[^./\\]+$|\.(dat|data|text|log)$", name):
        return ".txt"  # many old sets have no ending
    advice = " A spreadsheet is read after it was saved as CSV (UTF-8)." if name.endswith(SPREADSHEETS) else ""
    raise ValueError(f"{path}: this kind of file is not known. Use one of {', '.join(FORMATS)} (also with .gz or .zip).{advice}")


def read_rows(
    path: str | Path,
    *,
    encoding: str = "utf-8",
    header: bool = True,
    task: str | None = None,
    columns: dict[str, str] | None = None,
    strict: bool = False,
    trusted: bool = False,
    notes: list[str] | None = None,
) -> Iterator[Row]:
    """Yield the rows of a file in constant memory (parquet: one row group at a time; .json: as a whole).

    A .csv may use comma, semicolon, tab or pipe, and double quotes; a .tsv may have quotes. A .txt gives rows with the one column
    `text`: paragraphs between empty lines, or lines where no line is empty; `__label__` at the front of its lines gives a column
    `label` too. Files with a token a line give the columns `tokens` and `tags`, joined by single spaces.

    Args:
        path: A regular file.
        encoding: Of a text file; a byte order mark overrules it.
        header: Whether the first line of a table names the columns; else they are called "1", "2" and so on.
        task: What the rows are for ("tag", "classify" ...): tells apart forms that a file's name does not.
        columns: {our name: name or number in the file}, needed here only where a file has several columns of tags.
        strict: Refuse what else is repaired (control characters) or marked as a problem of the row (too many cells).
        trusted: Take the file as it stands: no guess at its layout, no check of cells. For sets whose form is known.
        notes: Gets short sentences on how the file was understood; they become warnings if it is not given.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is empty, not in `encoding`, or cannot be read; the message names file, row and column.
    """
    path = check_file(path)
    ending = file_format(path)
    if path.stat().st_size == 0:
        raise ValueError(f"{path}: the file is empty. It needs a header line and at least one row.")
    reading = Reading(path, encoding, header, task, columns or {}, strict, trusted)
    number = 0
    for number, row in enumerate(_rows(reading, ending), 1):
        row.where = row.where or f"{path}, row {number}"
        if not trusted:
            _check_cells(row, strict=strict)
        if number == 1:
            _pass_on(reading.notes, notes, path)
        yield row
    if number == 0:
        raise ValueError(f"{path}: there is no row{' under the header' if ending in _TABLES else ''}. Add at least one.")


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
    return list(read_rows(path, strict=True))


def _rows(reading: Reading, ending: str) -> Iterator[Row]:
    """Choose the reader by the end of the name and, unless the file is trusted, by its first lines."""
    if ending == ".parquet":
        return _read_parquet(reading.path)
    if ending in (".jsonl", ".ndjson", ".json"):
        return (read_json if ending == ".json" else read_jsonl)(reading)
    if ending not in (*_TABLES, ".txt"):
        return read_conll(reading)
    sample = [] if reading.trusted else list(islice(read_lines(reading.path, reading.encoding), 100))
    if looks_like_conll(sample, tags_wanted=reading.task in ("tag", "command")):
        return read_conll(reading)
    if ending == ".csv" and looks_like_attempt_triples(sample):
        return read_attempt_triples(reading)
    if ending != ".txt":
        return read_table(reading, tabs=ending != ".csv")
    if sum(line.startswith("__label__") for line in sample) > len(sample) / 2:
        return _read_fasttext(reading)
    return read_table(reading, tabs="\t" in sample[0]) if _is_table(reading, sample) else _read_txt(reading)


def _is_table(reading: Reading, sample: list[str]) -> bool:
    """Whether a .txt is a table: told so by header=False, or by a first line of names that were asked for or are those of a task."""
    if reading.trusted or not sample:
        return False
    if not reading.header:
        return True
    cells = first_cells(reading, tabs="\t" in sample[0])
    names = {" ".join(name.lower().split()) for name in cells}
    asked = {" ".join(str(name).lower().split()) for name in reading.columns.values()}
    if len(cells) > 1 and (names & asked or {"text", "label"} <= names or {"source", "target"} <= names):
        return True
    if looks_like_table(sample) and reading.task not in (None, "lm", "language_model"):
        raise ValueError(
            f"{reading.path}:{header_advice(reading.ours, 'Its lines are those of a table, but the first one names no known column.')}"
        )
    return False


def _read_txt(reading: Reading) -> Iterator[Row]:
    # An empty line at the end of the file parts nothing.
    lines = read_lines(reading.path, reading.encoding)
    num_blocks = sum(filled for filled, _ in groupby(lines, key=lambda line: bool(line.strip())))
    if num_blocks > 1:
        reading.note(f"the text was cut at its empty lines, into {num_blocks:,} texts; without empty lines, each line is a text")
    block: list[str] = []
    start = 1
    for number, line in enumerate(read_lines(reading.path, reading.encoding), 1):
        if line.strip():
            if not block:
                start = number
            block.append(line)
        if block and (not line.strip() or num_blocks == 1):
            yield Row(text="\n".join(block), where=reading.at(start))
            block = []
    if block:
        yield Row(text="\n".join(block), where=reading.at(start))


def _read_fasttext(reading: Reading) -> Iterator[Row]:
    """Rows from lines such as `__label__spam Win a prize`, as fastText reads them."""
    reading.note("words that begin with __label__ were read as labels")
    for number, line in enumerate(read_lines(reading.path, reading.encoding), 1):
        if line.strip():
            labels = _FASTTEXT.findall(line)
            yield Row(
                text=_FASTTEXT.sub("", line).strip(), label=labels[0] if len(labels) == 1 else labels or None, where=reading.at(number)
            )


def _read_parquet(path: Path) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        names = file.schema_arrow.names
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"{path}: the column name {twice!r} stands there twice. Give each column its own name.")
        classes = _class_names(file.schema_arrow.metadata or {})
        for batch in file.iter_batches(batch_size=1024):
            for values in batch.to_pylist():
                yield Row(values | {name: _named(values[name], classes[name]) for name in classes.keys() & values.keys()})
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"{path}: not a parquet file, or cut short ({error}).") from error


def _class_names(metadata: dict[bytes, bytes]) -> dict[str, list[str]]:
    """Return the names of numbered classes by column, which Hugging Face `datasets` keeps in a parquet file."""
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError):
        return {}
    inner = {name: feature.get("feature", feature) for name, feature in features.items() if isinstance(feature, dict)}
    return {
        name: feature["names"] for name, feature in inner.items() if isinstance(feature, dict) and isinstance(feature.get("names"), list)
    }


def _named(value: Any, names: list[str]) -> Any:
    if isinstance(value, list):
        return [_named(each, names) for each in value]
    return names[value] if isinstance(value, int) and 0 <= value < len(names) else value


def _pass_on(found: list[str], notes: list[str] | None, path: Path) -> None:
    if notes is not None:
        notes.extend(found)
    elif found:
        warnings.warn(f"{path}: {'; '.join(found)}.", stacklevel=3)


def _check_cells(row: Row, *, strict: bool) -> None:
    for name, value in row.items():
        if isinstance(value, str):
            if len(value) > MAX_CELL_CHARS:
                raise ValueError(
                    f"{row.where}, column {name!r}: the cell has {len(value):,} characters (at most {MAX_CELL_CHARS:,}). "
                    "Split the text into rows, or look for a missing closing quote."
                )
            control = _CONTROL.search(value)
            if not control:
                continue
            if strict:
                raise ValueError(
                    f"{row.where}, column {name!r}: control character {control.group()!r} at place {control.start() + 1}. "
                    "The file may be binary or in another encoding; remove the character."
                )
            row[name], number = _CONTROL.subn("", value)
            row.repairs.append((name, f"{number} control character(s) removed, first {control.group()!r}"))
