"""The tables of measured figures in data/results: one CSV a subject, long form, read by pages and README."""

import datetime
from pathlib import Path
from typing import Any

from slm_helpers._paths import RESULTS_DIR, check_checkout
from slm_helpers._processor import describe_machine
from slm_helpers.data.files import atomic_write

import pandas as pd

PUBLISHED = RESULTS_DIR / "published.csv"  # figures of others, with their sources

COLUMNS = (
    "task",
    "dataset",
    "split",
    "model",
    "metric",
    "value",
    "ci_low",
    "ci_high",
    "seed",
    "train_rows",
    "train_seconds",
    "num_parameters",
    "size_bytes",
    "machine",
    "date",
)


KEY = ["task", "dataset", "split", "model", "metric", "seed"]


# Columns of what `compare_on` returns.
COMPARED = [
    *("dataset", "metric", "model", "seeds", "value", "ci_low", "ci_high", "baseline", "baseline_value"),
    *("aim", "published", "published_model", "train_rows", "train_seconds"),
]


def read_results(name: str, *, folder: Path | None = None) -> pd.DataFrame:
    """Return data/results/<name>.csv; an empty table with COLUMNS if there is none yet."""
    path = Path(folder or RESULTS_DIR) / f"{name}.csv"
    return pd.read_csv(path) if path.exists() else pd.DataFrame(columns=list(COLUMNS))


def compare_on(metrics: dict[str, str], *, results: str = "public", base: str = "slm-") -> pd.DataFrame:
    """Return how well trained models do on public sets beside the baselines and a published figure, from a table of results.

    Args:
        metrics: The metric to compare by for each set; sets that are not in the table yet are left out.
        results: Name of the table.
        base: How the names of the trained models begin; all others are baselines.

    Returns:
        One row a set and trained model: dataset, metric, model, seeds, value with ci_low and ci_high (of the run in the middle), the best
        baseline and its value, what this project aims at, published and published_model (where known; their sources stand in
        data/results/published.csv), train_rows and train_seconds.
    """
    table = read_results(results)
    published = pd.read_csv(check_checkout(PUBLISHED.parent) / PUBLISHED.name).set_index(["dataset", "metric"])
    rows = []
    for dataset, metric in metrics.items():
        found = table[(table["dataset"] == dataset) & (table["metric"] == metric)].sort_values("value")
        ours = found["model"].astype(str).str.startswith(base)
        for model, runs in found[ours].groupby("model"):
            middle = runs.iloc[(len(runs) - 1) // 2]
            row = {"dataset": dataset, "metric": metric, "model": model, "seeds": len(runs)}
            row |= middle[["value", "ci_low", "ci_high", "train_rows", "train_seconds"]].to_dict()
            if not ours.all():
                row |= {"baseline": found[~ours]["model"].iloc[-1], "baseline_value": found[~ours]["value"].iloc[-1]}
            if (dataset, metric) in published.index:
                row |= published.loc[(dataset, metric), ["aim", "published", "published_model"]].to_dict()
            rows.append(row)
    numbers = ["value", "ci_low", "ci_high", "baseline_value", "aim", "published", "train_seconds"]  # of an empty table too
    return pd.DataFrame(rows, columns=COMPARED).astype(dict.fromkeys(numbers, "float64"))


def missed_aims(compared: pd.DataFrame) -> pd.DataFrame:
    """Return the sets of a table of `compare_on` on which the best trained model stays below the aim or the baseline.

    Returns:
        One row a set and metric: dataset, metric, model, value, baseline_value, aim, and short_by, what is missing to the higher of
        the two; empty if nothing is missed.
    """
    best = compared.sort_values("value").groupby(["dataset", "metric"], sort=False).tail(1)
    best = best.assign(short_by=best[["baseline_value", "aim"]].max(axis=1) - best["value"])
    missed = best.loc[best["short_by"] > 0, ["dataset", "metric", "model", "value", "baseline_value", "aim", "short_by"]]
    return missed.reset_index(drop=True)


def write_results(name: str, rows: list[dict[str, Any]], *, folder: Path | None = None) -> Path:
    """Add rows to data/results/<name>.csv; a row with the same KEY takes the place of the older one.

    Each row needs task, dataset, split, model, metric and value; what else it leaves out stays empty, machine and date are added.
    """
    for row in rows:
        missing, unknown = {*KEY[:-1], "value"} - set(row), set(row) - set(COLUMNS)
        if missing or unknown:
            raise ValueError(f"A row of results lacks {sorted(missing)} or has unknown columns {sorted(unknown)}: {row}.")
    new = pd.DataFrame([{"machine": describe_machine(), "date": datetime.date.today().isoformat()} | row for row in rows])
    parts = [part for part in (read_results(name, folder=folder), new.reindex(columns=list(COLUMNS))) if len(part)]
    table = pd.concat(parts, ignore_index=True)
    # Read back and compared as text: 1 and 1.0 and "1" are one seed.
    keys = table[KEY].astype("string").fillna("").apply(lambda column: column.str.removesuffix(".0"))
    table = table[~keys.duplicated(keep="last")]
    folder = Path(folder or RESULTS_DIR)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.csv"
    with atomic_write(path) as file:
        table.to_csv(file, index=False, float_format="%.6g")
    return path
