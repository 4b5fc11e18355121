"""The columns of each task, and the checks and conversions of their cells."""

import json
import re
from typing import Any

import numpy as np
import pandas as pd

SPLITS = ("train", "valid", "test")


_SPLIT_ALIASES = {"dev": "valid", "val": "valid", "validation": "valid", "eval": "valid", "training": "train"}


TASK_COLUMNS = {
    "language_model": ("text",),
    "classify": ("text", "label"),
    "tag": ("tokens", "tags"),
    "command": ("tokens", "tags", "intent"),
    "listen": ("sound", "label"),
    "translate": ("source", "target"),
    "answer": ("context", "question", "answer", "answer_start"),
    "dialogue": ("turns",),
    "trace": ("student", "step", "skill", "correct"),
}


ALL_COLUMNS = (*dict.fromkeys(name for names in TASK_COLUMNS.values() for name in names), "target_language", "tone")


_MAY_BE_EMPTY = ("answer", "context", "intent", "tone")  # other tasks may have rows without; the task that needs one says so


_WHOLE_NUMBERS = ("answer_start", "step", "correct")


# What stands for a column that a file lacks, if it has those that the column goes with.
OPTIONAL = {"context": "", "answer_start": -1, "target_language": "", "tone": ""}


GOES_WITH = {
    "context": {"question", "answer"},
    "answer_start": {"question", "answer"},
    "target_language": {"source", "target"},
    "tone": {"source", "target"},
}


def check_labels(frame: pd.DataFrame, *, name: str = "") -> None:
    """Raise ValueError unless train has two labels at least and the other splits have no label that train lacks."""
    train = set(frame.loc[frame["split"] == "train", "label"])
    if len(train) < 2:
        raise ValueError(
            f"{name or 'the data'}: the labels have {len(train)} class(es) in train ({', '.join(map(repr, sorted(train)))}), "
            "but a classifier needs two at least. Add rows of another class."
        )
    for split in ("valid", "test"):
        unseen = np.flatnonzero((frame["split"] == split) & ~frame["label"].isin(train))
        if len(unseen):
            number = int((frame["split"] == split).iloc[: unseen[0] + 1].sum())
            place = _place(frame, name, unseen[0]) if name or "where" in frame else f"{split}, row {number}"
            raise ValueError(
                f"{place}: label {frame['label'].iloc[unseen[0]]!r} stands in {split} but never in train. "
                "Correct its spelling, add training rows with it, or remove the rows."
            )


def check_tags(frame: pd.DataFrame, *, name: str = "the data") -> None:
    """Raise ValueError for the first row whose tags are not well-formed IOB2 or do not match its tokens in number."""
    for row, (tokens, tags) in enumerate(zip(frame["tokens"], frame["tags"], strict=True)):
        tag_list = tags.split(" ")
        if len(tokens.split(" ")) != len(tag_list):
            raise ValueError(
                f"{_place(frame, name, row)}: {len(tokens.split(' '))} tokens but {len(tag_list)} tags. Each token needs one tag."
            )
        before = "O"
        for place, tag in enumerate(tag_list, 1):
            if not re.fullmatch(r"O|[BI]-\S+", tag):
                raise ValueError(f"{_place(frame, name, row)}, token {place}: {tag!r} is not an IOB2 tag such as O, B-LOC or I-LOC.")
            if tag[0] == "I" and before[2:] != tag[2:]:
                raise ValueError(
                    f"{_place(frame, name, row)}, token {place}: {tag} follows {before}, but I-{tag[2:]} may only continue "
                    f"B-{tag[2:]} or I-{tag[2:]}. Write B-{tag[2:]} where an entity begins."
                )
            before = tag


def _place(frame: pd.DataFrame, name: str, row: int) -> str:
    """Say where a row stands: its line in the file while `_load_own` still knows it, else its number."""
    return frame["where"].iloc[row] if "where" in frame else f"{name}, row {row + 1}"


def clean_row(
    row: dict[str, Any], wanted: dict[str, str], *, may_be_empty: tuple[str, ...] = ()
) -> tuple[dict[str, Any], dict[str, str] | None]:
    """Return the wanted cells of one row of `read_rows`, and why the row cannot be used (None if it can).

    Args:
        row: A row as `read_rows` yields it.
        wanted: {our name: name in the file}.
        may_be_empty: Our names of further columns whose cells may be empty ("" then).

    Raises:
        ValueError: If a cell is of a kind that cannot be meant (a list as text, "maybe" as a whole number).
    """
    clean: dict[str, Any] = {}
    where = getattr(row, "where", "row ?")
    for ours, theirs in wanted.items():
        value = row.get(theirs)
        if value is None or value != value or (isinstance(value, str) and not value.strip()):  # NaN alone differs from itself
            if ours in may_be_empty:
                clean[ours] = ""
                continue
            if ours not in _MAY_BE_EMPTY or value is None:
                return {}, {"where": where, "column": theirs, "reason": "empty"}
            value = ""
        if ours in _WHOLE_NUMBERS:
            clean[ours] = _whole_number(value, where, theirs)
            if ours == "correct" and clean[ours] not in (0, 1):
                raise ValueError(f"{where}, column {theirs!r}: {value!r}, but it must be 1 for a right answer or 0 for a wrong one.")
        elif ours == "turns":
            clean[ours] = _turns(value, where, theirs)
        elif ours in ("label", "skill", "student") and isinstance(value, int | float):
            clean[ours] = str(int(value)) if float(value).is_integer() else str(value)  # 1 and 1.0 are the same class
        elif not isinstance(value, str):
            raise ValueError(f"{where}, column {theirs!r}: {type(value).__name__} {value!r:.40}, but text is needed. Put it in quotes.")
        else:
            clean[ours] = value.strip() if ours != "text" else value
    return clean, None


def _whole_number(value: Any, where: str, column: str) -> int:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if not number.is_integer():
        raise ValueError(f"{where}, column {column!r}: {value!r} is not a whole number.")
    return int(number)


def _turns(value: Any, where: str, column: str) -> list:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise ValueError(f'{where}, column {column!r}: turns must be a JSON list such as ["Hello", "Hi"] ({error}).') from error
    if not isinstance(value, list) or not value:
        raise ValueError(f"{where}, column {column!r}: turns must be a JSON list with one turn at least.")
    return value


def split_name(row: dict[str, Any]) -> str | None:
    """Return the split that a row's own column `split` names, or None."""
    value = row.get("split")
    if value is None:
        return None
    name = _SPLIT_ALIASES.get(str(value).strip().lower(), str(value).strip().lower())
    if name not in SPLITS:
        raise ValueError(f"{getattr(row, 'where', '')}, column 'split': {value!r}, but it must be train, valid or test.")
    return name
