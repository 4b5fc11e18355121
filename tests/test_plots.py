"""Figures have labelled axes and a text for those who cannot see them, and are shown once."""

from slm_helpers import plots
from slm_helpers.plots import plot_bars, plot_loss, show_figure

import matplotlib.pyplot as plt
import pandas as pd
import pytest

HISTORY = pd.DataFrame(
    {"step": [10, 10, 20, 20], "split": ["train", "valid"] * 2, "loss_nats": [2.0, 2.2, 1.5, 1.9], "seconds": [1.0, 1.0, 2.0, 2.0]}
)
SCORES = pd.DataFrame({"model": ["ours", "baseline"], "accuracy": [0.9, 0.6], "ci_low": [0.85, 0.5], "ci_high": [0.95, 0.7]})


@pytest.fixture(autouse=True)
def no_window():
    plt.switch_backend("agg")
    yield
    plt.close("all")


@pytest.fixture
def shown(monkeypatch):
    """Everything that was displayed."""
    images = []
    monkeypatch.setattr(plots, "display", images.append)
    return images


def test_plot_loss_draws_one_labelled_line_per_split():
    ax = plot_loss(HISTORY)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("Training step", "Loss (nats per token)")
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["train", "valid"]
    lines = [line for line in ax.get_lines() if len(line.get_xdata())]
    assert [line.get_ydata().tolist() for line in lines] == [[2.0, 1.5], [2.2, 1.9]]
    assert [line.is_dashed() for line in lines] == [False, True]  # told apart without colour


def test_plot_loss_takes_other_columns_and_axes():
    _, given = plt.subplots()
    ax = plot_loss(HISTORY.assign(bits_per_byte=[4, 4, 3, 3]), x="seconds", y="bits_per_byte", ax=given)
    assert ax is given
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("Training time (seconds)", "Bits per byte")
    assert plot_loss(HISTORY.rename(columns={"step": "width"}), x="width").get_xlabel() == "width"


def test_plot_bars_draws_bars_from_zero_with_values_and_whiskers():
    ax = plot_bars(SCORES, x="accuracy", y="model", xlabel="Accuracy (share of rows)")
    assert ax.get_xlabel() == "Accuracy (share of rows)"
    assert [label.get_text() for label in ax.get_yticklabels()] == ["ours", "baseline"]
    assert [bar.get_width() for bar in ax.patches] == [0.9, 0.6]
    assert [text.get_text() for text in ax.texts] == ["0.9", "0.6"]
    assert ax.get_xlim()[0] == 0
    whiskers = ax.collections[0].get_segments()
    assert [segment[:, 0].tolist() for segment in whiskers] == [pytest.approx([0.85, 0.95]), pytest.approx([0.5, 0.7])]


def test_plot_bars_does_without_intervals_and_colours_by_a_column():
    table = SCORES.drop(columns=["ci_low", "ci_high"]).assign(kind=["recurrent", "linear"])
    ax = plot_bars(table, x="accuracy", y="model", xlabel="Accuracy", hue="kind")
    assert sorted(bar.get_width() for bar in ax.patches if bar.get_width()) == [0.6, 0.9]
    assert len({bar.get_facecolor() for bar in ax.patches if bar.get_width()}) == 2


@pytest.mark.parametrize("part", [lambda ax: ax, lambda ax: ax.figure])
def test_show_figure_displays_one_picture_with_its_text_and_closes_it(shown, part):
    ax = plot_loss(HISTORY)
    show_figure(part(ax), alt="Two falling curves.")
    assert len(shown) == 1
    assert shown[0].data.startswith(b"\x89PNG")
    assert shown[0].alt == "Two falling curves."
    assert plt.get_fignums() == []  # else a notebook shows it a second time


def test_show_figure_draws_as_many_dots_as_asked(shown):
    sizes = []
    for dpi in (50, 100):
        figure = plt.figure(figsize=(4, 2))
        show_figure(figure, alt="Nothing.", dpi=dpi)
        header = shown[-1].data[16:24]
        sizes.append((int.from_bytes(header[:4], "big"), int.from_bytes(header[4:], "big")))
    assert sizes == [(200, 100), (400, 200)]


@pytest.mark.parametrize("alt", ["", "  \n"])
def test_a_figure_without_a_text_is_refused(shown, alt):
    with pytest.raises(ValueError, match="alt is empty"):
        show_figure(plot_loss(HISTORY), alt=alt)
    assert shown == []
