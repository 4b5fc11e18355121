"""From rows of any task to a verdict: the network, alone and with features, against what is simple, on rows that none has seen.

`slm_helpers.apps.text_report` does more for classes of texts. As there, every rival learns from train alone, valid chooses, test is
read once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from slm_helpers.baselines.classification import MostFrequentLabel, TfidfMultiLabel
from slm_helpers.baselines.extractive_qa import SpanBaseline
from slm_helpers.baselines.intent_slot import LinearIntentSlotParser
from slm_helpers.baselines.nearest import NearestText
from slm_helpers.baselines.tagging import LinearTagger
from slm_helpers.baselines.translation import CopySource, PhraseLookup, build_translation_memory
from slm_helpers.data.cells import LABELS_SEPARATOR
from slm_helpers.data.checks import describe_problems
from slm_helpers.metrics.intent_slot import frame_table
from slm_helpers.metrics.intervals import bootstrap_table
from slm_helpers.metrics.multilabel import label_matrix, multilabel_table
from slm_helpers.metrics.question_answering import answer_table, exact_matches
from slm_helpers.metrics.tagging import precision_recall_f1, span_counts, tag_table
from slm_helpers.metrics.translation import score_of_counts, translation_counts, translation_table
from slm_helpers.tasks import task_class
from slm_helpers.tasks.base import Task
from slm_helpers.tasks.io import new_estimator
from slm_helpers.tasks.multilabel_classification import linear_multilabel

import numpy as np
import pandas as pd

NETWORK, NGRAMS, COMBINED = "network", "n-gram model", "network and features"


@dataclass(frozen=True)
class _Measure:
    """How rows of a task are compared.

    Attributes:
        reads: Columns that a baseline reads.
        target: From the rows to what should be predicted.
        baselines: By name, each unfitted, with `fit(*columns, targets)` and `predict(*columns)`.
        table: From targets and predictions to metric, value, ci_low, ci_high; the first metric decides.
        counts: From targets and predictions to numbers for each row, whose sums `score` makes the first metric of.
    """

    reads: tuple[str, ...]
    target: Callable[[pd.DataFrame], list]
    baselines: Callable[[], dict[str, Any]]
    table: Callable[[list, list], pd.DataFrame]
    counts: Callable[[list, list], np.ndarray]
    score: Callable[[np.ndarray], float]
    tuned: bool = False  # whether baselines choose their settings on valid, `fit(..., validation_data=)`


@dataclass
class TaskRival:
    """A model, what it predicts of valid and test, and its scores on test."""

    name: str
    predictions: dict[str, list]
    seconds: float
    estimator: Task | None = None


@dataclass
class TaskReport:
    """What came out; texts of the data stand in `rows_to_check` and `predictions` only."""

    task: str
    metric: str  # the one that decides
    rows: dict[str, int]
    warnings: list[str]
    rivals: list[TaskRival]
    chosen: TaskRival
    verdict: str
    models: pd.DataFrame  # model, metric, value, ci_low, ci_high on test; value_valid of the deciding metric, and seconds
    differences: pd.DataFrame  # model, points, ci_low, ci_high: the deciding metric of the chosen model minus each other's
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)  # of the chosen model, by name
    rows_to_check: pd.DataFrame = field(default_factory=pd.DataFrame)
    predictions: pd.DataFrame = field(default_factory=pd.DataFrame)


def report_on_task(
    task: str,
    frame: pd.DataFrame,
    *,
    base: Any = "slm-base-en",
    max_minutes: float = 10.0,
    seed: int = 42,
    say: Callable[[str], None] = lambda line: None,
) -> TaskReport:
    """Train the network of a task and its rivals, choose on valid, score on test.

    Args:
        task: One of REPORTED.
        frame: From `load_dataset`: the columns of the task and split, with rows of all three splits.
        base: Where the network starts from, for tasks that start from the base; None for random weights.
        max_minutes: For everything; a run that it cuts short is not repeatable.
        seed: Of everything that is drawn.
        say: Gets a line before each step.

    Raises:
        ValueError: If there is no report on such a task, or a split has no rows.
    """
    started = time.perf_counter()
    if task not in REPORTED:
        raise ValueError(
            f"There is no report on the task {task!r}, only on classify, {', '.join(REPORTED)}. `slm finetune {task}` trains it."
        )
    parts = {split: frame[frame["split"] == split].reset_index(drop=True) for split in ("train", "valid", "test")}
    missing = [split for split, rows in parts.items() if not len(rows)]
    if missing:
        raise ValueError(f"There are no rows of {missing[0]}. Leave the column split out: then rows are dealt 80/10/10.")
    measure = _MEASURES["recall" if task == "answer" and not frame["context"].any() else task]
    warnings = describe_problems(frame, task=task, show_texts=False)
    rivals = []
    for name, baseline in measure.baselines().items():
        say(name)
        rivals.append(_fit_baseline(name, baseline, parts, measure))
    say("the network")
    seconds = max(15.0, 0.75 * (60 * max_minutes - (time.perf_counter() - started)))
    rivals += _networks(task, frame, parts, base, seed, seconds)
    targets = {split: measure.target(rows) for split, rows in parts.items()}
    on_valid = {rival.name: measure.score(measure.counts(targets["valid"], rival.predictions["valid"]).sum(axis=0)) for rival in rivals}
    chosen = max((rival for rival in rivals if rival.estimator is not None), key=lambda rival: on_valid[rival.name])
    say("scores")
    models = pd.concat(
        [
            measure.table(targets["test"], rival.predictions["test"]).assign(
                model=rival.name, value_valid=on_valid[rival.name], seconds=rival.seconds
            )
            for rival in rivals
        ],
        ignore_index=True,
    )
    metric = models["metric"].iloc[0]
    differences = pd.DataFrame(
        [
            {"model": rival.name} | _difference(measure, targets["test"], chosen.predictions["test"], rival.predictions["test"])
            for rival in rivals
            if rival is not chosen
        ]
    )
    columns = [name for name in (*measure.reads, *_shown_targets(task)) if name in frame]
    return TaskReport(
        task=task,
        metric=metric,
        rows={split: len(rows) for split, rows in parts.items()},
        warnings=warnings,
        rivals=rivals,
        chosen=chosen,
        verdict=_verdict(chosen.name, metric, models, differences, [rival.name for rival in rivals if rival.estimator is None]),
        models=models,
        differences=differences,
        tables=chosen.estimator.evaluate_frame(parts["test"]).tables,
        rows_to_check=_contradicted(parts, targets, rivals, columns),
        predictions=parts["test"][columns].assign(prediction=_as_cells(chosen.predictions["test"])),
    )


def _fit_baseline(name: str, baseline: Any, parts: dict[str, pd.DataFrame], measure: _Measure) -> TaskRival:
    started = time.perf_counter()
    columns = {split: [_cells(rows, column) for column in measure.reads] for split, rows in parts.items()}
    valid = {"validation_data": (*columns["valid"], measure.target(parts["valid"]))} if measure.tuned else {}
    fitted = baseline.fit(*columns["train"], measure.target(parts["train"]), **valid)
    predictions = {split: list(fitted.predict(*columns[split])) for split in ("valid", "test")}
    return TaskRival(name, predictions, time.perf_counter() - started)


def _networks(task: str, frame: pd.DataFrame, parts: dict[str, pd.DataFrame], base: Any, seed: int, seconds: float) -> list[TaskRival]:
    """Return the network alone and, where the task has such a thing, combined with a linear model on features."""
    started = time.perf_counter()
    network = new_estimator(task, base=base if task_class(task).default_base else None, seed=seed).for_frame(frame)
    settings = network.get_params(deep=False)
    network.check_frame(frame)
    option = next((name for name in ("ngrams", "features") if name in settings), None)
    network.set_params(max_seconds=seconds, **({option: False} if option else {}))
    network.fit_frame(frame, keep_valid=True)
    rivals = [_predicted(NETWORK, network, parts, started)]
    if task == "multilabel":
        started = time.perf_counter()
        rivals.append(_predicted(NGRAMS, linear_multilabel(parts["train"], parts["valid"], seed=seed), parts, started))
    if option == "ngrams":
        rivals.append(_predicted(COMBINED, network.add_linear_model(frame[frame["split"] != "test"], keep_valid=True), parts, started))
    elif option == "features":
        rivals.append(_predicted(COMBINED, network.add_features(frame[frame["split"] != "test"]), parts, started))
    return rivals


def _predicted(name: str, model: Task, parts: dict[str, pd.DataFrame], started: float) -> TaskRival:
    predictions = {}
    for split in ("valid", "test"):
        rows = model.predict(parts[split]) if model.task == "command" else model.predict_rows(parts[split].to_dict("records"))
        if model.task == "command":
            predictions[split] = [(row["intent"], " ".join(row["tags"])) for row in rows]
        else:
            predictions[split] = [row["prediction"].split(" ") if model.task == "tag" else row["prediction"] for row in rows]
    return TaskRival(name, predictions, time.perf_counter() - started, model)


def _difference(measure: _Measure, targets: list, ours: list, theirs: list) -> dict[str, float]:
    """Return the deciding metric of ours minus that of theirs in points (of 100), both resampled together."""
    counts = np.concatenate([measure.counts(targets, ours), measure.counts(targets, theirs)], axis=1)
    scale = 1.0 if measure.table is translation_table else 100.0

    def score(sums: np.ndarray) -> list[float]:
        return [scale * float(np.subtract(*(measure.score(half) for half in np.split(sums, 2))))]

    row = bootstrap_table(["difference"], score, counts).iloc[0]
    return {"points": row["value"], "ci_low": row["ci_low"], "ci_high": row["ci_high"]}


def _verdict(chosen: str, metric: str, models: pd.DataFrame, differences: pd.DataFrame, simple: Sequence[str]) -> str:
    """Return one sentence: against the best of the simple rivals on test."""
    values = models[models["metric"] == metric].set_index("model")["value"]
    best = values[list(simple)].idxmax()
    row = differences.set_index("model").loc[best]
    told = f"{row['points']:+.1f} points of {metric} [{row['ci_low']:+.1f}, {row['ci_high']:+.1f}]"
    if row["ci_low"] > 0:
        return f"Use {chosen} ({metric} {values[chosen]:.3g}): against the best simple rival, {best}, {told}."
    if row["ci_high"] < 0:
        return f"Use none yet: {chosen} ({metric} {values[chosen]:.3g}) is behind {best} ({told})."
    return f"Use {chosen} ({metric} {values[chosen]:.3g}) or {best}: the difference is not clear ({told})."


def _contradicted(
    parts: dict[str, pd.DataFrame], targets: dict[str, list], rivals: Sequence[TaskRival], columns: list[str]
) -> pd.DataFrame:
    """Return rows of valid and test where the best network and a simple rival agree with each other, but not with what stands there."""
    network = next(rival for rival in reversed(rivals) if rival.estimator is not None)
    simple = [rival for rival in rivals if rival.estimator is None]
    found = []
    for split in ("valid", "test"):
        for row, target in enumerate(targets[split]):
            ours = network.predictions[split][row]
            if ours not in ("", []) and ours != target and any(rival.predictions[split][row] == ours for rival in simple):
                found.append(
                    {"row": row + 1, "split": split} | parts[split].loc[row, columns].to_dict() | {"suggested": _as_cells([ours])[0]}
                )
    return pd.DataFrame(found, columns=["row", "split", *columns, "suggested"])


def _cells(rows: pd.DataFrame, column: str) -> list:
    return [cell.split(" ") for cell in rows[column]] if column == "tokens" and "intent" not in rows else rows[column].tolist()


def _as_cells(predictions: list) -> list[str]:
    return [" | ".join(one) if isinstance(one, tuple) else " ".join(one) if isinstance(one, list) else one for one in predictions]


def _shown_targets(task: str) -> tuple[str, ...]:
    return {"multilabel": ("labels",), "tag": ("tags",), "command": ("intent", "tags"), "answer": ("answer",)}.get(task, ("target",))


def _tag_counts(targets: list, predictions: list) -> np.ndarray:
    counts = np.zeros((len(targets), 3), dtype="int64")
    found = span_counts(targets, predictions)
    np.add.at(counts, found["row"].to_numpy(dtype="int64"), found[["tp", "num_predicted", "num_gold"]].to_numpy())
    return counts


def _share(values: np.ndarray) -> np.ndarray:
    return np.column_stack([np.asarray(values, dtype="float64"), np.ones(len(values))])


def _ratio(sums: np.ndarray) -> float:
    return float(sums[0] / sums[1])


def _equal(targets: list, predictions: list) -> np.ndarray:
    return _share([float(target == prediction) for target, prediction in zip(targets, predictions, strict=True)])


def _frame_table(targets: list, predictions: list) -> pd.DataFrame:
    """Return the scores of commands, those of whole frames first."""
    table = frame_table(targets, predictions)
    return table.sort_values("metric", key=lambda names: names != "frame_accuracy", kind="stable")


def _matches(targets: list, predictions: list) -> np.ndarray:
    return _share(exact_matches(targets, predictions))


_ANSWERS = {"target": lambda rows: rows["answer"].tolist(), "table": answer_table, "counts": _matches, "score": _ratio}
_TEXTS = {
    "reads": ("source",),
    "target": lambda rows: rows["target"].tolist(),
    "table": translation_table,
    "counts": translation_counts,
    "score": score_of_counts,
}


def _label_counts(labels: list[str], predictions: list[str]) -> np.ndarray:
    """Return true positives, predicted and gold labels of each text: int64, shape (num_texts, 3)."""
    sets = [
        (set(gold.split(LABELS_SEPARATOR)) - {""}, set(given.split(LABELS_SEPARATOR)) - {""})
        for gold, given in zip(labels, predictions, strict=True)
    ]
    return np.array([(len(gold & given), len(given), len(gold)) for gold, given in sets], dtype="int64")


def _label_scores(labels: list[str], predictions: list[str]) -> pd.DataFrame:
    names = sorted({name for row in (*labels, *predictions) for name in row.split(LABELS_SEPARATOR)} - {""})
    return multilabel_table(label_matrix(labels, names), label_matrix(predictions, names))


_MEASURES = {
    "multilabel": _Measure(
        reads=("text",),
        target=lambda rows: rows["labels"].tolist(),
        baselines=lambda: {"most frequent label": MostFrequentLabel(), "TF-IDF, linear": TfidfMultiLabel()},
        table=_label_scores,
        counts=_label_counts,
        score=lambda sums: float(2 * sums[0] / max(1, sums[1] + sums[2])),
        tuned=True,
    ),
    "tag": _Measure(
        reads=("tokens",),
        target=lambda rows: _cells(rows.rename(columns={"tags": "tokens", "tokens": "words"}), "tokens"),
        baselines=lambda: {"linear tagger": LinearTagger()},
        table=tag_table,
        counts=_tag_counts,
        score=lambda sums: float(precision_recall_f1(*sums)[2]),
    ),
    "command": _Measure(
        reads=("tokens",),
        target=lambda rows: list(zip(rows["intent"], rows["tags"], strict=True)),
        baselines=lambda: {"linear models": LinearIntentSlotParser()},
        table=_frame_table,
        counts=_equal,
        score=_ratio,
    ),
    "answer": _Measure(reads=("context", "question"), baselines=lambda: {"log-linear model of spans": SpanBaseline()}, **_ANSWERS),
    "recall": _Measure(reads=("question",), baselines=lambda: {"nearest question": NearestText()}, **_ANSWERS),
    "translate": _Measure(
        baselines=lambda: {"source as it is": CopySource(), "translation memory": build_translation_memory(), "phrases": PhraseLookup()},
        **_TEXTS,
    ),
    "write": _Measure(baselines=lambda: {"nearest record": NearestText()}, **_TEXTS),
}
REPORTED = ("multilabel", "tag", "command", "answer", "translate", "write")
