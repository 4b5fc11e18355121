"""Fine-tune, evaluate and predict with any task, from files to files: what `slm finetune`, `slm evaluate` and `slm predict` do."""

import csv
import importlib
import inspect
import json
import time
from collections.abc import Sequence
from itertools import chain, islice
from pathlib import Path
from types import ModuleType
from typing import IO, Any

from slm_helpers._checks import check_choice
from slm_helpers._progress import ProgressLine
from slm_helpers.data.files import atomic_write, check_writable, file_format, read_rows
from slm_helpers.data.loading import load_dataset
from slm_helpers.data.schema import OPTIONAL, clean_row
from slm_helpers.data.splits import make_splits
from slm_helpers.models.folders import check_replaceable, read_config
from slm_helpers.tasks import TASKS, task_class
from slm_helpers.tasks.base import Evaluation, Task, metrics_of, round_to_half
from slm_helpers.training.config import TrainConfig

import pandas as pd

_CHUNK = 1024  # rows predicted together
_OUTPUTS = (".csv", ".tsv", ".jsonl")


def task_module(name: str) -> ModuleType:
    """Return the module of a task."""
    return importlib.import_module(f"slm_helpers.tasks.{TASKS[name][0]}")


def estimator_class(task: str) -> type[Task]:
    """Return the estimator of a task; for a task whose module has none yet, one around its functions."""
    check_choice(TASKS, task=task)
    module = task_module(task)
    return task_class(task) if hasattr(module, TASKS[task][1]) else _around(module, task)


def _around(module: ModuleType, word: str) -> type[Task]:
    parameters = inspect.signature(module.train).parameters

    class Around(Task):
        task = word
        columns, predict_columns = module.COLUMNS, module.PREDICT_COLUMNS
        optional = getattr(module, "OPTIONAL", {})
        predict_optional = getattr(module, "PREDICT_OPTIONAL", {})
        may_be_empty = getattr(module, "PREDICT_MAY_BE_EMPTY", ())
        limits = getattr(module, "LIMITS", Task.limits)
        no_predict = getattr(module, "NO_PREDICT", "")
        default_base = "slm-base-en" if getattr(module, "STARTS_FROM_BASE", True) else None
        base_tasks = ("lm", word) if getattr(module, "GOES_ON", False) else ("lm",)
        default_config = TrainConfig()  # the functions fill in their own

        def __init__(
            self, base=None, *, epochs=None, batch_size=None, learning_rate=None, max_seconds=None, class_weight=None, config=None, seed=42
        ):
            self.base, self.config, self.seed, self.class_weight = base, config, seed, class_weight
            self.epochs, self.batch_size, self.learning_rate, self.max_seconds = epochs, batch_size, learning_rate, max_seconds

        def check_frame(self, frame: pd.DataFrame) -> None:
            if hasattr(module, "check_rows"):
                module.check_rows(frame)

        def _train(self, frame, *, base, config, keep_valid, checkpoint_dir, callbacks):
            options = {"keep_valid": keep_valid} if "keep_valid" in parameters else {}
            return module.train(frame, base=base, config=config, **options)

        def evaluate_frame(self, frame: pd.DataFrame) -> Evaluation:
            return module.evaluate(self.saved_, frame)

        def predict_rows(self, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
            return module.predict(self.saved_, rows)

        def row_predictor(self):
            return module.Predictor(self.saved_) if hasattr(module, "Predictor") else self.predict_rows

    return Around


def finetune(
    task: str,
    *,
    train: Sequence[str],
    out: Path,
    base: Any,
    valid: str | None = None,
    test: str | None = None,
    columns: dict[str, str] | None = None,
    encoding: str = "utf-8",
    seed: int = 42,
    changes: dict[str, Any] | None = None,
    ngrams: bool = True,
) -> dict[str, Any]:
    """Fine-tune on files or named sets and write a model folder with its scores.

    Args:
        task: One of TASKS.
        train: Paths or names of sets. Without `valid` and `test`, a file's column `split` is used, or its rows are dealt 80/10/10.
        out: The model folder; an older one there is replaced.
        base: A language model to start from, or None for random weights.
        valid: Rows that choose the epoch; a tenth of train unless given.
        test: Rows that are scored at the end.
        columns: Names that the files use for the task's columns.
        encoding: Of the files.
        seed: Of splits, order and weights.
        changes: Settings of `TrainConfig` other than the task's own.
        ngrams: Put a linear model on n-grams beside the network, where the task knows how to; else the network has to do alone.

    Returns:
        task, model, rows (of train), seconds (of training), split, metrics: what `slm finetune --json` prints.
    """
    kind = estimator_class(task)
    names = kind().get_params(deep=False)
    changes = dict(changes or {})
    if changes.pop("balanced", False):
        changes["class_weight"] = "balanced"
    if not ngrams:
        if "ngrams" not in names:
            raise ValueError(f"The task {task} has no n-grams beside its network; leave --no-ngrams out.")
        changes["ngrams"] = False
    if "class_weight" in changes and ("class_weight" not in names or task in ("lm", "translate")):
        raise ValueError(f"The task {task} has no setting balanced; leave --balanced out.")
    if base is not None and "base" not in names:
        raise ValueError(f"The task {task} starts from random weights: leave the base out (--base none).")
    if "base" in names:
        changes["base"] = base
    estimator = kind(seed=seed, **changes)
    estimator.training_config()  # raises for settings that cannot be
    check_replaceable(out)
    check_writable(out.parent)
    frame = load_parts(task, train=train, valid=valid, test=test, columns=columns, encoding=encoding, seed=seed)
    estimator = estimator.for_frame(frame)
    estimator.check_frame(frame)  # before the time of training is spent, and of test too
    split = "test" if (frame["split"] == "test").any() else "valid"
    started = time.perf_counter()
    estimator.fit_frame(frame, keep_valid=split == "valid")  # what was learned from cannot be scored
    seconds = time.perf_counter() - started
    round_to_half(estimator.saved_)  # published in half precision, so that is what is scored
    held_out = frame[frame["split"] == split]
    if len(held_out):
        estimator.evaluation_ = estimator.evaluate_frame(held_out)
    estimator.saved_.settings["columns"] = columns or {}
    estimator.save(out, weights_dtype="float16", sources=train)
    metrics = metrics_of(estimator.evaluation_) if len(held_out) else {}
    num_rows = int((frame["split"] == "train").sum())
    return {"task": task, "model": str(out), "rows": num_rows, "seconds": round(seconds, 2), "split": split, "metrics": metrics}


def evaluate(folder: str | Path, test: str, *, columns: dict[str, str] | None = None, encoding: str = "utf-8") -> dict[str, Any]:
    """Score a model folder on a file or the test part of a named set: what `slm evaluate --json` prints, tables as lists of rows."""
    estimator = _open(folder)
    task = estimator.task
    frame = load_dataset(test, task=task, split="test", encoding=encoding, **_for_task(task, columns))
    frame = _with_columns(frame, task, test)
    started = time.perf_counter()
    try:
        scores = estimator.evaluate_frame(frame)
    except ValueError as error:
        raise ValueError(f"{test}, {error}") from error
    result = {"task": task, "model": str(folder), "rows": scores.rows, "seconds": round(time.perf_counter() - started, 2)}
    result["metrics"] = metrics_of(scores)
    return result | {name: json.loads(table.to_json(orient="records")) for name, table in scores.tables.items()}


def predict(
    folder: str | Path,
    source: str | Path,
    target: str | Path,
    *,
    columns: dict[str, str] | None = None,
    encoding: str = "utf-8",
    keep_bad: bool = False,
) -> dict[str, Any]:
    """Add a prediction and its confidence to each row of a file, in constant memory; `target` is written only if all goes well.

    Args:
        folder: A model folder.
        source: The rows: .csv, .tsv, .jsonl, .txt, .parquet or CoNLL.
        target: Where to: .csv, .tsv or .jsonl.
        columns: Names that the file uses for the task's columns.
        encoding: Of the source; the target is UTF-8.
        keep_bad: Leave the prediction of a row without a value empty; else such a row is an error.

    Returns:
        task, model, rows, left_empty, seconds, rows_per_second.
    """
    estimator = _open(folder)
    task = estimator.task
    if estimator.no_predict:
        raise ValueError(f"{folder} holds a model for the task {task}. {estimator.no_predict.format(folder=folder)}")
    ending = Path(target).suffix.lower()
    if ending not in _OUTPUTS:
        raise ValueError(f"{target}: predictions are written to a file with one of the endings {', '.join(_OUTPUTS)}.")
    file_format(source)
    rows = read_rows(source, encoding=encoding)
    first = next(rows)
    wanted = {name: name for name in estimator.predict_columns} | _for_task(task, columns, names=estimator.predict_columns)
    optional = OPTIONAL | estimator.predict_optional
    absent = {ours: optional[ours] for ours in optional if wanted.get(ours) == ours and ours not in first}
    wanted = {ours: theirs for ours, theirs in wanted.items() if ours not in absent}
    missing = [theirs for theirs in wanted.values() if theirs not in first]
    if missing:
        ours = next(name for name, theirs in wanted.items() if theirs == missing[0])
        raise ValueError(
            f"{source}: there is no column {missing[0]!r}, which a model for the task {task} reads. It has: {', '.join(first)}. "
            f"Say which one holds it, e.g. --{ours} {next(iter(first))}, or take a model for another task."
        )
    taken = [name for name in ("prediction", "confidence") if name in first]
    if taken:
        raise ValueError(f"{source} has a column {taken[0]!r} already, which the result would overwrite. Rename it.")
    started, num_rows, num_empty = time.perf_counter(), 0, 0
    rows = chain([first], rows)
    predict_rows = estimator.row_predictor()
    with atomic_write(target) as file, ProgressLine() as line:
        write = _writer(file, ending, [*first, "prediction", "confidence"], target)
        while chunk := list(islice(rows, _CHUNK)):
            cleaned = []
            for row in chunk:
                clean, problem = clean_row(row, wanted, may_be_empty=estimator.may_be_empty)
                if problem and not keep_bad:
                    raise ValueError(
                        f"{problem['where']}, column {problem['column']!r}: {problem['reason']}. Fill it in, or leave such rows "
                        "without a prediction by --keep-bad."
                    )
                cleaned.append(None if problem else clean | absent | {"where": row.where})
            found = iter(predict_rows([row for row in cleaned if row is not None]) if any(cleaned) else [])
            for row, clean in zip(chunk, cleaned, strict=True):
                write(row | (next(found) if clean is not None else {"prediction": "", "confidence": ""}))
                num_empty += clean is None
            num_rows += len(chunk)
            line.update(f"{num_rows:,} rows, {num_rows / (time.perf_counter() - started):,.0f} a second")
    seconds = time.perf_counter() - started
    result = {"task": task, "model": str(folder), "rows": num_rows, "left_empty": num_empty, "seconds": round(seconds, 2)}
    return result | {"rows_per_second": round(num_rows / seconds, 1)}


def load_parts(
    task: str,
    *,
    train: Sequence[str],
    valid: str | None = None,
    test: str | None = None,
    columns: dict[str, str] | None = None,
    encoding: str = "utf-8",
    seed: int = 42,
) -> pd.DataFrame:
    """Return the rows of all files or sets with a column `split`; without `valid`, a tenth of train (2,000 rows at most) becomes it."""
    options: dict[str, Any] = _for_task(task, columns) | {"encoding": encoding, "task": task}
    alone = valid is None and test is None
    parts = [load_dataset(name, **options, seed=seed, **({} if alone else {"split": "train"})) for name in train]
    parts += [load_dataset(name, **options, split=split) for split, name in (("valid", valid), ("test", test)) if name is not None]
    frame = pd.concat(parts, ignore_index=True)
    if valid is None and test is not None:
        rows = frame["split"] == "train"
        if rows.sum() < 10:
            raise ValueError(f"{train[0]}: {rows.sum()} rows are too few to keep some for validation. Give ten at least, or --valid.")
        keys = (
            frame.loc[rows]
            .drop(columns=["split", *[name for name in ("label", "tags", "intent") if name in frame]])
            .astype(str)
            .agg(" ".join, axis=1)
        )
        share = min(0.1, 2000 / rows.sum())
        if "student" in frame:  # whole learners, or valid would know what train is to learn
            keys, share = frame.loc[rows, "student"], 0.1
        labels = next((frame.loc[rows, name] for name in ("label", "intent") if name in frame), None)
        frame.loc[rows, "split"] = make_splits(keys, shares=(1 - share, share, 0.0), labels=labels, exact="student" in frame, seed=seed)
    return _with_columns(frame, task, train[0])


def _open(folder: str | Path) -> Task:
    task = read_config(Path(folder))["task"]
    if task not in TASKS:
        raise ValueError(
            f"{folder} holds a model for the task {task!r}, but one of {', '.join(TASKS)} is needed. Make one by slm finetune."
        )
    return estimator_class(task).load(folder)


def _with_columns(frame: pd.DataFrame, task: str, source: str) -> pd.DataFrame:
    """Return rows that were read from `source` with all columns that the task learns from; raise if one is missing that it needs."""
    kind = estimator_class(task)
    missing = [name for name in kind.columns if name not in frame and name not in OPTIONAL]
    filled = {name: value for name, value in kind.optional.items() if name in missing}
    missing = [name for name in missing if name not in filled]
    if missing:
        raise ValueError(
            f"{source}: the task {task} needs the columns {', '.join(kind.columns)}, but {missing[0]} is missing. "
            f"Say which column holds it, e.g. --{missing[0].replace('_', '-')} NAME."
        )
    return frame.assign(**filled)


def _for_task(task: str, columns: dict[str, str] | None, *, names: Sequence[str] | None = None) -> dict[str, str]:
    """Return the column names that concern the task; refuse others, which would be a mistake."""
    needed = estimator_class(task).columns
    foreign = [name for name in columns or {} if name not in needed]
    if foreign:
        raise ValueError(f"--{foreign[0]} names a column that the task {task} does not use; its columns are {', '.join(needed)}.")
    return {ours: theirs for ours, theirs in (columns or {}).items() if names is None or ours in names}


def _writer(file: IO[str], ending: str, names: list[str], target: str | Path):
    """Return a function that writes one row."""
    if ending == ".jsonl":
        return lambda row: file.write(json.dumps(row, ensure_ascii=False, default=str) + "\n")
    if ending == ".csv":
        writer = csv.DictWriter(file, names, lineterminator="\n", extrasaction="ignore")
        writer.writeheader()
        return writer.writerow
    file.write("\t".join(names) + "\n")

    def write(row: dict[str, Any]) -> None:
        cells = ["" if row.get(name) is None else str(row[name]) for name in names]
        if any(sign in cell for cell in cells for sign in "\t\n\r"):
            raise ValueError(f"{target}: a cell holds a tab or a line end, which a .tsv cannot carry. Write a .csv or .jsonl instead.")
        file.write("\t".join(cells) + "\n")

    return write
