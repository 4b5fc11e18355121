"""One call for every data set: bundled corpora, public sets and a person's own file, as a DataFrame with a `split` column."""

import re
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from slm_helpers._checks import check_choice
from slm_helpers.data.bundled import BUNDLED, load_bundled
from slm_helpers.data.decoding import check_file, read_lines
from slm_helpers.data.files import FORMATS, SPREADSHEETS, file_format, read_rows
from slm_helpers.data.public import PUBLIC, load_public
from slm_helpers.data.rows import Row
from slm_helpers.data.schema import (
    ALL_COLUMNS,
    GOES_WITH,
    OPTIONAL,
    SPLITS,
    check_labels,
    check_tags,
    clean_row,
    find_columns,
    split_name,
    task_columns,
)
from slm_helpers.data.simulated import simulate_tone_words
from slm_helpers.data.splits import make_splits
from slm_helpers.data.tables import no_header_hint
from slm_helpers.data.tag_schemes import spans_to_tags, to_iob2

import numpy as np
import pandas as pd

_BAD_SHARE = 0.05  # of the rows of a file that may be broken: more mean that the file was not understood
_LONG_TEXT = 4000  # characters; a text file of a few longer texts is cut into pieces, which can be dealt


@dataclass
class _Options:
    """What the caller of `load_dataset` asked for, and sentences that it gets back."""

    columns: dict[str, str]
    task: str | None
    split: str | None
    encoding: str
    header: bool
    strict: bool
    seed: int
    notes: list[str] = field(default_factory=list)


def load_dataset(
    name_or_path: str | Path,
    *,
    task: str | None = None,
    split: str | None = None,
    encoding: str = "utf-8",
    header: bool = True,
    strict: bool = False,
    seed: int = 42,
    **columns: str | None,
) -> pd.DataFrame:
    """Load a bundled corpus ("stories"), a public set ("sst2") or your own file ("my.csv").

    Several sets of one task may be joined with a plus ("story_books+childrens_books"). For your own file, name its columns
    where they differ from ours: `load_dataset("my.csv", text="comment", label="stars")`. A column `split` in the file is
    kept (dev, val and validation become valid); without one, rows are dealt 80/10/10 at random, equal texts on one side.
    Rows without text or label are left out, counted in a warning and listed by `skipped_rows`; so are broken rows, as long as they
    are few. A file of questions and answers needs no context (facts, asked without a passage) and no answer_start (the first place
    of the answer in its context counts). Sentences and their translations may also stand in two text files, a line each:
    `load_dataset("train.en::train.es")`; an ending of two letters names the target language.

    Args:
        name_or_path: Name of a set, or path of a .csv, .tsv, .json, .jsonl, .txt, .parquet or CoNLL file, also as .gz or .zip.
        task: Read only the columns of this task ("classify", "tag", "answer" ...), also under other usual names.
        split: Return only this split. For a file without a column `split`: count all its rows to this split.
        encoding: Of your own file, e.g. "cp1252"; a byte order mark overrules it.
        header: Whether the first line of your table names the columns. If not, they are called "1", "2" and so on.
        strict: Refuse a file that needs a repair or has a broken row.
        seed: Of the random split of your own file.
        **columns: Names (or numbers, or paths such as "data.text") that your file uses for our columns: text, label, tokens, tags,
            sentence (of a token, where each row is one), intent, sound, source, target, target_language, tone, context, question,
            answer, answer_start, turns, student, step, skill, correct.

    Returns:
        DataFrame with the task's columns (strings, but for whole numbers and lists of turns) and `split`.

    Raises:
        FileNotFoundError: If no such file or set is at hand.
        ValueError: If the data cannot be used as they are; the message names file, row and column and what to do.
        TypeError: If a keyword is neither an option nor one of our columns.
    """
    named = {ours: theirs for ours, theirs in columns.items() if theirs is not None}
    unknown = [ours for ours in columns if ours not in ALL_COLUMNS]
    if unknown:
        raise TypeError(f"load_dataset has no option and knows no column {unknown[0]!r}. Columns are {', '.join(ALL_COLUMNS)}.")
    if split is not None:
        check_choice(SPLITS, split=split)
    if task is not None:
        task_columns(task)
    name = str(name_or_path)
    if "::" in name or _looks_like_a_file(name):
        options = _Options(named, task, split, encoding, header, strict, seed)
        frame = _load_line_pairs(name, options) if "::" in name else _load_own(Path(name), options)
        for note in options.notes:
            warnings.warn(f"{name}: {note}", stacklevel=2)
        return frame
    if named:
        raise ValueError(f"Column names go with your own file, but {name!r} is the name of a set. Leave out {', '.join(named)}=.")
    parts = [_load_named(part.strip()) for part in name.split("+")]
    frame = parts[0] if len(parts) == 1 else pd.concat(parts, ignore_index=True)
    if split is not None:
        frame = frame[frame["split"] == split].reset_index(drop=True)
        if frame.empty:
            raise ValueError(f"{name} has no split {split!r}.")
    return frame


def list_datasets() -> pd.DataFrame:
    """Return one row a known set: name, task, source (bundled or public) and what it holds."""
    rows = [(name, c.task, "bundled", c.about) for name, c in BUNDLED.items()]
    rows.append(("tone_words", "listen", "bundled", "ten made-up words by synthetic voices, made when asked for (no speech)"))
    rows += [(name, p.task, "public", p.about) for name, p in PUBLIC.items()]
    return pd.DataFrame(rows, columns=["name", "task", "source", "about"])


def skipped_rows(frame: pd.DataFrame) -> pd.DataFrame:
    """Return what `load_dataset` left out of `frame`: columns where, column, reason; no row if nothing was left out."""
    return pd.DataFrame(frame.attrs.get("skipped", []), columns=["where", "column", "reason"])


def repaired_rows(frame: pd.DataFrame) -> pd.DataFrame:
    """Return which cells `load_dataset` changed to read them: columns where, column, reason; no row if there is none."""
    return pd.DataFrame(frame.attrs.get("repaired", []), columns=["where", "column", "reason"])


def _looks_like_a_file(name: str) -> bool:
    return "/" in name or "\\" in name or name.lower().removesuffix(".gz").endswith((*FORMATS, ".zip", *SPREADSHEETS))


def _load_named(name: str) -> pd.DataFrame:
    if name in BUNDLED:
        return load_bundled(name)
    if name == "tone_words":
        return simulate_tone_words()
    if name in PUBLIC:
        return load_public(name)
    raise ValueError(
        f"{name!r} is neither a set nor a file. Bundled: {', '.join([*BUNDLED, 'tone_words'])}. Public: {', '.join(PUBLIC)}. "
        f"Your own file needs one of the endings {', '.join(FORMATS)}."
    )


def _load_own(path: Path, options: _Options) -> pd.DataFrame:
    rows, skipped, repaired, wanted = _read_own(path, options)
    frame = pd.DataFrame(rows)
    if "tags" in wanted and "tokens" in wanted:
        frame = _with_iob2(path, frame, wanted, options)
    frame = frame.drop(columns="sentence", errors="ignore")
    if list(wanted) == ["text"] and len(frame) < 10 and file_format(path) == ".txt" and options.split is None:
        frame = _cut_long_texts(frame, options)
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
    _report_left_out(frame, skipped, repaired, num_rows=len(rows) + len(skipped), options=options)
    return frame


def _read_own(path: Path, options: _Options) -> tuple[list[dict[str, Any]], list[dict], list[dict], dict[str, str]]:
    """Return the cleaned rows, those left out, the repaired cells, and {our name: name in the file}."""
    rows: list[dict[str, Any]] = []
    skipped: list[dict[str, str]] = []
    repaired: list[dict[str, str]] = []
    wanted: dict[str, str] | None = None
    dealt = True
    present: set[str] = set()
    first_error: ValueError | None = None
    num_bad = 0
    read = {"encoding": options.encoding, "header": options.header, "strict": options.strict, "notes": options.notes}
    for row in read_rows(path, task=options.task, columns=options.columns, **read):
        if wanted is None and not row.broken:
            names = row.column_names()
            present = {*names, *row}
            wanted = _wanted_columns(path, names, options)
            dealt = _names_splits(row, options)
        late = [
            name for name in (ALL_COLUMNS if options.task is None else task_columns(options.task)) if name in row and name not in present
        ]
        if late and not row.broken and not (options.task and late[0] in wanted):
            raise ValueError(f"{row.where}: the first row has no {late[0]!r}, but this one has. Give every row the same keys.")
        try:
            clean, problem = clean_row(row, wanted or {})
            if not problem:
                _resolve_spans(row, clean, wanted)
        except ValueError as error:
            if options.strict:
                raise
            first_error = first_error or error
            num_bad += 1
            problem = {"where": row.where, "column": "", "reason": str(error).removeprefix(f"{row.where}, ")}
        if problem:
            first_error = first_error or (ValueError(f"{row.where}: {problem['reason']}") if row.broken else None)
            num_bad += row.broken
            skipped.append(problem)
        else:
            repaired += [{"where": row.where, "column": name, "reason": reason} for name, reason in row.repairs if name in wanted.values()]
            rows.append(clean | {"split": split_name(row) if dealt else None, "where": row.where})
        if first_error and num_bad > max(20, 0.5 * (len(rows) + len(skipped))):
            raise first_error
    if first_error and num_bad > _BAD_SHARE * (len(rows) + len(skipped)):
        raise first_error
    if not rows:
        raise ValueError(
            f"{path}: no row is left: all {len(skipped)} lack a value, e.g. {skipped[0]['where']}, column {skipped[0]['column']!r}."
        )
    return rows, skipped, repaired, wanted


def _names_splits(row: Row, options: _Options) -> bool:
    """Whether a column called split, if there is one, says train, valid or test."""
    try:
        split_name(row)
    except ValueError:
        options.notes.append(f"the column 'split' holds other things ({row['split']!r}) and was not used")
        return False
    return True


def _wanted_columns(path: Path, present: list[str], options: _Options) -> dict[str, str]:
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


def _with_iob2(path: Path, frame: pd.DataFrame, wanted: dict[str, str], options: _Options) -> pd.DataFrame:
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


def _cut_long_texts(frame: pd.DataFrame, options: _Options) -> pd.DataFrame:
    """Cut few long texts at the ends of sentences, so that parts of them can be held out."""
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
    options.notes.append(f"{len(frame)} long text(s) were cut at sentence ends into {len(rows)} pieces, so that some can be held out")
    return pd.DataFrame(rows)


def _with_split(path: Path, frame: pd.DataFrame, options: _Options) -> pd.DataFrame:
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


def _report_left_out(frame: pd.DataFrame, skipped: list[dict], repaired: list[dict], *, num_rows: int, options: _Options) -> None:
    """Keep what was left out and repaired with the frame, and add a sentence on each."""
    if skipped:
        frame.attrs["skipped"] = skipped
        reasons = Counter(problem["reason"] for problem in skipped)
        why = (
            "for want of a value"
            if set(reasons) == {"empty"}
            else f"({', '.join(f'{n}: {reason[:80]}' for reason, n in reasons.most_common(2))})"
        )
        place = skipped[0]["where"] + (f", column {skipped[0]['column']!r}" if skipped[0]["column"] else "")
        options.notes.append(f"{len(skipped)} of {num_rows} rows were left out {why} (first: {place}). skipped_rows(frame) lists them.")
    if repaired:
        frame.attrs["repaired"] = repaired
        options.notes.append(
            f"{len(repaired)} cells were repaired (first: {repaired[0]['where']}, column {repaired[0]['column']!r}: "
            f"{repaired[0]['reason']}). repaired_rows(frame) lists them."
        )


def _load_line_pairs(name: str, options: _Options) -> pd.DataFrame:
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
    key = next(name for name in ("text", "tokens", "source", "context", "student", *frame.columns) if name in frame)
    keys = frame[key].astype(str) + (" " + frame["question"] if key == "context" and not frame["context"].any() else "")
    # Dealt label by label, a class of four rows or fewer stays whole in train.
    splits = make_splits(keys, labels=frame.get("label"), exact=key == "student", seed=seed)
    num_labels = frame["label"].nunique() if "label" in frame else 0
    if num_labels > 1 and not (splits != "train").any():
        raise ValueError(
            f"{path}: {len(frame)} rows have {num_labels} different labels, none of them on five texts, so none can be held "
            "out to measure a model. Is it the column of the labels? Else join classes, or name other files for valid and test."
        )
    return splits
