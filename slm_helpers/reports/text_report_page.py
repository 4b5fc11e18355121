"""The files of a text report: report.html, report.md, report.json, model/, predictions.csv, mistakes.csv and rows_to_check.csv."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from slm_helpers.apps.text_report import TARGET_ACCURACY, TextReport
from slm_helpers.data.files import atomic_write
from slm_helpers.plots import plot_bars
from slm_helpers.reports.parts import interval_text, markdown_cell, markdown_table, model_bytes, picture, rounded, short_label, write_page

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns

_MOST_CLASSES = 40  # in tables and pictures of the page; report.json has all
_LEAST_ANSWERED = 0.01  # of the texts: a smaller share is no help
_SHOWN_ROWS = 20  # to check, where rows are shown


def write_report(report: TextReport, out: str | Path, *, file: str, show_rows: bool = False) -> dict[str, Any]:
    """Write all files of a report.

    Args:
        report: From `report_on_texts`.
        out: The folder; it is made, and files of an earlier report in it are replaced.
        file: What the data are called.
        show_rows: Show texts of the data on the page. The three .csv files hold some in any case.

    Returns:
        What report.json holds.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    report.chosen.estimator.save(out / "model", weights_dtype="float16", sources=[file])
    for name in ("predictions", "mistakes", "rows_to_check"):
        with atomic_write(out / f"{name}.csv") as stream:
            getattr(report, name).to_csv(stream, index=False)
    found = _as_json(report, file, model_bytes(out / "model"))
    text = _as_markdown(report, found, show_rows)
    pictures = {
        "Models on unseen texts": lambda: _draw_models(report),
        "Mistakes": lambda: _draw_confusion(report),
        "How sure, and when to ask a person": lambda: _draw_abstention(report),
        "What more labels would buy": lambda: _draw_curve(report),
    }
    write_page(out, title=f"Report on {file}", text=text, found=found, pictures=pictures)
    return found


def _as_json(report: TextReport, file: str, size: int) -> dict[str, Any]:
    models = []
    for name, rows in report.models.groupby("model", sort=False):
        metrics = {row.metric: {"value": row.value, "ci_low": row.ci_low, "ci_high": row.ci_high} for row in rows.itertuples()}
        about = {"accuracy_valid": rows["accuracy_valid"].iloc[0], "seconds": rows["seconds"].iloc[0]}
        models.append({"name": name, "metrics": metrics} | about | ({"bytes": size} if name == report.chosen.name else {}))
    value = {
        "task": "classify",
        "data": {"file": file, "rows": report.rows, "classes": len(report.labels)},
        "chosen": report.chosen.name,
        "verdict": report.verdict,
        "models": models,
        "differences": report.differences.to_dict("records"),
        "classes": report.classes.to_dict("records"),
        "abstention": report.advice,
        "calibration_error": report.calibration_error,
        "ordinal_error": report.ordinal_error,
        "learning_curve": report.curve.to_dict("records"),
        "points_from_twice_the_rows": report.twice,
        "rows_to_check": len(report.rows_to_check),
        "warnings": report.warnings,
        "files": {name: name for name in ("report.html", "report.md", "model", "predictions.csv", "mistakes.csv", "rows_to_check.csv")},
    }
    return rounded(value)


def _as_markdown(report: TextReport, found: dict[str, Any], show_rows: bool) -> str:
    advice, chosen = report.advice, report.chosen.name
    models = pd.DataFrame(
        [
            {
                "model": one["name"] + (" (chosen)" if one["name"] == chosen else ""),
                **{name: interval_text(values) for name, values in one["metrics"].items()},
                "accuracy on valid": f"{one['accuracy_valid']:.3f}",
                "seconds": f"{one['seconds']:.1f}",
            }
            for one in found["models"]
        ]
    )
    differences = report.differences.assign(
        difference=[f"{row.points:+.1f} [{row.ci_low:+.1f}, {row.ci_high:+.1f}]" for row in report.differences.itertuples()]
    )
    num = {split: f"{count:,} {split}" for split, count in report.rows.items()}
    if advice["answered"] >= _LEAST_ANSWERED:
        told = (
            f"Answering only from a confidence of {advice['threshold']:.2f} on, which valid chose for {TARGET_ACCURACY:.0%} accuracy, it "
            f"answers {advice['answered']:.0%} of the test texts with {advice['accuracy']:.0%} accuracy and hands "
            f"{advice['handed_over']:,} to a person."
        )
    else:
        told = f"No useful share of the texts is answered with {TARGET_ACCURACY:.0%} accuracy: a person should look at all of them."
    if report.twice > 0.05:
        twice = f"If the curve goes on, twice the rows add {report.twice:.1f} points."
    else:
        twice = "The curve does not say that more rows would help."
    check = f"Models that have not seen them doubt the labels of {len(report.rows_to_check):,} rows: rows_to_check.csv, best founded first."
    if show_rows and len(report.rows_to_check):
        shown = report.rows_to_check.head(_SHOWN_ROWS).assign(text=lambda t: t["text"].str.slice(0, 160))
        check += "\n\n" + markdown_table(shown[["row", "label", "suggested", "text"]])
    mistakes = f"The {len(report.mistakes)} surest mistakes, each with the words that count for its prediction, stand in mistakes.csv."
    if not len(report.mistakes):
        mistakes = "There is no mistake on test."
    elif show_rows:
        shown = report.mistakes.head(_SHOWN_ROWS).assign(text=lambda t: t["text"].str.slice(0, 160))
        mistakes += "\n\n" + markdown_table(shown)
    ordinal = "" if math.isnan(report.ordinal_error) else f"\n\nLabels are numbers; the mean distance is {report.ordinal_error:.2f}."
    return f"""# Report on {markdown_cell(found["data"]["file"])}

**{report.verdict}**

`slm predict --model {"model"} --input new.csv --output predicted.csv` predicts with the chosen model, from this folder.

## The data

{", ".join(num.values())} rows, {len(report.labels)} classes. Every model learned from train; valid chose settings, and between models;
test was read once.

{chr(10).join(f"- {markdown_cell(line)}" for line in report.warnings) or "Nothing odd was found."}

## Models on unseen texts

{markdown_table(models)}

Intervals: 95 %, bootstrap over test rows. The weights that combine network and n-grams were fitted on valid, so its accuracy there is
flattered. The accuracy of {chosen} minus that of the others, in points, paired:

{markdown_table(differences[["model", "difference"]])}{ordinal}

## Classes

{markdown_table(report.classes.head(_MOST_CLASSES).round(3))}

## Mistakes

{markdown_table(_worst(report.confusion))}

{mistakes}

Accuracy by length of the text, in words:

{markdown_table(report.by_length.round(3))}

## How sure, and when to ask a person

{told} The confidence is off by {report.calibration_error:.3f} on average (expected calibration error).

## What more labels would buy

The linear model learned from parts of train. {twice}

## Labels to check

{check}

## Words that count

In a linear model of words alone, these speak most for each class.

{markdown_table(report.words.head(_MOST_CLASSES))}
"""


def _worst(confusion: pd.DataFrame) -> pd.DataFrame:
    wrong = confusion[confusion["label"] != confusion["prediction"]].sort_values("rows", ascending=False, kind="stable")
    return wrong.head(10) if len(wrong) else pd.DataFrame({"mistakes": ["none on test"]})


def _draw_models(report: TextReport) -> str:
    table = report.models[report.models["metric"] == "accuracy"]
    ax = plot_bars(table, x="value", y="model", xlabel="Accuracy on test, 95 % intervals")
    alt = "; ".join(f"{row.model}: accuracy {row.value:.2f} [{row.ci_low:.2f}, {row.ci_high:.2f}]" for row in table.itertuples())
    return picture(ax, alt)


def _draw_confusion(report: TextReport) -> str:
    if len(report.labels) > 20:
        return ""
    pairs = zip(report.confusion["label"], report.confusion["prediction"], strict=True)
    counts = report.confusion.set_axis(pd.MultiIndex.from_tuples(pairs))["rows"].unstack()  # noqa: PD010 - every pair stands there once
    counts = counts.reindex(index=report.labels, columns=report.labels)
    size = 2.5 + 0.45 * len(counts)
    _, ax = plt.subplots(figsize=(size + 1, size), layout="constrained")
    names = [short_label(label) for label in report.labels]
    sns.heatmap(counts.fillna(0).astype(int), annot=True, fmt="d", cmap="Blues", cbar=False, ax=ax, xticklabels=names, yticklabels=names)
    ax.set(xlabel="Predicted", ylabel="Label")
    ax.tick_params(axis="y", rotation=0)
    ax.tick_params(axis="x", rotation=0 if max(map(len, names)) * len(names) < 60 else 90)
    return picture(ax, "How often each label got each prediction on test; the table of mistakes has the largest numbers off the diagonal.")


def _draw_abstention(report: TextReport) -> str:
    _, ax = plt.subplots(figsize=(6.5, 3.4), layout="constrained")
    sns.lineplot(report.abstention, x="answered", y="accuracy", marker="o", ax=ax)
    ax.axhline(TARGET_ACCURACY, color="gray", linestyle=":")
    ax.set(xlabel="Share of texts that are answered, the surest first", ylabel="Accuracy of those", ylim=(None, 1.02))
    ends = report.abstention.iloc[[0, -1]]
    return picture(ax, f"Accuracy is {ends['accuracy'].iloc[0]:.2f} on the surest tenth and {ends['accuracy'].iloc[1]:.2f} on all texts.")


def _draw_curve(report: TextReport) -> str:
    _, ax = plt.subplots(figsize=(6.5, 3.4), layout="constrained")
    sns.lineplot(report.curve, x="rows", y="accuracy", marker="o", errorbar="sd", ax=ax)
    ax.set(xlabel="Rows of train (log scale)", ylabel="Accuracy on test", xscale="log")
    ax.set_xticks(sorted(set(report.curve["rows"])), [f"{rows:,}" for rows in sorted(set(report.curve["rows"]))])
    ax.minorticks_off()
    means = report.curve.groupby("rows")["accuracy"].mean()
    return picture(ax, "; ".join(f"{rows:,} rows: {value:.2f}" for rows, value in means.items()))
