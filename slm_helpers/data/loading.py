"""One call for every data set: bundled corpora, public sets and a person's own file, as a DataFrame with a `split` column.

Also what a language model needs before it sees a number: near copies, splits without leaks, and windows of token ids.
"""

import re
import warnings
from pathlib import Path
from typing import Any

from slm_helpers._checks import check_choice
from slm_helpers.data.bundled import BUNDLED, load_bundled
from slm_helpers.data.files import FORMATS, read_rows, read_text
from slm_helpers.data.public import PUBLIC, load_public
from slm_helpers.data.schema import ALL_COLUMNS, GOES_WITH, OPTIONAL, SPLITS, check_labels, check_tags, clean_row, split_name
from slm_helpers.data.simulated import simulate_tone_words
from slm_helpers.data.splits import make_splits

import numpy as np
import pandas as pd


def load_dataset(
    name_or_path: str | Path,
    *,
    split: str | None = None,
    text: str | None = None,
    label: str | None = None,
    tokens: str | None = None,
    tags: str | None = None,
    intent: str | None = None,
    sound: str | None = None,
    source: str | None = None,
    target: str | None = None,
    target_language: str | None = None,
    tone: str | None = None,
    context: str | None = None,
    question: str | None = None,
    answer: str | None = None,
    answer_start: str | None = None,
    turns: str | None = None,
    student: str | None = None,
    step: str | None = None,
    skill: str | None = None,
    correct: str | None = None,
    encoding: str = "utf-8",
    seed: int = 42,
) -> pd.DataFrame:
    """Load a bundled corpus ("stories"), a public set ("sst2") or your own file ("my.csv").

    Several sets of one task may be joined with a plus ("story_books+childrens_books"). For your own file, name its columns
    where they differ from ours: `load_dataset("my.csv", text="comment", label="stars")`. A column `split` in the file is
    kept (dev, val and validation become valid); without one, rows are dealt 80/10/10 at random, equal texts on one side.
    Rows without text or label are left out, counted in a warning and listed by `skipped_rows`. A file of questions and answers
    needs no context (facts, asked without a passage) and no answer_start (the first place of the answer in its context counts).
    Sentences and their translations may also stand in two text files, a line each: `load_dataset("train.en::train.es")`; an ending of
    two letters names the target language.

    Args:
        name_or_path: Name of a set, or path of a .csv, .tsv, .jsonl, .txt, .parquet or CoNLL file.
        split: Return only this split. For a file without a column `split`: count all its rows to this split.
        text, label, tokens, tags, intent, sound, source, target, target_language, tone, context, question, answer, answer_start, turns,
            student, step, skill, correct: Names that your file uses for these columns.
        encoding: Of your own file, e.g. "cp1252".
        seed: Of the random split of your own file.

    Returns:
        DataFrame with the task's columns (strings, but for whole numbers and lists of turns) and `split`.

    Raises:
        FileNotFoundError: If no such file or set is at hand.
        ValueError: If the data cannot be used as they are; the message names file, row and column and what to do.
    """
    columns = {
        "text": text, "label": label, "tokens": tokens, "tags": tags, "intent": intent, "sound": sound,
        "source": source, "target": target, "target_language": target_language, "tone": tone,
        "context": context, "question": question, "answer": answer, "answer_start": answer_start, "turns": turns,
        "student": student, "step": step, "skill": skill, "correct": correct,
    }  # fmt: skip
    columns = {ours: theirs for ours, theirs in columns.items() if theirs is not None}
    if split is not None:
        check_choice(SPLITS, split=split)
    name = str(name_or_path)
    if "::" in name:
        return _load_line_pairs(name, columns, split, encoding, seed)
    if _looks_like_a_file(name):
        return _load_own(Path(name), columns, split, encoding, seed)
    if columns:
        raise ValueError(f"Column names go with your own file, but {name!r} is the name of a set. Leave out {', '.join(columns)}=.")
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


def _looks_like_a_file(name: str) -> bool:
    return "/" in name or "\\" in name or name.lower().removesuffix(".gz").endswith(FORMATS)


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


def _load_own(path: Path, columns: dict[str, str], split: str | None, encoding: str, seed: int) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    skipped: list[dict[str, str]] = []
    wanted: dict[str, str] | None = None
    present: set[str] = set()
    for row in read_rows(path, encoding=encoding):
        if wanted is None:
            present = set(row)
            wanted = _wanted_columns(path, columns, list(row))
        late = [name for name in ALL_COLUMNS if name in row and name not in present]
        if late:
            raise ValueError(f"{row.where}: the first row has no {late[0]!r}, but this one has. Give every row the same keys.")
        clean, problem = clean_row(row, wanted)
        if problem:
            skipped.append(problem)
        else:
            clean |= {"split": split_name(row), "where": row.where}
            rows.append(clean)
    if not rows:
        raise ValueError(
            f"{path}: no row is left: all {len(skipped)} lack a value, e.g. {skipped[0]['where']}, column {skipped[0]['column']!r}."
        )
    frame = pd.DataFrame(rows)
    frame = frame.assign(**{name: value for name, value in OPTIONAL.items() if name not in frame and GOES_WITH[name] <= set(frame)})
    if {"student", "skill", "correct"} <= set(frame) and "step" not in frame:
        frame["step"] = frame.groupby("student").cumcount()  # in the order of the file
    if "tags" in frame:
        check_tags(frame.assign(where=frame["where"] + f", column {wanted['tags']!r}"))
    has_split = frame["split"].notna()
    if has_split.any() and not has_split.all():
        raise ValueError(f"{frame['where'][~has_split].iloc[0]}, column 'split': empty, but other rows have a split. Fill it in.")
    if has_split.all():
        frame = frame if split is None else frame[frame["split"] == split].reset_index(drop=True)
        if frame.empty:
            raise ValueError(f"{path}: no row has the split {split!r}.")
    elif split is not None:
        frame["split"] = split
    else:
        frame["split"] = _deal_own(path, frame, seed)
    if "label" in frame and (frame["split"] == "train").any():
        column = f", column {wanted['label']!r}"
        check_labels(frame.assign(where=frame["where"] + column), name=f"{path}{column}")
    frame = frame.drop(columns="where")
    if skipped:
        frame.attrs["skipped"] = skipped
        warnings.warn(
            f"{path}: {len(skipped)} of {len(skipped) + len(rows)} rows were left out for want of a value "
            f"(first: {skipped[0]['where']}, column {skipped[0]['column']!r}). skipped_rows(frame) lists them.",
            stacklevel=3,
        )
    return frame


def _load_line_pairs(name: str, columns: dict[str, str], split: str | None, encoding: str, seed: int) -> pd.DataFrame:
    """Return source and target from two text files, of which line n of one translates line n of the other."""
    paths = [Path(part) for part in name.split("::")]
    if len(paths) != 2 or columns:
        raise ValueError(f"{name}: two text files make pairs of lines, e.g. train.en::train.es, and they have no columns to name.")
    lines = [read_text(path, encoding=encoding).removesuffix("\n").split("\n") for path in paths]
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
    frame["split"] = split if split is not None else _deal_own(paths[0], frame, seed)
    if skipped:
        frame.attrs["skipped"] = skipped
        warnings.warn(
            f"{name}: {len(skipped)} of {len(empty)} pairs were left out for one side is empty (first: {skipped[0]['where']}). "
            "skipped_rows(frame) lists them.",
            stacklevel=3,
        )
    return frame


def _wanted_columns(path: Path, columns: dict[str, str], present: list[str]) -> dict[str, str]:
    """Return {our name: name in the file}; raise if a named column is missing or none is known."""
    for ours, theirs in columns.items():
        if theirs not in present:
            raise ValueError(f"{path}: there is no column {theirs!r} (asked for as {ours}). It has: {', '.join(present)}.")
    wanted = {name: name for name in ALL_COLUMNS if name in present and name not in columns.values()} | columns
    if not wanted:
        raise ValueError(
            f"{path}: none of its columns ({', '.join(present)}) is called {', '.join(ALL_COLUMNS[:3])} or the like. "
            f'Say which is which, e.g. text="{present[0]}", in the shell --text "{present[0]}".'
        )
    return wanted


def _deal_own(path: Path, frame: pd.DataFrame, seed: int) -> np.ndarray:
    if len(frame) < 10:
        raise ValueError(f"{path}: {len(frame)} rows are too few to split. Give ten at least, or a column 'split' with train, valid, test.")
    key = next(name for name in ("text", "tokens", "source", "context", "student", *frame.columns) if name in frame)
    keys = frame[key].astype(str) + (" " + frame["question"] if key == "context" and not frame["context"].any() else "")
    # Dealt label by label, a class of four rows or fewer stays whole in train.
    return make_splits(keys, labels=frame.get("label"), exact=key == "student", seed=seed)
