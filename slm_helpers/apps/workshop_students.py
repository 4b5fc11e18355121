"""Copies of notebooks for the people in a room: no outputs, an empty cell for each exercise and a check that keeps the score.

The checks are the assertions of the notebook's solution, so a copy filled with the solution's cells has full score.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from slm_helpers._paths import NOTEBOOKS_DIR
from slm_helpers.data.files import atomic_write

import pandas as pd

SCORES = "scores"  # folder of the score files, beside the notebooks
_EXERCISE = re.compile(r"(?m)^(?:> )?\*\*Exercise (\d+)")
_SECTION = re.compile(r"(?m)^## Exercises? (\d+)(?: and (\d+))?")


@dataclass
class Exercise:
    """What a solution says of one exercise: its code, the assertions in it, and names that the assertions read and the code makes."""

    number: int
    code: list[str] = field(default_factory=list)  # of its cells, assertions taken out
    checks: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)


def find_notebook(number: str) -> Path:
    """Return the notebook of a number such as "02", or of its whole name; raise ValueError if there is none."""
    found = sorted(NOTEBOOKS_DIR.glob(f"{number.removesuffix('.ipynb')}*.ipynb"))
    if len(found) != 1:
        known = ", ".join(path.stem[:2] for path in sorted(NOTEBOOKS_DIR.glob("[0-9][0-9]_*.ipynb")))
        raise ValueError(f"There is no notebook {number!r}. Numbers: {known}.")
    return found[0]


def read_exercises(solution: Path, *, full_size: bool = True) -> tuple[list[str], list[Exercise]]:
    """Return the code of a solution before its first exercise, and its exercises.

    Args:
        solution: A notebook with a section "## Exercise N" for each, or "## Exercises N and M" for two, which share its code and checks.
        full_size: Take the assertions too that hold at full size only.
    """
    setup: list[str] = []
    exercises: list[Exercise] = []
    current: list[Exercise] = []
    for cell in json.loads(solution.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            for numbers in _SECTION.findall(source):
                current = [Exercise(int(number)) for number in numbers if number]
                exercises += current
        elif cell["cell_type"] == "code" and not exercises:
            setup.append(source)
        elif cell["cell_type"] == "code":
            code, checks = _split_checks(source)
            for exercise in current:
                exercise.code.append(code)
                if full_size or "full-size" not in cell["metadata"].get("tags", []):
                    exercise.checks += checks
    imports = [line for source in setup for line in _imports(source)]
    for exercise in exercises:
        made = list(dict.fromkeys(name for source in exercise.code for name in _assigned(source)))
        read = {name for check in exercise.checks for name in _read(check)}
        exercise.names = [name for name in made if name in read] or made[-1:]
        if not exercise.checks:
            exercise.checks = [f"assert {name} is not None" for name in exercise.names]
        exercise.checks = [line for line, name in imports if name in read] + exercise.checks
    return setup, exercises


def make_student_copy(path: Path, *, full_size: bool = True, filled: bool = False) -> dict:
    """Return a notebook (as JSON) without outputs, with a cell to fill and a check for each exercise.

    Args:
        path: The notebook; its solution stands in solutions/.
        full_size: Check too what holds at full size only.
        filled: Put the solution's code into the cells to fill.

    Raises:
        ValueError: If the solution lacks an exercise of the notebook.
    """
    notebook = json.loads(path.read_text(encoding="utf-8"))
    setup, exercises = read_exercises(path.parent / "solutions" / path.name, full_size=full_size)
    by_number = {exercise.number: exercise for exercise in exercises}
    cells, first = [], True
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "code":
            cells.append(cell | {"outputs": [], "execution_count": None})
            continue
        starts = [found.start() for found in _EXERCISE.finditer(source)]
        if not starts:
            cells.append(cell)
            continue
        pieces = [source[: starts[0]], *(source[a:b] for a, b in zip(starts, [*starts[1:], len(source)], strict=True))]
        pieces[-1], rest = _without_answers(pieces[-1])
        if pieces[0].strip():
            cells.append(_cell("markdown", pieces[0], "exercises"))
        for piece in pieces[1:]:
            number = int(_EXERCISE.search(piece)[1])
            if number not in by_number:
                raise ValueError(f"{path.name}: its solution has no section '## Exercise {number}'.")
            exercise = by_number[number]
            code = [*(setup if first else []), *exercise.code] if filled else ["# Your code"]
            cells += _exercise_cells(path.stem, piece, exercise, "\n\n".join(code), len(exercises))
            first = False
        if rest.strip():
            cells.append(_cell("markdown", rest, "after-exercises"))
    return notebook | {"cells": cells}


def write_student_copies(out: Path, numbers: Sequence[str], *, people: Sequence[str] = ()) -> list[Path]:
    """Write copies of notebooks, for each of `people` in a folder of their own; existing files are never replaced.

    Raises:
        FileExistsError: If one of the files is there: somebody may have worked in it.
    """
    paths = [find_notebook(number) for number in numbers]
    folders = [out / name for name in people] or [out]
    written = [folder / path.name for folder in folders for path in paths]
    for path in written:
        if path.exists():
            raise FileExistsError(f"{path} is there already, and somebody may have worked in it. Choose another folder.")
    for folder in folders:
        for path in paths:
            with atomic_write(folder / path.name) as file:
                file.write(json.dumps(make_student_copy(path), indent=1, ensure_ascii=False) + "\n")
    return written


@contextmanager
def self_check(notebook: str, exercise: int, num_exercises: int) -> Iterator[None]:
    """Say whether the assertions inside hold, and write it to the score file; the notebook goes on in either case."""
    passed, message = True, "passed"
    try:
        yield
    except Exception as error:  # a name that is not there yet, or whatever an unfinished answer causes
        passed = False
        text = str(error).strip().split("\n")[0]
        message = f"not yet ({type(error).__name__}{f': {text}' if text else ''})"
    print(f"Exercise {exercise}: {message}")
    path = Path(SCORES) / f"{notebook}.json"
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    results = found.get("exercises", {}) | {str(exercise): passed}
    with atomic_write(path) as file:
        json.dump({"notebook": notebook, "num_exercises": num_exercises, "exercises": results}, file, indent=1)


def read_scores(folder: Path) -> pd.DataFrame:
    """Return the score files of a room: columns who (the folder that holds `scores`), notebook, exercise, passed.

    Args:
        folder: With a folder for each person, or one person's own.

    Raises:
        ValueError: If there is no score file, or one cannot be read.
    """
    rows = []
    for path in sorted(folder.glob(f"**/{SCORES}/*.json")):
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            results, total = found["exercises"], int(found["num_exercises"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path}: this is no score file ({error}). Remove it, or run the check cells again.") from error
        who = path.parent.parent.resolve().name
        rows += [(who, found["notebook"], number, bool(results.get(str(number)))) for number in range(1, total + 1)]
    if not rows:
        raise ValueError(f"{folder}: there is no score file in it. The check cells write them to {SCORES}/ beside the notebooks.")
    return pd.DataFrame(rows, columns=["who", "notebook", "exercise", "passed"])


def _split_checks(source: str) -> tuple[str, list[str]]:
    """Return a cell's code without its assertions, and these, one a string."""
    lines = source.split("\n")
    checks, dropped = [], set()
    for node in ast.parse(_plain(source)).body:
        if isinstance(node, ast.Assert):
            place = range(node.lineno - 1, node.end_lineno)
            checks.append("\n".join(lines[number] for number in place))
            dropped |= set(place)
    return "\n".join(line for number, line in enumerate(lines) if number not in dropped).strip(), checks


def _imports(source: str) -> list[tuple[str, str]]:
    """Return (statement, bound name) of each import in a cell."""
    found = []
    for node in ast.parse(_plain(source)).body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                what = f"import {alias.name}" + (f" as {alias.asname}" if alias.asname else "")
                line = f"from {node.module} {what}" if isinstance(node, ast.ImportFrom) else what
                found.append((line, alias.asname or alias.name.split(".")[0]))
    return found


def _assigned(source: str) -> list[str]:
    """Return the names that a cell makes at its top level."""
    names = []
    for node in ast.parse(_plain(source)).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.append(node.name)
        else:
            names += [each.id for each in ast.walk(node) if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)]
    return names


def _read(source: str) -> set[str]:
    return {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}


def _plain(source: str) -> str:
    """Return code in which IPython's commands are comments, so that Python can parse it."""
    return re.sub(r"(?m)^(\s*)[!%]", r"\1# ", source)


def _without_answers(piece: str) -> tuple[str, str]:
    """Cut the text of the last exercise from what follows it, leaving out the sentence that tells where the answers are."""
    end = re.search(r"(?m)^(Worked answers|Answers: |## )", piece)
    exercise, rest = (piece[: end.start()], piece[end.start() :]) if end else (piece, "")
    return exercise, re.sub(r"(?m)^(?:Worked answers|Answers: )[^\n]*\n?", "", rest)


def _exercise_cells(notebook: str, text: str, exercise: Exercise, code: str, num_exercises: int) -> list[dict]:
    names = ", ".join(f"`{name}`" for name in exercise.names)
    text = text.strip() + (f"\n>\n> The check reads {names}." if names else "")
    if not exercise.checks:
        return [_cell("markdown", text, f"exercise-{exercise.number}"), _cell("code", code, f"answer-{exercise.number}")]
    inside = "\n".join(f"    {line}" for check in exercise.checks for line in check.split("\n"))
    start = f'with self_check("{notebook}", {exercise.number}, {num_exercises}):'
    check = f"from slm_helpers.apps.workshop_students import self_check\n\n{start}\n{inside}"
    return [
        _cell("markdown", text, f"exercise-{exercise.number}"),
        _cell("code", code, f"answer-{exercise.number}"),
        _cell("code", check, f"check-{exercise.number}"),
    ]


def _cell(kind: str, source: str, name: str) -> dict:
    cell = {"cell_type": kind, "id": name, "metadata": {"tags": [name]}, "source": source.strip("\n").splitlines(keepends=True)}
    return cell | ({"outputs": [], "execution_count": None} if kind == "code" else {})
