"""The score files of a room as one picture and one table."""

from __future__ import annotations

from pathlib import Path

from slm_helpers.apps.workshop_students import read_scores
from slm_helpers.data.files import atomic_write

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns


def draw_board(scores: pd.DataFrame) -> plt.Figure:
    """Return a picture with a row for each person and a column for each exercise; a tick tells what has passed."""
    grid = scores.assign(column=scores["notebook"].str[:2] + "·" + scores["exercise"].astype(str))
    grid = grid.pivot_table(index="who", columns="column", values="passed", aggfunc="max").astype(float).fillna(0)
    size = (2 + 0.45 * grid.shape[1], 1.2 + 0.35 * grid.shape[0])
    figure, ax = plt.subplots(figsize=size, layout="constrained")
    marks = grid.map(lambda passed: "✓" if passed else "")
    sns.heatmap(grid, annot=marks, fmt="", cmap="Blues", vmin=0, vmax=1.6, cbar=False, linewidths=1, ax=ax)
    done = grid.to_numpy().mean()
    ax.set(xlabel="Notebook · exercise", ylabel="", title=f"{done:.0%} of {grid.size} exercises passed")
    ax.tick_params(axis="y", rotation=0)
    return figure


def write_board(folder: Path, out: Path) -> pd.DataFrame:
    """Write the picture of a room's scores (.png or .svg) and, beside it, the table as .csv; returns passed and total by person."""
    if out.suffix.lower() not in (".png", ".svg"):
        raise ValueError(f"{out}: the picture needs the ending .png or .svg.")
    scores = read_scores(folder)
    figure = draw_board(scores)
    with atomic_write(out, "wb") as file:
        figure.savefig(file, format=out.suffix[1:].lower(), dpi=150)
    plt.close(figure)
    with atomic_write(out.with_suffix(".csv")) as file:
        scores.to_csv(file, index=False)
    return scores.groupby("who")["passed"].agg(passed="sum", total="size").reset_index()
