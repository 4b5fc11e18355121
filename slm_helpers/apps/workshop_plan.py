"""An agenda from measured minutes: how long notebooks run, how long their prose takes to read, how long their exercises take."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from slm_helpers._checks import check_choice
from slm_helpers.apps.workshop_students import find_notebook

WORDS_PER_MINUTE = 200
COURSES = {
    "beginners": ("00", "01", "02", "03", "04", "05", "12", "31"),
    "practitioners": ("00", "31", "04", "13", "14", "21", "30", "16"),
}
_OPENING, _CLOSING = 10, 10  # minutes: door check and questions at the end
_BREAK, _BREAK_AFTER = 10, 75  # minutes, and after how many of them


@dataclass
class NotebookTimes:
    """Minutes that one notebook takes."""

    path: Path
    title: str
    run: float
    reading: float
    exercises: list[tuple[int, int]]  # number, minutes


def notebook_times(number: str) -> NotebookTimes:
    """Return the minutes of a notebook, from the measured budget and the exercises that its cells state."""
    path = find_notebook(number)
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    prose = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    title = "".join(cells[0]["source"])
    seconds = re.search(r"\*\*Budget\*\* (\d+) s", title)
    if seconds is None:
        raise ValueError(f"{path.name}: its title cell states no budget such as '**Budget** 40 s'.")
    exercises = [(int(number), int(minutes)) for number, minutes in re.findall(r"\*\*Exercise (\d+) \((\d+) min", prose)]
    words = len(re.findall(r"\w+", prose))
    return NotebookTimes(path, title.split("\n")[0].lstrip("# "), int(seconds[1]) / 60, words / WORDS_PER_MINUTE, exercises)


def plan_workshop(hours: float, *, audience: str = "beginners", numbers: Sequence[str] = (), speed: float = 1.0) -> str:
    """Return an agenda as Markdown: what fits, with times from 0:00, and what to leave out first if it runs late.

    Args:
        hours: Of the whole workshop, breaks included.
        audience: One of COURSES: which notebooks, in which order.
        numbers: Notebooks instead of those.
        speed: How many times as long as stated the machines of the room take.

    Raises:
        ValueError: If the time does not even hold the first notebook.
    """
    check_choice(COURSES, audience=audience)
    if not 0.5 <= hours <= 40:
        raise ValueError(f"hours is {hours:g}, but must lie between 0.5 and 40.")
    left = hours * 60 - _OPENING - _CLOSING
    rows, clock, since_break = (
        [(0.0, _OPENING, "Door check (`slm check` on each machine), who is here, what a language model is")],
        _OPENING,
        0.0,
    )
    clock, optional = float(_OPENING), []
    for number in numbers or COURSES[audience]:
        times = notebook_times(number)
        need = math.ceil(times.run * speed + times.reading)
        if since_break and since_break + need > _BREAK_AFTER and left > need + _BREAK:
            rows.append((clock, _BREAK, "Break"))
            clock, left, since_break = clock + _BREAK, left - _BREAK, 0.0
        if need > left:
            continue
        rows.append(
            (clock, need, f"**{times.title}**: read and run ({times.run * speed:.0f} min machine, {times.reading:.0f} min reading)")
        )
        clock, left, since_break = clock + need, left - need, since_break + need
        for exercise, minutes in times.exercises:
            if minutes <= left and since_break + minutes <= _BREAK_AFTER + 15 and exercise <= 2:
                rows.append((clock, minutes, f"{times.title[:2]}, exercise {exercise}"))
                clock, left, since_break = clock + minutes, left - minutes, since_break + minutes
                optional.append(f"{times.title[:2]}, exercise {exercise} ({minutes} min)")
    if len(rows) == 1:
        raise ValueError(f"{hours:g} hours do not hold a single notebook. Give more, or name shorter ones, e.g. 00.")
    rows.append((clock, _CLOSING, "Questions; what to try on your own data (`slm report`)"))
    table = "\n".join(f"| {int(start // 60)}:{int(start % 60):02d} | {minutes:.0f} | {what} |" for start, minutes, what in rows)
    cut = "\n".join(f"{place}. {what}" for place, what in enumerate(reversed(optional), 1)) or "1. The last notebook."
    return f"""# Workshop of {hours:g} hours for {audience}

| from | minutes | what |
| --- | --- | --- |
{table}

{max(0, left):.0f} minutes are spare. Machine time is what the title cells state, times {speed:g}; reading is {WORDS_PER_MINUTE} words a
minute.

## If it runs late, leave out first

{cut}

Before: `slm workshop students` makes copies to fill, `slm workshop bundle` packs all for a room without a network.
"""
