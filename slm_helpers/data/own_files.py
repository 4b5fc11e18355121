"""A person's own file as a DataFrame: its columns found, its rows cleaned, odd forms converted, its splits dealt."""

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from slm_helpers.data.decoding import check_file, read_lines
from slm_helpers.data.files import file_format, read_rows
from slm_helpers.data.rows import Row
from slm_helpers.data.schema import (
    ALL_COLUMNS,
    GOES_WITH,
    NAMING,
    OPTIONAL,
    check_labels,
    check_tags,
    clean_row,
    find_columns,
    split_name,
    task_columns,
)
from slm_helpers.data.splits import make_splits
from slm_helpers.data.tables import no_header_hint
from slm_helpers.data.tag_schemes import spans_to_tags, to_iob2

import numpy as np
import pandas as pd

_BAD_SHARE = 0.05  # of the rows of a file that may be broken: more mean that the file was not understood
_LONG_TEXT = 4000  # characters; a text file of a few longer texts is cut into pieces, which can be dealt


@dataclass
class Options:
    """What the caller of `load_dataset` asked for, and sentences that it gets back."""

    columns: dict[str, str]
    task: str | None
    split: str | None
    encoding: str
    header: bool
    strict: bool
    seed: int
    notes: list[str] = field(default_factory=list)


def load_own(path: Path, options: Options) -> pd.DataFrame:
    """Return the rows of one file, as `load_dataset` promises them; what the user should know is added to `options.notes`."""
    read = _read_own(path, options)
    wanted = read.wanted
    frame = pd.DataFrame(read.cleaned)
    if "tags" in wanted and "tokens" in wanted:
        frame = _with_iob2(path, frame, wanted, options)
    frame = frame.drop(columns="sentence", errors="ignore")
    if list(wanted) == ["text"] and len(frame) < 10 and file_format(path) == ".txt" and options.split is None:
        frame = cut_long_texts(frame, options.notes)
    frame = frame.assign(**{name: value for name, value in OPTIONAL.items() if name not in frame and GOES_WITH[name] <= set(frame)})
    if options.task is not None:
        frame = frame[[name for name in frame if name in (*task_columns(options.task), "split", "where")]]
    if {"student", "skill", "correct"} <= set(frame) and "step" not in frame:
        frame["step"] = frame.groupby("student").cumcount()  # in the order of the file
    frame = _with_split(path, frame, options)
    if "label" in frame and (frame["split"] == "train").any():
        column = f", column {wanted['label']!r}"
        check_labels(frame.assign(where=frame["where"] + column), name=f"{path}{column}")
    frame = frame.drop(columns="where")
    _report_left_out(frame, read, options)
    return frame


def cut_long_texts(frame: pd.DataFrame, notes: list[str]) -> pd.DataFrame:
    """Return few long texts cut at the ends of sentences, so that parts of them can be held out; `notes` gets a line on it."""
    if frame["text"].str.len().sum() < _LONG_TEXT:
        return frame
    size = max(200, int(frame["text"].str.len().sum()) // 100)
    rows = []
    for row in frame.to_dict("records"):
        piece = ""
        for sentence in re.split(r"(?<=[.!?。！？\n])(?=\s|[^\x00-\x7f])", row["text"]):
            piece += sentence
            if len(piece) >= size:
                rows.append(row | {"text": piece.strip()})
                piece = ""
        if piece.strip():
            rows.append(row | {"text": piece.strip()})
    notes.append(f"{len(frame)} long text(s) were cut at sentence ends into {len(rows)} pieces, so that some can be held out")
    return pd.DataFrame(rows)


@dataclass
class _Rows:
    """What was read of a file: cleaned rows, those left out, repaired cells, and {our name: name in the file}."""

    cleaned: list[dict[str, Any]] = field(default_factory=list)
    skipped: list[dict[str, str]] = field(default_factory=list)
    repaired: list[dict[str, str]] = field(default_factory=list)
    wanted: dict[str, str] = field(default_factory=dict)
    num_bad: int = 0  # of those left out, rows that are broken rather than incomplete
    first_error: ValueError | None = None

    def __len__(self) -> int:
        return len(self.cleaned) + len(self.skipped)

    def leave_out(self, problem: dict[str, str], error: ValueError | None) -> None:
        """Count a row that cannot be used; raise the first error once most of many rows are broken."""
        self.skipped.append(problem)
        self.num_bad += error is not None
        self.first_error = self.first_error or error
        if self.first_error and self.num_bad > max(20, 0.5 * len(self)):
            raise self.first_error


def _read_own(path: Path, options: Options) -> _Rows:
    """Read, clean and count the rows of a file; raise if too many are broken, or none is left."""
    read = _Rows()
    present: set[str] = set()
    has_splits = True
    settings = {"encoding": options.encoding, "header": options.header, "strict": options.strict, "notes": options.notes}
    for row in read_rows(path, task=options.task, columns=options.columns, **settings):
        if not read.wanted and not row.broken:
            names = row.column_names()
            present = {*names, *row}
            read.wanted = _wanted_columns(path, names, options)
            has_splits = _names_splits(row, options)
        _check_keys(row, present, read.wanted, options)
        try:
            clean, problem = clean_row(row, read.wanted)
            error = ValueError(f"{row.where}: {row.problem}") if row.broken else None
            if not problem:
                _resolve_spans(row, clean, read.wanted)
        except ValueError as unclean:
            if options.strict:
                raise
            error, problem = unclean, {"where": row.where, "column": "", "reason": str(unclean).removeprefix(f"{row.where}, ")}
        if problem:
            read.leave_out(problem, error)
            continue
        used = [(name, reason) for name, reason in row.repairs if name in read.wanted.values()]
        read.repaired += [{"where": row.where, "column": name, "reason": reason} for name, reason in used]
        read.cleaned.append(clean | {"split": split_name(row) if has_splits else None, "where": row.where})
    if read.first_error and read.num_bad > _BAD_SHARE * len(read):
        raise read.first_error
    if not read.cleaned:
        first = read.skipped[0]
        raise ValueError(f"{path}: no row is left: all {len(read)} lack a value, e.g. {first['where']}, column {first['column']!r}.")
    return read


def _check_keys(row: Row, present: set[str], wanted: dict[str, str], options: Options) -> None:
    """Raise if a row has a column that the first one lacked: what is read would depend on the order of the rows."""
    known = ALL_COLUMNS if options.task is None else [name for name in task_columns(options.task) if name not in wanted]
    late = next((name for name in known if name in row and name not in present), None)
    if late is not None and not row.broken:
        raise ValueError(f"{row.where}: the first row has no {late!r}, but this one has. Give every row the same keys.")


def _names_splits(row: Row, options: Options) -> bool:
    """Whether a column called split, if there is one, says train, valid or test."""
    try:
        split_name(row)
    except ValueError:
        options.notes.append(f"the column 'split' holds other things ({row['split']!r}) and was not used")
        return False
    return True


def _wanted_columns(path: Path, present: list[str], options: Options) -> dict[str, str]:
    """Return {our name: name in the file}; raise if a named column is missing or none is known."""
    # The names of a table without a header are "1", "2" ...; else what stands there may be the first row.
    ours = list(options.columns) or task_columns(options.task or "classify")
    hint = no_header_hint(present, ours) if options.header and file_format(path) in (".csv", ".tsv", ".tab", ".txt") else ""
    try:
        wanted = find_columns(present, options.columns, task=options.task, where=str(path))
    except ValueError as error:
        raise ValueError(f"{error}{hint}") from error
    if hint and any(theirs.isdigit() and theirs not in present for theirs in map(str, options.columns.values())):
        raise ValueError(f"{path}: columns are named by number.{hint}")
    if not wanted:
        raise ValueError(
            f"{path}: none of its columns ({', '.join(present)}) is called {', '.join(ALL_COLUMNS[:3])} or the like. "
            f'Say which is which, e.g. text="{present[0]}", in the shell --text "{present[0]}".{hint}'
        )
    other = [f"{ours} from {theirs!r}" for ours, theirs in wanted.items() if ours not in options.columns and ours.lower() != theirs.lower()]
    if other:
        options.notes.append(f"read {', '.join(other)}")
    return wanted


def _resolve_spans(row: Row, clean: dict[str, Any], wanted: dict[str, str]) -> None:
    """Turn a text with spans of characters into tokens and tags."""
    if isinstance(clean.get("tags"), list):
        try:
            if not isinstance(row[wanted["tokens"]], str):
                raise ValueError("spans of characters need the text itself, not a list of tokens.")
            clean["tokens"], clean["tags"] = spans_to_tags(row[wanted["tokens"]], clean["tags"])
        except ValueError as error:
            raise ValueError(f"{row.where}, column {wanted['tags']!r}: {error}") from error


def _with_iob2(path: Path, frame: pd.DataFrame, wanted: dict[str, str], options: Options) -> pd.DataFrame:
    """Return sentences with tags in IOB2: tokens of a sentence joined where each row is one, other schemes converted, all checked."""
    single = not frame["tokens"].str.contains(" ", regex=False).any()
    if single and "sentence" in frame:
        named = frame["sentence"].where(frame["sentence"] != "").ffill().fillna("")
        number = (named != named.shift()).cumsum()
        frame = frame.groupby(number, sort=False).agg(
            {name: " ".join if name in ("tokens", "tags") else "first" for name in frame.columns if name != "sentence"}
        )
        frame = frame.reset_index(drop=True)
        options.notes.append(f"each row is a token; those with the same {wanted['sentence']!r} were joined to {len(frame):,} sentences")
    elif single and len(frame) >= 20:
        raise ValueError(
            f"{path}: each row holds one token, but nothing says where a sentence ends. Add a column with the number of the sentence and "
            'name it, e.g. sentence="sentence_id", in the shell --sentence sentence_id; or put an empty line between sentences (CoNLL).'
        )
    tags, note = to_iob2([text.split(" ") for text in frame["tags"]])
    if note:
        frame["tags"] = [" ".join(row) for row in tags]
        options.notes.append(note)
    check_tags(frame.assign(where=frame["where"] + f", column {wanted['tags']!r}"))
    return frame


def _with_split(path: Path, frame: pd.DataFrame, options: Options) -> pd.DataFrame:
    has_split = frame["split"].notna()
    split = options.split
    if has_split.any() and not has_split.all():
        raise ValueError(f"{frame['where'][~has_split].iloc[0]}, column 'split': empty, but other rows have a split. Fill it in.")
    if has_split.all():
        frame = frame if split is None else frame[frame["split"] == split].reset_index(drop=True)
        if frame.empty:
            raise ValueError(f"{path}: no row has the split {split!r}.")
    elif split is not None:
        frame["split"] = split
    else:
        frame["split"] = _deal_own(path, frame, options.seed)
    return frame


def _report_left_out(frame: pd.DataFrame, read: _Rows, options: Options) -> None:
    """Keep what was left out and repaired with the frame, and add a sentence on each."""
    skipped, repaired = read.skipped, read.repaired
    if skipped:
        frame.attrs["skipped"] = skipped
        reasons = Counter(problem["reason"] for problem in skipped)
        why = (
            "for want of a value"
            if set(reasons) == {"empty"}
            else f"({', '.join(f'{n}: {reason[:80]}' for reason, n in reasons.most_common(2))})"
        )
        place = skipped[0]["where"] + (f", column {skipped[0]['column']!r}" if skipped[0]["column"] else "")
        options.notes.append(f"{len(skipped)} of {len(read)} rows were left out {why} (first: {place}). skipped_rows(frame) lists them.")
    if repaired:
        frame.attrs["repaired"] = repaired
        options.notes.append(
            f"{len(repaired)} cells were repaired (first: {repaired[0]['where']}, column {repaired[0]['column']!r}: "
            f"{repaired[0]['reason']}). repaired_rows(frame) lists them."
        )


def load_line_pairs(name: str, options: Options) -> pd.DataFrame:
    """Return source and target from two text files, of which line n of one translates line n of the other."""
    paths = [Path(part) for part in name.split("::")]
    if len(paths) != 2 or options.columns:
        raise ValueError(f"{name}: two text files make pairs of lines, e.g. train.en::train.es, and they have no columns to name.")
    lines = [list(read_lines(check_file(path), options.encoding)) for path in paths]
    for longer, other in (lines, reversed(lines)):
        while len(longer) > len(other) and not longer[-1].strip():
            longer.pop()  # an empty line at the end of one file
    if len(lines[0]) != len(lines[1]):
        raise ValueError(
            f"{paths[0]} has {len(lines[0]):,} lines and {paths[1]} {len(lines[1]):,}, but line n of one must translate line n of the "
            "other. Find where they part: a line is missing, or a text holds a line end."
        )
    frame = pd.DataFrame({"source": lines[0], "target": lines[1]}).map(str.strip)
    empty = (frame == "").any(axis=1).to_numpy()
    if empty.all():
        raise ValueError(f"{name}: no pair is left: in each of the {len(frame)} lines one side is empty.")
    skipped = [
        {"where": f"{paths[int(bool(source))]}, line {row + 1}", "column": "target" if source else "source", "reason": "empty"}
        for row, source in enumerate(frame["source"])
        if empty[row]
    ]
    # The usual names, corpus.en and corpus.es, say the language.
    language = paths[1].suffix[1:] if re.fullmatch(r"\.[a-z]{2}", paths[1].suffix) else ""
    frame = frame[~empty].reset_index(drop=True).assign(target_language=language)
    frame["split"] = options.split if options.split is not None else _deal_own(paths[0], frame, options.seed)
    if skipped:
        frame.attrs["skipped"] = skipped
        options.notes.append(
            f"{len(skipped)} of {len(empty)} pairs were left out for one side is empty (first: {skipped[0]['where']}). "
            "skipped_rows(frame) lists them."
        )
    return frame


def _deal_own(path: Path, frame: pd.DataFrame, seed: int) -> np.ndarray:
    if len(frame) < 10:
        raise ValueError(f"{path}: {len(frame)} rows are too few to split. Give ten at least, or a column 'split' with train, valid, test.")
    key = next(name for name in ("text", "tokens", "source", "context", *NAMING, *frame.columns) if name in frame)
    keys = frame[key].astype(str) + (" " + frame["question"] if key == "context" and not frame["context"].any() else "")
    # Dealt label by label, a class of four rows or fewer stays whole in train.
    splits = make_splits(keys, labels=frame.get("label"), exact=key in NAMING, seed=seed)
    num_labels = frame["label"].nunique() if "label" in frame else 0
    if num_labels > 1 and not (splits != "train").any():
        raise ValueError(
            f"{path}: {len(frame)} rows have {num_labels} different labels, none of them on five texts (those that differ in digits or "
            "signs alone count as one), so none can be held out to measure a model. Is it the column of the labels? Else join classes, or "
            "name other files for valid and test."
        )
    return splits
