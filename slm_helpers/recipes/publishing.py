"""What the recipes share: the table of public results, model cards and folders, the command line."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from slm_helpers._backend import keras
from slm_helpers._paths import PRETRAINED_DIR
from slm_helpers._processor import describe_machine
from slm_helpers.data.results import read_results, write_results
from slm_helpers.models.saved import SavedModel, save_model

import numpy as np
import pandas as pd


def known_models(dataset: str) -> set[tuple[str, str]]:
    """Return the models of a set that stand in the table of public results, each with its seed."""
    table = read_results("public")
    return {(row.model, str(row.seed).removesuffix(".0")) for row in table[table["dataset"] == dataset].itertuples()}


def keep_scores(scores: pd.DataFrame, about: dict[str, Any]) -> None:
    """Write scores (metric, value and, where known, ci_low and ci_high) to the table of public results, and print them in a line."""
    rows = scores.to_dict("records")
    write_results("public", [about | {name: value for name, value in row.items() if value == value} for row in rows])
    line = ", ".join(f"{row['metric']} {row['value']:.3f}" for row in rows)
    print(f"{about['dataset']:<22} {about['model']:<30} seed {about['seed']}  {line}  {about['train_seconds']:.0f} s", flush=True)


def size_of(saved: SavedModel) -> dict[str, int]:
    """Return num_parameters and size_bytes of a model for a table of results; the size as folders are written, in float16."""
    size = 2 * sum(int(np.prod(weight.shape)) for weight in saved.model.weights)
    return {"num_parameters": saved.model.count_params(), "size_bytes": size}


def model_card(
    name: str,
    summary: str,
    *,
    network: str,
    data: str,
    training: str,
    seconds: float,
    scored: str,
    metrics: dict[str, dict[str, float]],
    limits: str,
    digits: int = 3,
) -> str:
    """Return a model card in Markdown.

    Args:
        name: Of the model.
        summary: What it does and how to call it.
        network: Its layers and size.
        data: What it learned from, and the licences.
        training: Passes, settings and the command to do it again.
        seconds: Time of the training, on this machine.
        scored: What the scores are of.
        metrics: By name, each with value, ci_low and ci_high.
        limits: What not to rely on.
        digits: Of the scores.
    """
    rows = [
        f"| {metric} | {v['value']:.{digits}f} | {v['ci_low']:.{digits}f} to {v['ci_high']:.{digits}f} |" for metric, v in metrics.items()
    ]
    points = {"Network": network, "Data": data, "Training": training}
    points["Cost"] = f"{seconds / 60:.0f} minutes ({describe_machine()}), Keras {keras.__version__}."
    return "\n".join(
        [
            f"# {name}", summary.strip(), "", *(f"- **{title}.** {text.strip()}" for title, text in points.items()), "",
            "## Scores", scored.strip(), "", "| metric | value | 95 % interval |", "| --- | --- | --- |", *rows, "",
            "## Limits", limits.strip(), "",
        ]
    )  # fmt: skip


def publish_model(
    saved: SavedModel,
    name: str,
    *,
    out: Path | None,
    seconds: float,
    metrics: dict[str, dict[str, float]],
    history: pd.DataFrame,
    card: str,
    settings: dict[str, Any] | None = None,
) -> Path:
    """Write the folder of a trained model in half precision, into data/pretrained/`name` unless `out` is given; returns it."""
    return save_model(
        out or PRETRAINED_DIR / name,
        saved.model,
        tokenizer=saved.tokenizer,
        task=saved.task,
        labels=saved.labels,
        settings=saved.settings | (settings or {}) | {"train_seconds": round(seconds, 1)},
        metrics=metrics,
        history=history,
        card=card,
        weights_dtype="float16",
    )


def recipe_parser(module: str, doc: str, name: str) -> argparse.ArgumentParser:
    """Return the parser of a recipe's command line, with --out."""
    parser = argparse.ArgumentParser(prog=f"python -m slm_helpers.recipes.{module}", description=doc.splitlines()[0])
    parser.add_argument("--out", type=Path, help=f"the model folder (default data/pretrained/{name})")
    return parser


def run_recipe(publish: Callable[[Path | None], Path], arguments: list[str] | None, *, module: str, doc: str, name: str) -> None:
    """Run the command line of a recipe that takes --out only."""
    print(f"Written: {publish(recipe_parser(module, doc, name).parse_args(arguments).out)}")
