"""The files of a report on any task but classes: report.html, report.md, report.json, model/, predictions.csv, rows_to_check.csv."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from slm_helpers.apps.task_report import TaskReport
from slm_helpers.data.files import atomic_write
from slm_helpers.plots import plot_bars
from slm_helpers.reports.parts import interval_text, markdown_cell, markdown_table, model_bytes, picture, rounded, write_page

import pandas as pd

_MOST_ROWS = 40  # of a table on the page; report.json has all
_SHOWN_ROWS = 20  # to check, where rows are shown


def write_task_report(report: TaskReport, out: str | Path, *, file: str, show_rows: bool = False) -> dict[str, Any]:
    """Write all files of a report.

    Args:
        report: From `report_on_task`.
        out: The folder; it is made, and files of an earlier report in it are replaced.
        file: What the data are called.
        show_rows: Show texts of the data on the page. rows_to_check.csv and predictions.csv hold some in any case.

    Returns:
        What report.json holds.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    report.chosen.estimator.save(out / "model", weights_dtype="float16", sources=[file])
    for name in ("predictions", "rows_to_check"):
        with atomic_write(out / f"{name}.csv") as stream:
            getattr(report, name).to_csv(stream, index=False)
    found = _as_json(report, file, model_bytes(out / "model"))
    text = _as_markdown(report, found, show_rows)
    write_page(out, title=f"Report on {file}", text=text, found=found, pictures={"Models on unseen rows": lambda: _draw_models(report)})
    return found


def _as_json(report: TaskReport, file: str, size: int) -> dict[str, Any]:
    models = []
    for name, rows in report.models.groupby("model", sort=False):
        metrics = {row.metric: {"value": row.value, "ci_low": row.ci_low, "ci_high": row.ci_high} for row in rows.itertuples()}
        about = {f"{report.metric}_valid": rows["value_valid"].iloc[0], "seconds": rows["seconds"].iloc[0]}
        models.append({"name": name, "metrics": metrics} | about | ({"bytes": size} if name == report.chosen.name else {}))
    return rounded(
        {
            "task": report.task,
            "data": {"file": file, "rows": report.rows},
            "chosen": report.chosen.name,
            "verdict": report.verdict,
            "models": models,
            "differences": report.differences.to_dict("records"),
            "tables": {name: table.to_dict("records") for name, table in report.tables.items()},
            "rows_to_check": len(report.rows_to_check),
            "warnings": report.warnings,
            "files": {name: name for name in ("report.html", "report.md", "model", "predictions.csv", "rows_to_check.csv")},
        }
    )


def _as_markdown(report: TaskReport, found: dict[str, Any], show_rows: bool) -> str:
    chosen = report.chosen.name
    models = pd.DataFrame(
        [
            {"model": one["name"] + (" (chosen)" if one["name"] == chosen else "")}
            | {name: interval_text(values) for name, values in one["metrics"].items()}
            | {f"{report.metric} on valid": f"{one[f'{report.metric}_valid']:.3f}", "seconds": f"{one['seconds']:.1f}"}
            for one in found["models"]
        ]
    ).fillna("")
    differences = report.differences.assign(
        difference=[f"{row.points:+.1f} [{row.ci_low:+.1f}, {row.ci_high:+.1f}]" for row in report.differences.itertuples()]
    )
    check = f"In {len(report.rows_to_check):,} rows of valid and test two models of different kinds agree with each other and not with "
    check += "what stands there: rows_to_check.csv."
    if show_rows and len(report.rows_to_check):
        check += "\n\n" + markdown_table(report.rows_to_check.head(_SHOWN_ROWS).astype(str).apply(lambda column: column.str.slice(0, 160)))
    tables = "".join(
        f"\n\n## {name.capitalize()}\n\n{markdown_table(table.head(_MOST_ROWS).round(3))}"
        for name, table in report.tables.items()
        if len(table)
    )
    return f"""# Report on {markdown_cell(found["data"]["file"])}

**{report.verdict}**

`slm predict --model model --input new.csv --output predicted.csv` predicts with the chosen model, from this folder.

## The data

{", ".join(f"{count:,} {split}" for split, count in report.rows.items())} rows for the task {report.task}. Every model learned from train;
valid chose settings, and between the networks; test was read once.

{chr(10).join(f"- {markdown_cell(line)}" for line in report.warnings) or "Nothing odd was found."}

## Models on unseen rows

{markdown_table(models)}

Intervals: 95 %, bootstrap over test rows. {markdown_cell(report.metric)} of {chosen} minus that of the others, in points, paired:

{markdown_table(differences[["model", "difference"]])}{tables}

## Rows to check

{check}
"""


def _draw_models(report: TaskReport) -> str:
    table = report.models[report.models["metric"] == report.metric]
    ax = plot_bars(table, x="value", y="model", xlabel=f"{report.metric} on test, 95 % intervals")
    alt = "; ".join(f"{row.model}: {row.value:.3g} [{row.ci_low:.3g}, {row.ci_high:.3g}]" for row in table.itertuples())
    return picture(ax, f"{report.metric}: {alt}")
