"""Figures: long-form DataFrame in, Axes out; and `show_figure`, which shows one with a text for those who cannot see it."""

from io import BytesIO

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from IPython.display import Image, display


def show_figure(figure: plt.Figure | plt.Axes, *, alt: str, dpi: int = 110) -> None:
    """Display a figure once, as a PNG with alternative text, and close it.

    Args:
        figure: A figure, or any axes of it.
        alt: What a reader who cannot see the picture should learn from it: what is drawn and the finding.
        dpi: Dots per inch; 110 keeps a page with ten figures under 1 MB.
    """
    if not alt.strip():
        raise ValueError("alt is empty. Write one sentence: what is drawn and what it shows.")
    figure = figure if isinstance(figure, plt.Figure) else figure.figure
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    plt.close(figure)
    display(Image(buffer.getvalue(), alt=alt))


def plot_loss(history: pd.DataFrame, *, x: str = "step", y: str = "loss_nats", hue: str = "split", ax: plt.Axes | None = None) -> plt.Axes:
    """Draw curves of training from a history in long form (columns `x`, `y` and `hue`); returns the axes.

    One line style as well as one colour a curve, so that the figure reads without colour.
    """
    if ax is None:
        _, ax = plt.subplots(figsize=(6.5, 3.6), layout="constrained")
    sns.lineplot(history, x=x, y=y, hue=hue, style=hue, errorbar="sd", ax=ax)
    labels = {"step": "Training step", "epoch": "Epoch", "seconds": "Training time (seconds)", "tokens": "Tokens read in training"}
    units = {"loss_nats": "Loss (nats per token)", "bits_per_byte": "Bits per byte", "bits_per_char": "Bits per character"}
    ax.set(xlabel=labels.get(x, x), ylabel=units.get(y, y))
    return ax


def plot_bars(table: pd.DataFrame, *, x: str, y: str, xlabel: str, hue: str | None = None, ax: plt.Axes | None = None) -> plt.Axes:
    """Draw one horizontal bar a row with its value beside it; columns `ci_low` and `ci_high`, if present, as whiskers.

    Args:
        table: One row a bar.
        x: Column of the values; bars start at zero.
        y: Column of the names.
        xlabel: Label with the unit.
        hue: Column that colours the bars.
        ax: Axes to draw on.
    """
    if ax is None:
        _, ax = plt.subplots(figsize=(6.5, 0.6 + 0.42 * len(table)), layout="constrained")
    sns.barplot(table, x=x, y=y, hue=hue, color=None if hue else sns.color_palette()[0], dodge=False, ax=ax)
    if {"ci_low", "ci_high"} <= set(table.columns):
        values = table[x].to_numpy()
        ax.errorbar(
            values, range(len(table)), xerr=[values - table["ci_low"], table["ci_high"] - values], fmt="none", color="black", capsize=3
        )
    furthest = table["ci_high"] if "ci_high" in table else table[x]
    for place, (value, edge) in enumerate(zip(table[x], furthest, strict=True)):
        ax.annotate(f"{value:.3g}", (edge, place), xytext=(5, 0), textcoords="offset points", va="center")
    ax.set(xlabel=xlabel, ylabel="", xlim=(0, float(furthest.max()) * 1.2))
    return ax
