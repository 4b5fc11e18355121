"""The columns of each task in one table, how they are found in a file, and the checks and conversions of their cells.

A new task adds its line to TASK_COLUMNS, and its new columns to COLUMNS; everything else reads these two.
"""

import ast
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from slm_helpers._checks import check_choice
from slm_helpers.data.rows import Row

import numpy as np
import pandas as pd

SPLITS = ("train", "valid", "test")
_SPLIT_ALIASES = {"dev": "valid", "val": "valid", "validation": "valid", "eval": "valid", "training": "train"}
_CORRECT = {"true": 1, "yes": 1, "right": 1, "correct": 1, "false": 0, "no": 0, "wrong": 0, "incorrect": 0}


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


def spell_label(value: Any, *, decimal_comma: bool = False) -> str:
    """Return one spelling for a value in whatever format it comes: 1, 1.0 and "1.0" are "1"; True and "TRUE" are "true".

    With `decimal_comma`, "1,5" is "1.5".
    """
    if isinstance(value, bool | np.bool_):
        return str(bool(value)).lower()
    text = str(value).strip()
    if text in ("True", "TRUE", "False", "FALSE"):
        return text.lower()
    if decimal_comma and re.fullmatch(r"-?\d+,\d+", text):
        text = text.replace(",", ".")
    number = re.fullmatch(r"(-?\d+)\.(\d*?)0*", text)
    if number is None:
        return text
    return f"{number[1]}.{number[2]}" if number[2] else number[1]


def whole_number(value: Any) -> int:
    """Return a whole number from a cell; no digit is lost, however long it is."""
    if isinstance(value, bool):
        return int(value)
    try:
        number = Decimal(str(value).strip())
        if number == number.to_integral_value() and abs(number) < 2**63:
            return int(number)
    except InvalidOperation:  # letters, nan and inf too
        pass
    raise ValueError(f"{value!r} is not a whole number.")


def _text(value: Any, row: Row | dict) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{type(value).__name__} {value!r:.40}, but text is needed. Put it in quotes.")
    return value


def _stripped(value: Any, row: Row | dict) -> str:
    return _text(value, row).strip()


def _name(value: Any, row: Row | dict) -> str:
    """Return a label or a name; a list that holds one is that one."""
    value = _literal(value) if isinstance(value, str) and value.strip().startswith("[") else value
    if isinstance(value, list | tuple):
        if len(value) != 1:
            raise ValueError(
                f"{len(value)} labels ({', '.join(map(str, value[:4]))}), but each text has one label here; several labels a text are not "
                "supported. Keep one of them, or make a file with a yes/no column for each label and train one model for each."
            )
        value = value[0]
    if not isinstance(value, str | int | float | bool | Decimal):
        raise ValueError(f"{type(value).__name__} {value!r:.40}, but text is needed. Put it in quotes.")
    return spell_label(value, decimal_comma=getattr(row, "decimal_comma", False))


def _words(value: Any, row: Row | dict) -> Any:
    """Return words or tags joined by single spaces; spans of characters stay a list until the text is known."""
    value = _literal(value) if isinstance(value, str) and value.strip().startswith(("[", "array(")) else value
    if isinstance(value, list | tuple):
        if not value or any(isinstance(each, list | tuple | dict) for each in value):
            return list(value)
        # A no-break space keeps the words of a token together; an empty token still is one.
        return " ".join(str(each).strip().replace(" ", "\u00a0") or "\u00a0" for each in value)
    return _text(value, row).strip(" \t\n")


def _literal(value: str) -> Any:
    """Return the list or dict that a cell writes as JSON, as Python or as NumPy prints it; the text itself if it is none."""
    text = re.sub(r"array\((\[.*?\])(?:, dtype=\w+)?\)", r"\1", value.strip(), flags=re.DOTALL)
    quoted = r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\""
    if re.fullmatch(rf"\[\s*(?:{quoted})(?:\s+(?:{quoted}))+\s*\]", text):  # NumPy's lists have no commas
        text = f"[{', '.join(re.findall(quoted, text))}]"
    for read in (json.loads, ast.literal_eval):
        try:
            return read(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    return value


def _turns(value: Any, row: Row | dict) -> list:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise ValueError(f'turns must be a JSON list such as ["Hello", "Hi"] ({error}).') from error
    if not isinstance(value, list) or not value:
        raise ValueError("turns must be a JSON list with one turn at least.")
    return value


def _answer(value: Any, row: Row | dict) -> str:
    """Return the answer; of several equally good ones (SQuAD) the first, and nothing if there is none."""
    found = _first_answer(value, "text")
    return spell_label(found) if isinstance(found, int | float) else _text("" if found is None else found, row).strip()


def _answer_start(value: Any, row: Row | dict) -> int:
    found = _first_answer(value, "answer_start")
    return -1 if found is None else whole_number(found)


def _first_answer(value: Any, key: str) -> Any:
    value = _literal(value) if isinstance(value, str) and value.strip().startswith(("{", "[")) else value
    if isinstance(value, dict):
        value = value.get(key)
    if isinstance(value, list):
        value = value[0] if value else None
        value = value.get(key) if isinstance(value, dict) else value
        value = None if key == "answer_start" and isinstance(value, str) and not value.isdigit() else value
    return value


def _step(value: Any, row: Row | dict) -> int:
    """Return the place of an attempt in time: a whole number, or a date in nanoseconds."""
    if isinstance(value, datetime) or (isinstance(value, str) and re.search(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}", value)):
        try:
            return int(pd.Timestamp(value).as_unit("ns").value)
        except (ValueError, OverflowError) as error:
            raise ValueError(f"{value!r} is neither a whole number nor a date.") from error
    return whole_number(value)


def _correct(value: Any, row: Row | dict) -> int:
    number = _CORRECT.get(str(value).strip().lower())
    number = whole_number(value) if number is None else number
    if number not in (0, 1):
        raise ValueError(f"{value!r}, but it must be 1 for a right answer or 0 for a wrong one.")
    return number


_PAIR, _QUESTION = frozenset({"source", "target"}), frozenset({"question", "answer"})
COLUMNS: dict[str, Column] = {
    "text": Column(_text, ("sentence",)),
    "label": Column(_name, ("labels", "class", "category")),
    "tokens": Column(_words, ("words", "word", "token", "text", "sentence")),
    "tags": Column(_words, ("tag", "ner_tags", "ner_tag", "ner", "labels", "label", "entities", "spans")),
    "intent": Column(_name, may_be_empty=True),
    "sound": Column(_stripped),
    "source": Column(_stripped),
    "target": Column(_stripped),
    "context": Column(_stripped, may_be_empty=True, default="", goes_with=_QUESTION),
    "question": Column(_stripped),
    "answer": Column(_answer, ("answers",), may_be_empty=True),
    "answer_start": Column(_answer_start, ("answers",), default=-1, goes_with=_QUESTION),
    "turns": Column(_turns),
    "student": Column(_name),
    "step": Column(_step),
    "skill": Column(_name),
    "correct": Column(_correct),
    "target_language": Column(_stripped, default="", goes_with=_PAIR),
    "tone": Column(_stripped, may_be_empty=True, default="", goes_with=_PAIR),
    "sentence": Column(_name, ("sentence #", "sentence_id", "sentence_number", "sent_id", "sentence id", "sent"), may_be_empty=True),
}
TASK_COLUMNS = {
    "language_model": ("text",),
    "classify": ("text", "label"),
    "tag": ("tokens", "tags"),
    "command": ("tokens", "tags", "intent"),
    "listen": ("sound", "label"),
    "translate": ("source", "target"),
    "write": ("source", "target"),
    "answer": ("context", "question", "answer", "answer_start"),
    "ask": ("context", "question", "answer", "answer_start"),
    "dialogue": ("turns",),
    "trace": ("student", "step", "skill", "correct"),
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


def find_columns(present: Sequence[str], named: Mapping[str, str], *, task: str | None = None, where: str = "the file") -> dict[str, str]:
    """Return {our name: name in the file} for the columns to read.

    Args:
        present: The names in the file.
        named: {our name: name in the file, or number from 1} as the user gave them.
        task: Read the columns of this task only, also under other usual names; without it, those of all tasks that are complete.
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
    for name in task_columns(task):
        match = name if name in present else next(iter(_matches((name, *COLUMNS[name].aliases), present)), None)
        if name not in found and match is not None and (match not in found.values() or match == "answers"):
            found[name] = match
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
            clean[ours] = COLUMNS[ours].clean(value, row) if ours in COLUMNS else _stripped(value, row)
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
