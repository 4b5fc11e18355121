"""One row of a person's file, with its place in the file and what was found wrong with it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


class Row(dict):
    """One row of a file by column name; a key of a nested object is reached by its path, `row["data.text"]`.

    Attributes:
        where: Which file and row it is.
        problem: What is wrong with the row as a whole ("" if nothing is), such as too few cells.
        broken: Whether its cells cannot be told apart, as with too many of them.
        repairs: (column, what was changed) of each cell that was not taken letter by letter.
        decimal_comma: Whether its file writes 1,5 for one and a half.
    """

    def __init__(self, *values: Any, where: str = "", problem: str = "", broken: bool = False, decimal_comma: bool = False, **cells: Any):
        super().__init__(*values, **cells)
        self.where = where
        self.problem = problem
        self.broken = broken
        self.repairs: list[tuple[str, str]] = []
        self.decimal_comma = decimal_comma

    def __missing__(self, name: str) -> Any:
        value: Any = self
        for key in str(name).split("."):
            if not isinstance(value, dict) or not dict.__contains__(value, key):
                raise KeyError(name)
            value = dict.__getitem__(value, key)
        return value

    def __contains__(self, name: object) -> bool:
        try:
            self[name]
        except KeyError:
            return False
        return True

    def get(self, name: str, default: Any = None) -> Any:
        """Return a cell, or `default` where there is none."""
        try:
            return self[name]
        except KeyError:
            return default

    def column_names(self) -> list[str]:
        """Return the names of all cells, those of nested objects as paths such as data.text."""
        return list(_paths(self, ""))


def _paths(value: dict[str, Any], prefix: str):
    for key, inner in value.items():
        # A dict of lists, as SQuAD's answers, is one cell.
        if isinstance(inner, dict) and prefix.count(".") < 8 and not all(isinstance(each, list) for each in inner.values()):
            yield from _paths(inner, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


@dataclass
class Reading:
    """How a file is to be read, and what was understood of it on the way.

    `trusted` is for the project's own and for public sets, whose form is known: nothing is guessed, repaired or refused in cells.
    """

    path: Path
    encoding: str = "utf-8"
    header: bool = True
    task: str | None = None
    columns: dict[str, str] = field(default_factory=dict)  # ours: theirs
    strict: bool = False
    trusted: bool = False
    notes: list[str] = field(default_factory=list)  # short sentences for the user

    @property
    def ours(self) -> tuple[str, ...]:
        """Names of columns to show in advice: those that were named, else those of the task."""
        return tuple(self.columns) or {"translate": ("source", "target"), "tag": ("tokens", "tags")}.get(self.task or "", ("text", "label"))

    def note(self, text: str) -> None:
        """Remember once what the user should know."""
        if text not in self.notes:
            self.notes.append(text)

    def at(self, line: int) -> str:
        """Return a line of the file in words."""
        return f"{self.path}, line {line}"
