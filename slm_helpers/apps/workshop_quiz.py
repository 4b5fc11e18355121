"""The quiz of a notebook: ten questions in its leader's notes (notebooks/workshop/NN.md)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from slm_helpers._paths import NOTEBOOKS_DIR, check_checkout

_QUESTION = re.compile(r"^\d+\. (.+)$")
_OPTION = re.compile(r"^   - \[([ x])\] (.+)$")
_WHY = re.compile(r"^   - (?!\[)(.+)$")


@dataclass(frozen=True)
class Question:
    """One question: the options, which of them is right (from 0), and why."""

    text: str
    options: tuple[str, ...]
    answer: int
    why: str


def read_quiz(path: Path) -> list[Question]:
    """Return the questions of leader's notes: below "## Quiz" numbered lines, each with options "- [ ]", one "- [x]", and a reason.

    Raises:
        ValueError: If a question has not one right option, one reason and two options at least; the message names file and question.
    """
    _, _, text = path.read_text(encoding="utf-8").partition("\n## Quiz\n")
    found: list[tuple[str, list[tuple[str, bool]], list[str]]] = []
    for line in text.splitlines():
        if match := _QUESTION.match(line):
            found.append((match[1], [], []))
        elif found and (match := _OPTION.match(line)):
            found[-1][1].append((match[2], match[1] == "x"))
        elif found and (match := _WHY.match(line)):
            found[-1][2].append(match[1])
        elif line.strip():
            raise ValueError(f"{path.name}: the quiz has a line that is no question, option or reason: {line!r:.60}.")
    for number, (_, options, why) in enumerate(found, 1):
        if len(options) < 2 or sum(right for _, right in options) != 1 or len(why) != 1:
            raise ValueError(f"{path.name}: question {number} needs two options at least, one of them marked [x], and one reason.")
    return [
        Question(text, tuple(name for name, _ in options), [right for _, right in options].index(True), why[0])
        for text, options, why in found
    ]


def notes_path(number: str) -> Path:
    """Return the leader's notes of a notebook, e.g. "02"; raise ValueError if it has none."""
    path = check_checkout(NOTEBOOKS_DIR) / "workshop" / f"{number[:2]}.md"
    if not path.is_file():
        known = ", ".join(sorted(each.stem for each in path.parent.glob("*.md")))
        raise ValueError(f"There are no leader's notes for notebook {number!r}, only for {known}.")
    return path
