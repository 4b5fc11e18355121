"""Guess from the first rows of a person's file what task it is for and which columns hold what; nothing is guessed that was said."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from slm_helpers.data.cells import LABELS_SEPARATOR, labels_cell
from slm_helpers.data.files import file_format, read_rows
from slm_helpers.data.rows import Row
from slm_helpers.data.schema import ALL_COLUMNS, COLUMNS, TASK_COLUMNS, find_columns
from slm_helpers.data.tables import looks_like_data

_ROWS = 1000  # from the front of the file that are looked at
_MOST_CLASSES = 200
_SEVERAL = 0.02  # of the rows with several labels, from which on they are meant
# Words in the name of a column that holds classes, the surest first.
_LABEL_WORDS = (
    *("label", "class", "category", "target", "sentiment", "emotion", "polarity", "intent", "topic", "tag", "genre", "type", "rating"),
    *("stars", "score", "priority", "department", "status", "language", "author", "airline_sentiment", "y"),
)
_TEXT_WORDS = (
    "text",
    "sentence",
    "review",
    "comment",
    "message",
    "body",
    "content",
    "description",
    "headline",
    "title",
    "tweet",
    "question",
)
_NOT_TEXT = re.compile(r"(https?://|www\.)\S+|[\d\s.,:/+-]+|\S+@\S+")
# Tasks that are tried if the names of their columns stand there, the most telling first; the last is what any two columns can be.
_BY_NAME = ("command", "tag", "answer", "trace", "translate", "classify")


@dataclass(frozen=True)
class Guess:
    """What a file seems to be: `columns` is {our name: name in the file}, `header` whether its first line names them."""

    task: str
    columns: dict[str, str]
    header: bool
    why: str  # one sentence for the user; "" if nothing was guessed


def guess_columns(
    path: str | Path, named: Mapping[str, str], *, task: str | None = None, header: bool = True, encoding: str = "utf-8"
) -> Guess:
    """Return task and columns of a file; what the user named stays as it is.

    Args:
        path: The file, in any format of `read_rows`.
        named: {our name: name in the file} as the user gave them.
        task: The task, if it was said.
        header: Whether the first line of a table is said to name its columns; a table whose first line looks like a row is taken to
            have none, unless columns were named.
        encoding: Of the file.

    Raises:
        ValueError: If no column looks like a text, or none like a class; the message lists the columns.
    """
    if task == "multilabel" and "label" in named and "labels" not in named:
        named = {"labels" if ours == "label" else ours: theirs for ours, theirs in named.items()}
    rows, names, found_header = _front(path, named, task, header, encoding)
    told = "the first line looks like a row, so columns are numbered" if header != found_header else ""
    header = found_header
    for tried in [task] if task else _BY_NAME:
        found = _by_name(tried, names, named)
        if found is not None and (task or tried not in ("tag", "command") or _are_tags(rows, found)):
            # What is called as we call it the reader finds itself; in a file of tokens a name would mean a column of its own.
            columns = {ours: theirs for ours, theirs in found.items() if ours in named or ours != theirs}
            guess = Guess(tried, columns, header, _say(tried, found, named, told))
            return guess if task else _with_several(guess, rows, found)
    if task not in (None, "classify"):
        raise ValueError(
            f"{path}: the columns of the task {task} ({', '.join(TASK_COLUMNS[task])}) are not among {', '.join(names)}. Name them."
        )
    found = dict(named)
    free = [name for name in names if name not in found.values()]
    if "text" not in found:
        found["text"] = _best_text(path, rows, free)
        free.remove(found["text"])
    if "label" not in found:
        found["label"] = _best_label(path, rows, free, found["text"])
    guess = Guess("classify", found, header, _say("classify", found, named, told))
    return guess if task else _with_several(guess, rows, found)


def _with_several(guess: Guess, rows: Sequence[Row], found: Mapping[str, str]) -> Guess:
    """Return the guess, for several labels a text if many cells of the class hold a list, or a row of values that stand alone elsewhere."""
    if guess.task != "classify":
        return guess
    cells = [(value, row) for row in rows if (value := row.get(found["label"])) is not None and value == value and value != ""]
    labels = [labels_cell(value, row).split(LABELS_SEPARATOR) for value, row in cells]
    alone = {names[0] for names in labels if len(names) == 1}
    lists = [isinstance(value, list) or str(value).lstrip().startswith("[") for value, _ in cells]
    several = sum(len(names) > 1 and (is_list or alone.issuperset(names)) for names, is_list in zip(labels, lists, strict=True))
    if several < max(1, _SEVERAL * len(cells)):
        return guess
    columns = {"labels" if ours == "label" else ours: theirs for ours, theirs in ({"label": found["label"]} | guess.columns).items()}
    why = f"{several / len(cells):.0%} of the first rows have several labels: task multilabel; for one label a text write --task classify"
    return replace(guess, task="multilabel", columns=columns, why="; ".join(filter(None, [guess.why, why])))


def _front(path: str | Path, named: Mapping[str, str], task: str | None, header: bool, encoding: str) -> tuple[list[Row], list[str], bool]:
    """Return the first rows, the names of their columns, and whether the first line names them."""

    def read(header: bool) -> tuple[list[Row], list[str]]:
        about = {"encoding": encoding, "task": task, "columns": dict(named), "notes": []}
        rows = [row for row in islice(read_rows(path, header=header, **about), _ROWS) if not row.broken]
        return rows, list(dict.fromkeys(name for row in rows[:50] for name in row.column_names()))

    may_lack_one = header and not named and file_format(path) in (".csv", ".tsv", ".tab", ".txt")
    try:
        rows, names = read(header)
    except ValueError as error:
        if not may_lack_one or "stands there twice" not in str(error):
            raise
        return *read(False), False
    if may_lack_one and ((looks_like_data(names) and not set(names) & set(ALL_COLUMNS)) or names == ["text"]):
        without = read(False)
        if len(without[1]) > 1:
            return *without, False
    return rows, names, header


def _are_tags(rows: Sequence[Row], found: Mapping[str, str]) -> bool:
    """Whether most cells of the column of tags hold as many as there are tokens, or each row holds one token."""
    pairs = [tuple(len(value) if isinstance(value, list) else len(str(value).split()) for value in cells) for cells in _pairs(rows, found)]
    return sum(tokens == tags for tokens, tags in pairs) > 0.8 * len(pairs)


def _pairs(rows: Sequence[Row], found: Mapping[str, str]) -> list[tuple[Any, Any]]:
    return [(row.get(found["tokens"]), row.get(found["tags"])) for row in rows]


def _by_name(task: str, names: Sequence[str], named: Mapping[str, str]) -> dict[str, str] | None:
    """Return the columns of a task if all that it needs were named or are called as usual, else None."""
    try:
        found = find_columns(names, named, task=task)
    except ValueError:
        return None
    needed = set(TASK_COLUMNS[task])
    if set(named) - needed - {"sentence", "target_language", "tone"}:
        return None  # the user named a column of another task
    telling = {"tag": {"tags"}, "command": {"tags", "intent"}, "answer": {"question", "answer"}, "trace": {"student", "correct"}}.get(
        task, needed
    )
    # An alias such as "label" for tags tells nothing: the same name serves texts and classes.
    sure = {ours for ours, theirs in found.items() if ours in named or ours == theirs.lower() or theirs in _own_aliases(ours)}
    return found if telling <= sure else None


def _own_aliases(ours: str) -> tuple[str, ...]:
    """Return the other names of a column that no other column has."""
    others = {alias for name, column in COLUMNS.items() if not name.startswith(ours) for alias in (name, *column.aliases)}
    return tuple(alias for alias in COLUMNS[ours].aliases if alias not in others)


def _best_text(path: str | Path, rows: Sequence[Row], names: Sequence[str]) -> str:
    """Return the column whose cells are the longest texts in words, most of them different."""
    scores = {}
    for name in names:
        cells = _cells(rows, name)
        texts = [cell for cell in cells if any(sign.isalpha() for sign in cell) and not _NOT_TEXT.fullmatch(cell)]
        if not cells or len(texts) < 0.5 * len(cells):
            continue
        length = sum(min(len(cell), 2000) for cell in texts) / len(cells)
        varied = len(set(texts)) / len(texts)
        scores[name] = length * varied * len(cells) / len(rows) * (1.5 if _rank(name, _TEXT_WORDS) is not None else 1.0)
    best = max(scores, key=scores.__getitem__, default=None)
    if best is None or scores[best] < 3:
        raise ValueError(
            f"{path}: no column looks like a text; it has {', '.join(names)}. Say which is, e.g. --text {names[0] if names else 1}."
        )
    return best


def _best_label(path: str | Path, rows: Sequence[Row], names: Sequence[str], text: str) -> str:
    """Return the column that looks most like classes: few values, each several times, under a telling name."""
    scores = {}
    for name in names:
        cells = _cells(rows, name)
        values = set(cells)
        if not 2 <= len(values) <= min(_MOST_CLASSES, len(cells) / 3) or sum(map(len, cells)) > 40 * len(cells):
            continue
        rank = _rank(name, _LABEL_WORDS)
        told = len(_LABEL_WORDS) - rank + 10 if rank is not None else 0
        scores[name] = told + len(cells) / len(rows) - 0.01 * len(values)
    best = max(scores, key=scores.__getitem__, default=None)
    if best is None:
        raise ValueError(
            f"{path}: the text seems to be {text!r}, but no column looks like its class (2 to {_MOST_CLASSES} values, each several times); "
            f"it has {', '.join(names) or 'no other'}. Say which is, e.g. --label {names[0] if names else 'NAME'}."
        )
    return best


def _cells(rows: Sequence[Row], name: str) -> list[str]:
    values = (row.get(name) for row in rows)
    return [text for value in values if value is not None and value == value and (text := str(value).strip())]


def _rank(name: str, words: Sequence[str]) -> int | None:
    """Return the place of the first of `words` that stands in a name as a word of its own, else None."""
    parts = set(re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()))
    parts |= {part.removesuffix("s") for part in parts}
    return next((rank for rank, word in enumerate(words) if word in parts), None)


def _say(task: str, found: Mapping[str, str], named: Mapping[str, str], told: str) -> str:
    """Return what was guessed in one sentence, after what was found out about the header."""
    guessed = [f"{ours} from {theirs!r}" for ours, theirs in found.items() if ours not in named and ours != theirs.lower()]
    if not guessed:
        if task == "classify" or set(found) <= set(named):
            return told
        return "; ".join(filter(None, [told, f"guessed: task {task}, by its columns {', '.join(found)}"]))
    options = " ".join(f"--{ours.replace('_', '-')} {theirs!r}" for ours, theirs in found.items())
    guess = f"guessed: task {task}, {', '.join(guessed)}. If that is wrong, name the columns, e.g. {options}"
    return "; ".join(filter(None, [told, guess]))
