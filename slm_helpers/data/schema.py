"""The columns of each task in one table, how they are found in a file, and the checks and conversions of their cells.

A new task adds its line to TASK_COLUMNS, and its new columns to COLUMNS; everything else reads these two.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from slm_helpers._checks import check_choice
from slm_helpers.data import cells
from slm_helpers.data.rows import Row

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

SPLITS = ("train", "valid", "test")
_SPLIT_ALIASES = {"dev": "valid", "val": "valid", "validation": "valid", "eval": "valid", "training": "train"}


@dataclass(frozen=True)
class Column:
    """One column of a task: how a cell becomes a value, and what may stand in its place.

    Attributes:
        clean: From a cell and its row; raises ValueError for what cannot be meant.
        aliases: Other names that files give it, looked for (in any case) if a task needs the column and nobody named it.
        may_be_empty: Whether a row may lack it; the task that needs one says so.
        default: What stands for the whole column in a file that lacks it but has those of `goes_with`; None if there is no such thing.
    """

    clean: Callable[[Any, Row | dict], Any]
    aliases: tuple[str, ...] = ()
    may_be_empty: bool = False
    default: Any = None
    goes_with: frozenset[str] = frozenset()


NAMING = ("student", "sound")  # columns whose cells are names, which a digit tells apart; texts that differ in it alone are copies
_PAIR, _QUESTION = frozenset({"source", "target"}), frozenset({"question", "answer"})
COLUMNS: dict[str, Column] = {
    "text": Column(cells.text_cell, ("sentence",)),
    "label": Column(cells.name_cell, ("labels", "class", "category")),
    "labels": Column(cells.labels_cell, ("label", "tags", "categories", "genres", "emotions", "topics")),
    "tokens": Column(cells.words_cell, ("words", "word", "token", "text", "sentence")),
    "tags": Column(cells.words_cell, ("tag", "ner_tags", "ner_tag", "ner", "labels", "label", "entities", "spans")),
    "intent": Column(cells.name_cell, may_be_empty=True),
    "sound": Column(cells.stripped_cell),
    "source": Column(cells.stripped_cell),
    "target": Column(cells.stripped_cell),
    "context": Column(cells.stripped_cell, may_be_empty=True, default="", goes_with=_QUESTION),
    "question": Column(cells.stripped_cell),
    "answer": Column(cells.answer_cell, ("answers",), may_be_empty=True),
    "answer_start": Column(cells.answer_start_cell, ("answers",), default=-1, goes_with=_QUESTION),
    "turns": Column(cells.turns_cell),
    "student": Column(cells.name_cell),
    "step": Column(cells.step_cell),
    "skill": Column(cells.name_cell),
    "correct": Column(cells.correct_cell),
    "good": Column(cells.stripped_cell),
    "bad": Column(cells.stripped_cell),
    "target_language": Column(cells.stripped_cell, default="", goes_with=_PAIR),
    "tone": Column(cells.stripped_cell, may_be_empty=True, default="", goes_with=_PAIR),
    "sentence": Column(cells.name_cell, ("sentence #", "sentence_id", "sentence_number", "sent_id", "sentence id"), may_be_empty=True),
}
TASK_COLUMNS = {
    "language_model": ("text",),
    "classify": ("text", "label"),
    "multilabel": ("text", "labels"),
    "tag": ("tokens", "tags"),
    "command": ("tokens", "tags", "intent"),
    "listen": ("sound", "label"),
    "translate": ("source", "target"),
    "write": ("source", "target"),
    "answer": ("context", "question", "answer", "answer_start"),
    "ask": ("context", "question", "answer", "answer_start"),
    "dialogue": ("turns",),
    "trace": ("student", "step", "skill", "correct"),
    "minimal_pairs": ("good", "bad"),
}
# What a task reads if it is there. `sentence` says to which sentence the token of a row belongs.
_READS_TOO = {"tag": ("sentence",), "command": ("sentence",), "translate": ("target_language",), "write": ("tone",)}
_TASK_ALIASES = {"lm": "language_model"}
_CAN_BE_MADE = {"step", "answer"}  # attempts in the order of the file; questions asked of whole contexts

ALL_COLUMNS = tuple(COLUMNS)
# What stands for a column that a file lacks, if it has those that the column goes with.
OPTIONAL = {name: column.default for name, column in COLUMNS.items() if column.default is not None}
GOES_WITH = {name: column.goes_with for name, column in COLUMNS.items() if column.default is not None}


def task_columns(task: str) -> tuple[str, ...]:
    """Return the names of the columns that a task reads, first those it needs."""
    task = _TASK_ALIASES.get(task, task)
    check_choice((*TASK_COLUMNS, *_TASK_ALIASES), task=task)
    return (*TASK_COLUMNS[task], *_READS_TOO.get(task, ()))


def find_columns(
    present: Sequence[str],
    named: Mapping[str, str],
    *,
    task: str | None = None,
    only: Sequence[str] | None = None,
    where: str = "the file",
) -> dict[str, str]:
    """Return {our name: name in the file} for the columns to read.

    Args:
        present: The names in the file.
        named: {our name: name in the file, or number from 1} as the user gave them.
        task: Read the columns of this task only, also under other usual names; without it, those of all tasks that are complete.
        only: Look for these columns of the task alone, as for rows to predict; those that are missing are left out.
        where: The file, for messages.

    Raises:
        ValueError: If a named column is missing, or none is known, or the task lacks one.
    """
    found = {ours: _resolve(theirs, ours, present, where) for ours, theirs in named.items()}
    if task is None:
        free = [name for name in ALL_COLUMNS if name in present and name not in found.values() and name not in found]
        have = {*free, *found}
        complete = {
            name
            for columns in TASK_COLUMNS.values()
            if all(each in have or each in OPTIONAL or each in _CAN_BE_MADE for each in columns) and have & set(columns)
            for name in columns
        }
        extra = {name for name in free if name in ("target_language", "tone", "sentence", "intent")}
        return found | {name: name for name in free if not complete or name in complete or name in extra}
    for name in task_columns(task) if only is None else [name for name in task_columns(task) if name in only]:
        match = name if name in present else next(iter(_matches((name, *COLUMNS[name].aliases), present)), None)
        if name not in found and match is not None and (match not in found.values() or match == "answers"):
            found[name] = match
    if only is not None:
        return found
    missing = [name for name in task_columns(task)[: len(TASK_COLUMNS[_TASK_ALIASES.get(task, task)])] if name not in found]
    missing = [name for name in missing if name not in OPTIONAL and name not in _CAN_BE_MADE and not COLUMNS[name].may_be_empty]
    if missing:
        example = next((name for name in present if name not in found.values()), present[0] if present else "NAME")
        raise ValueError(
            f"{where}: the task {task} needs the columns {', '.join(TASK_COLUMNS[_TASK_ALIASES.get(task, task)])}, but {missing[0]} is "
            f'missing. It has: {", ".join(present)}. Say which column holds it, e.g. {missing[0]}="{example}", in the shell '
            f'--{missing[0].replace("_", "-")} "{example}".'
        )
    return found


def _resolve(theirs: str, ours: str, present: Sequence[str], where: str) -> str:
    """Return the name in the file of a column that the user named by name (in any case and spacing) or number."""
    theirs = str(theirs)
    if theirs in present:
        return theirs
    near = list(_matches([theirs], present))
    if len(near) == 1:
        return near[0]
    if theirs.isdigit() and 1 <= int(theirs) <= len(present):
        return present[int(theirs) - 1]
    raise ValueError(f"{where}: there is no column {theirs!r} (asked for as {ours}). It has: {', '.join(present)}.")


def _matches(names: Sequence[str], present: Sequence[str]):
    """Yield the names in the file that equal one of `names` but for case and spaces."""
    spelled: dict[str, list[str]] = {}
    for name in present:
        spelled.setdefault(" ".join(name.lower().split()), []).append(name)
    for name in names:
        yield from spelled.get(" ".join(name.lower().split()), [])


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
    where, problem = getattr(row, "where", "row ?"), getattr(row, "problem", "")
    if getattr(row, "broken", False):
        return {}, {"where": where, "column": "", "reason": problem}
    for ours, theirs in wanted.items():
        value = row.get(theirs)
        # NaN alone differs from itself.
        if value is None or value != value or (isinstance(value, str) and not value.strip(" \t\n\r")) or (value == [] and ours == "tokens"):
            if ours in may_be_empty:
                clean[ours] = ""
                continue
            # A missing answer is not the empty answer of a question that has none.
            if ours not in COLUMNS or not COLUMNS[ours].may_be_empty or (value is None and ours != "sentence"):
                return {}, {"where": where, "column": theirs, "reason": problem or "empty"}
            value = ""
        try:
            clean[ours] = COLUMNS[ours].clean(value, row) if ours in COLUMNS else cells.stripped_cell(value, row)
        except ValueError as error:
            raise ValueError(f"{where}, column {theirs!r}: {error}") from error
    return clean, None


def split_name(row: dict[str, Any]) -> str | None:
    """Return the split that a row's own column `split` names, or None."""
    value = row.get("split")
    if value is None:
        return None
    name = _SPLIT_ALIASES.get(str(value).strip().lower(), str(value).strip().lower())
    if name not in SPLITS:
        raise ValueError(f"{getattr(row, 'where', '')}, column 'split': {value!r}, but it must be train, valid or test.")
    return name


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
    """Say where a row stands: its line in the file while `load_dataset` still knows it, else its number."""
    return frame["where"].iloc[row] if "where" in frame else f"{name}, row {row + 1}"
