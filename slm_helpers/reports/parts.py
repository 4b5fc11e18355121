"""What the pages of reports are made of: numbers and tables as Markdown in which nothing of the data is markup, and pictures."""

from __future__ import annotations

import html
import json
import math
import re
from base64 import b64encode
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

from slm_helpers._checks import printable
from slm_helpers.data.files import atomic_write
from slm_helpers.reports.html import html_page, markdown_to_html

import matplotlib.pyplot as plt
import pandas as pd


def rounded(value: Any) -> Any:
    """Return JSON without NaN and with six digits: so much is the same on every machine."""
    if isinstance(value, dict):
        return {name: rounded(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(inner) for inner in value]
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    return value.item() if hasattr(value, "item") else value


def model_bytes(folder: Path) -> int:
    """Return the bytes of a model's weights and tokeniser: its other files tell of seconds, so no two runs have the same number."""
    return sum(path.stat().st_size for path in folder.iterdir() if path.name.startswith(("weights", "tokenizer")))


def interval_text(values: dict[str, float]) -> str:
    """Return a value with its interval, from keys value, ci_low and ci_high."""
    return f"{values['value']:.3f} [{values['ci_low']:.3f}, {values['ci_high']:.3f}]"


def markdown_cell(value: Any) -> str:
    """Return a value for a cell of Markdown: in one line, and nothing in it is markup."""
    text = html.escape(" ".join(printable(str(value)).split()), quote=False)
    return re.sub(r"[\\`*_|~#]|(?<=\])\(|(?<=\])\[|!(?=\[)", lambda found: f"\\{found[0]}", text)


def markdown_table(frame: pd.DataFrame) -> str:
    """Return a table as Markdown, each value through `markdown_cell`."""
    lines = ["| " + " | ".join(frame.columns) + " |", "|" + " --- |" * len(frame.columns)]
    return "\n".join([*lines, *("| " + " | ".join(map(markdown_cell, row)) + " |" for row in frame.itertuples(index=False, name=None))])


def short_label(label: str) -> str:
    """Return a label as it fits on an axis."""
    return printable(label if len(label) <= 18 else label[:17] + "…").replace("$", r"\$")


def picture(ax: plt.Axes, alt: str) -> str:
    """Return a figure as an HTML image that holds its bytes, and close it."""
    buffer = BytesIO()
    ax.figure.savefig(buffer, format="png", dpi=90, metadata={"Software": None})
    plt.close(ax.figure)
    return f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{b64encode(buffer.getvalue()).decode()}">'


def write_page(out: Path, *, title: str, text: str, found: dict[str, Any], pictures: dict[str, Callable[[], str]]) -> None:
    """Write report.md, report.html and report.json.

    Args:
        out: The folder, which is there.
        title: Of the page.
        text: Markdown with a line for each section that begins with "## ".
        found: What report.json holds.
        pictures: From the heading of a section to what draws the image at its end.
    """
    sections = []
    for part in text.split("\n## "):
        image = pictures.get(part.split("\n", 1)[0], str)()
        sections.append(f'<div class="prose">{markdown_to_html(part if part.startswith("# ") else f"## {part}")}{image}</div>')
    page = html_page("<main>" + "\n".join(sections) + "</main>", title=title)
    for name, content in (
        ("report.json", json.dumps(found, ensure_ascii=False, indent=1) + "\n"),
        ("report.md", text),
        ("report.html", page),
    ):
        with atomic_write(out / name) as stream:
            stream.write(content)
