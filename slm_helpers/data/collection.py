"""A pile of texts as a table, whatever it lies in: no task, no splits, no least number of rows; labels, groups and times if there are."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

from slm_helpers.data.cells import spell_label
from slm_helpers.data.files import FORMATS, SPREADSHEETS, file_format, read_rows
from slm_helpers.data.loading import load_dataset
from slm_helpers.data.own_files import cut_long_texts
from slm_helpers.data.rows import Row
from slm_helpers.data.schema import find_columns
from slm_helpers.data.tables import no_header_hint

import numpy as np
import pandas as pd

MAX_TEXTS = 200_000  # of a file that are kept: beyond, a random choice of so many
_SAMPLE = 200  # rows that are looked at for the column of the texts
_BAD_SHARE = 0.05  # of the rows that may be broken: more mean that the file was not understood
_KEPT = ("text", "label", "group", "time", "split")


@dataclass
class Collection:
    """Texts, and how they were read.

    Attributes:
        frame: Columns `row` (from 1, as in the file), `where`, `text`, and those of label, group, time and split that are there.
        name: What the file or set is called.
        columns: {our name: name in the file}.
        num_rows: In the file.
        skipped, repaired: Lists of {where, column, reason}.
        notes: Short sentences on how the file was understood.
    """

    frame: pd.DataFrame
    name: str
    columns: dict[str, str]
    num_rows: int
    skipped: list[dict[str, str]] = field(default_factory=list)
    repaired: list[dict[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def load_collection(
    name_or_path: str | Path,
    *,
    columns: dict[str, str] | None = None,
    encoding: str = "utf-8",
    header: bool = True,
    strict: bool = False,
    seed: int = 42,
) -> Collection:
    """Read the texts of a file in any format of `read_rows`, or of a named set.

    Args:
        name_or_path: A file or the name of a set.
        columns: {"text" | "label" | "group" | "time": name or number in the file}. Without a text, the column of that or a usual name
            is read, else the one with the longest cells; a column called label (or labels, class, category) is read too.
        encoding: Of a text file; a byte order mark overrules it.
        header: Whether the first line of a table names the columns.
        strict: Refuse a file that needs a repair or has a broken row.
        seed: Of the choice among more than MAX_TEXTS texts.

    Raises:
        FileNotFoundError: If no such file or set is at hand.
        ValueError: If the file cannot be read, a named column is missing, or no row has a text.
    """
    named = {ours: theirs for ours, theirs in (columns or {}).items() if theirs is not None}
    name = str(name_or_path)
    notes: list[str] = []
    if Path(name).exists() or "/" in name or "\\" in name or name.lower().removesuffix(".gz").endswith((*FORMATS, *SPREADSHEETS, ".zip")):
        rows = read_rows(name, encoding=encoding, header=header, strict=strict, task="classify", columns=named, notes=notes)
    else:
        frame = load_dataset(name)
        rows = (Row(values, where=f"row {number}") for number, values in enumerate(frame.to_dict("records"), 1))
    first = list(islice(rows, _SAMPLE))
    wanted = _wanted(name, first, named, notes, header=header)
    found = _collect(name, chain(first, rows), wanted, strict=strict, seed=seed)
    found.notes = notes + found.notes
    if len(found.frame) < 10 and list(wanted) == ["text"] and Path(name).is_file() and file_format(name) == ".txt":
        found.frame = cut_long_texts(found.frame, found.notes).assign(row=lambda table: np.arange(1, len(table) + 1))
    return found


def _wanted(name: str, sample: list[Row], named: dict[str, str], notes: list[str], *, header: bool) -> dict[str, str]:
    """Return {our name: name in the file}."""
    sound = [row for row in sample if not row.broken]
    if not sound:
        raise ValueError(f"{sample[0].where}: {sample[0].problem}")
    present = list(dict.fromkeys(each for row in sound[:20] for each in row.column_names()))
    wanted = find_columns(present, named, task="classify", only=("text", "label"), where=name)
    if "text" not in wanted:
        hint = no_header_hint(present, ("text", "label")) if header and _is_table(name) else ""
        if hint:
            raise ValueError(f"{name}: no column is called text.{hint}")
        lengths = {each: _mean_length(each, sound) for each in present if each not in wanted.values() and each != "tags"}
        longest = max(lengths, key=lambda each: lengths[each], default=None)
        if longest is None or lengths[longest] < 1:
            raise ValueError(f"{name}: no column holds texts ({', '.join(present)}). Name one with text=..., in the shell --text NAME.")
        wanted["text"] = longest
        if len(present) > 1:
            notes.append(f"read text from {longest!r}, the column with the longest cells; name another with --text")
    if "label" in wanted and "label" not in named:
        notes.append(f"read label from {wanted['label']!r}")
    if "split" in present and "split" not in wanted.values():
        wanted["split"] = "split"
    return {ours: wanted[ours] for ours in _KEPT if ours in wanted}


def _is_table(name: str) -> bool:
    return Path(name).is_file() and file_format(name) in (".csv", ".tsv", ".tab", ".txt")


def _mean_length(column: str, rows: list[Row]) -> float:
    """Return the mean length of the cells of a column, 0 for one that is mostly empty, always the same, or numbers and dates."""
    cells = [_as_text(row.get(column)) for row in rows]
    filled = [cell for cell in cells if cell]
    if len(filled) < 0.5 * len(cells) or (len(cells) > 5 and len(set(filled)) < 2):
        return 0.0
    if sum(map(str.isalpha, "".join(filled))) < 0.3 * sum(map(len, filled)):
        return 0.0
    return sum(map(len, filled)) / len(filled)


def _collect(name: str, rows: Iterator[Row], wanted: dict[str, str], *, strict: bool, seed: int) -> Collection:
    """Read all rows; keep a random choice of MAX_TEXTS of those that have a text (reservoir sampling)."""
    found = Collection(pd.DataFrame(), name, wanted, 0)
    kept: list[tuple] = []
    rng, num_texts, num_bad, first_bad = np.random.default_rng(seed), 0, 0, None
    for number, row in enumerate(rows, 1):
        found.num_rows = number
        place = row.where.removeprefix(f"{name}, ")
        text = "" if row.broken else _as_text(row.get(wanted["text"]))
        if row.broken or not text.strip():
            found.skipped.append({"where": place, "column": wanted["text"], "reason": row.problem or "empty"})
            num_bad += row.broken
            first_bad = first_bad or (f"{row.where}: {row.problem}" if row.broken else None)
            if first_bad and (strict or num_bad > max(20, 0.5 * number)):
                raise ValueError(first_bad)
            continue
        found.repaired += [
            {"where": place, "column": column, "reason": reason} for column, reason in row.repairs if column in wanted.values()
        ]
        values = (number, place, text, *(_as_name(row, wanted[ours]) for ours in wanted if ours != "text"))
        num_texts += 1
        if len(kept) < MAX_TEXTS:
            kept.append(values)
        elif (position := int(rng.integers(num_texts))) < MAX_TEXTS:
            kept[position] = values
    if first_bad and num_bad > _BAD_SHARE * found.num_rows:
        raise ValueError(first_bad)
    if not kept:
        raise ValueError(f"{name}: all {found.num_rows} cells of the column {wanted['text']!r} are empty. Name another with --text.")
    if num_texts > MAX_TEXTS:
        kept.sort()
        found.notes.append(f"of {num_texts:,} texts, {MAX_TEXTS:,} drawn at random were looked at")
    found.frame = pd.DataFrame(kept, columns=["row", "where", "text", *(ours for ours in wanted if ours != "text")])
    if found.skipped:
        reasons = Counter(problem["reason"][:80] for problem in found.skipped)
        why = ", ".join(f"{count:,} {reason}" for reason, count in reasons.most_common(2))
        found.notes.append(f"{len(found.skipped):,} of {found.num_rows:,} rows were left out: {why} (first: {found.skipped[0]['where']})")
    return found


def _as_text(value: Any) -> str:
    """Return a cell as one text: a list of words or turns joined, numbers written out, nothing for an empty one."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return _as_text(list(value.values()))
    if isinstance(value, list | tuple | np.ndarray):
        if all(isinstance(each, str) for each in value):
            return (" " if not any(" " in each for each in value) else "\n").join(value)
        turns = [
            each if isinstance(each, list | tuple) and all(isinstance(part, str) for part in each) else [_as_text(each)] for each in value
        ]
        return "\n".join(": ".join(turn) for turn in turns if any(turn))  # a speaker and what is said
    # NaN alone differs from itself.
    return "" if value is None or value != value else str(value)


def _as_name(row: Row, column: str) -> str:
    """Return a label, group or time in one spelling; several labels of a text are joined by commas, none is "(none)"."""
    value = row.get(column)
    if isinstance(value, list | tuple | np.ndarray):
        return ", ".join(sorted(spell_label(each) for each in value)) or "(none)"
    if value is None or value != value or not str(value).strip():
        return "(none)"
    return spell_label(value, decimal_comma=row.decimal_comma)
