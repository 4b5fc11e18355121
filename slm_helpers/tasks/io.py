"""Fine-tune, evaluate and predict with any task, from files to files: what `slm finetune`, `slm evaluate` and `slm predict` do."""

import csv
import importlib
import inspect
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from types import ModuleType
from typing import IO, Any

from slm_helpers._backend import keras
from slm_helpers._checks import check_choice
from slm_helpers._processor import describe_machine
from slm_helpers._progress import ProgressLine
from slm_helpers.data.files import atomic_write, check_writable, file_format, read_rows
from slm_helpers.data.loading import load_dataset
from slm_helpers.data.schema import OPTIONAL, SPLITS, clean_row
from slm_helpers.data.splits import make_splits
from slm_helpers.models.saved import SavedModel, check_replaceable, load_model, read_config, save_model
from slm_helpers.tasks.base import Evaluation

import numpy as np
import pandas as pd

TASKS = ("classify", "tag", "answer", "ask", "translate", "write", "trace", "command", "listen", "lm")
_MODULES = dict(
    zip(
        TASKS,
        ("text_classification", "token_classification", "extractive_qa", "question_generation", "translation", "data_to_text",
         "knowledge_tracing", "intent_slot", "keyword_spotting", "language_modelling"),
        strict=True,
    )
)  # fmt: skip
_CHUNK = 1024  # rows predicted together
_OUTPUTS = (".csv", ".tsv", ".jsonl")


def task_module(name: str) -> ModuleType:
    """Return the module of a task; see `slm_helpers.tasks` for what it holds."""
    check_choice(TASKS, task=name)
    return importlib.import_module(f"slm_helpers.tasks.{_MODULES[name]}")


def finetune(
    task: str,
    *,
    train: Sequence[str],
    out: Path,
    base: SavedModel | None,
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
        changes: Settings of `FinetuneConfig` other than the task's own.
        ngrams: Put a linear model on n-grams beside the network, where the task knows how to; else the network has to do alone.

    Returns:
        task, model, rows (of train), seconds (of training), split, metrics: what `slm finetune --json` prints.
    """
    module = task_module(task)
    if not ngrams and "ngrams" not in inspect.signature(module.train).parameters:
        raise ValueError(f"The task {task} has no n-grams beside its network; leave --no-ngrams out.")
    check_replaceable(out)
    check_writable(out.parent)
    frame = load_parts(task, train=train, valid=valid, test=test, columns=columns, encoding=encoding, seed=seed)
    if hasattr(module, "check_rows"):
        module.check_rows(frame)  # before the time of training is spent, and of test too
    unknown = [name for name in changes or {} if not hasattr(module.DEFAULT, name)]
    if unknown:
        raise ValueError(f"The task {task} has no setting {unknown[0]}; leave --{unknown[0].replace('_', '-')} out.")
    config = replace(module.DEFAULT, seed=seed, **(changes or {}))
    split = "test" if (frame["split"] == "test").any() else "valid"
    options = {} if ngrams else {"ngrams": False}
    if split == "valid" and "keep_valid" in inspect.signature(module.train).parameters:
        options["keep_valid"] = True  # what was learned from cannot be scored
    started = time.perf_counter()
    saved, history = module.train(frame[frame["split"] != "test"], base=base, config=config, **options)
    seconds = time.perf_counter() - started
    # Published in half precision, so that is what is scored.
    saved.model.set_weights([weight.astype("float16").astype("float32") for weight in saved.model.get_weights()])
    held_out = frame[frame["split"] == split]
    scores = module.evaluate(saved, held_out) if len(held_out) else None
    num_rows = int((frame["split"] == "train").sum())
    result = {"task": task, "model": str(out), "rows": num_rows, "seconds": round(seconds, 2), "split": split}
    result["metrics"] = metrics_of(scores) if scores is not None else {}
    start = "random weights" if base is None else base.folder.name
    settings = saved.settings | {"start": start, "columns": columns or {}, "train_seconds": round(seconds, 2)}
    save_model(
        out,
        saved.model,
        tokenizer=saved.tokenizer,
        task=task,
        labels=saved.labels,
        settings=settings,
        metrics=result["metrics"],
        history=history,
        card=_card(out.name, task, start, train, frame, seconds, split, scores),
        weights_dtype="float16",
    )
    return result


def evaluate(folder: str | Path, test: str, *, columns: dict[str, str] | None = None, encoding: str = "utf-8") -> dict[str, Any]:
    """Score a model folder on a file or the test part of a named set: what `slm evaluate --json` prints, tables as lists of rows."""
    saved = _open(folder)
    module = task_module(saved.task)
    frame = _with_columns(load_dataset(test, split="test", encoding=encoding, **_for_task(saved.task, columns)), saved.task, test)
    started = time.perf_counter()
    try:
        scores = module.evaluate(saved, frame)
    except ValueError as error:
        raise ValueError(f"{test}, {error}") from error
    result = {"task": saved.task, "model": str(folder), "rows": scores.rows, "seconds": round(time.perf_counter() - started, 2)}
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
    saved = _open(folder)
    module = task_module(saved.task)
    if hasattr(module, "NO_PREDICT"):
        raise ValueError(f"{folder} holds a model for the task {saved.task}. {module.NO_PREDICT.format(folder=folder)}")
    ending = Path(target).suffix.lower()
    if ending not in _OUTPUTS:
        raise ValueError(f"{target}: predictions are written to a file with one of the endings {', '.join(_OUTPUTS)}.")
    file_format(source)
    rows = read_rows(source, encoding=encoding)
    first = next(rows)
    wanted = {name: name for name in module.PREDICT_COLUMNS} | _for_task(saved.task, columns, names=module.PREDICT_COLUMNS)
    optional = OPTIONAL | getattr(module, "PREDICT_OPTIONAL", {})
    absent = {ours: optional[ours] for ours in optional if wanted.get(ours) == ours and ours not in first}
    wanted = {ours: theirs for ours, theirs in wanted.items() if ours not in absent}
    missing = [theirs for theirs in wanted.values() if theirs not in first]
    if missing:
        ours = next(name for name, theirs in wanted.items() if theirs == missing[0])
        raise ValueError(
            f"{source}: there is no column {missing[0]!r}, which a model for the task {saved.task} reads. It has: {', '.join(first)}. "
            f"Say which one holds it, e.g. --{ours} {next(iter(first))}, or take a model for another task."
        )
    taken = [name for name in ("prediction", "confidence") if name in first]
    if taken:
        raise ValueError(f"{source} has a column {taken[0]!r} already, which the result would overwrite. Rename it.")
    started, num_rows, num_empty = time.perf_counter(), 0, 0
    rows = chain([first], rows)
    # A task whose rows depend on earlier ones remembers these from one part of the file to the next.
    predict_rows = module.Predictor(saved) if hasattr(module, "Predictor") else partial(module.predict, saved)
    may_be_empty = getattr(module, "PREDICT_MAY_BE_EMPTY", ())
    with atomic_write(target) as file, ProgressLine() as line:
        write = _writer(file, ending, [*first, "prediction", "confidence"], target)
        while chunk := list(islice(rows, _CHUNK)):
            cleaned = []
            for row in chunk:
                clean, problem = clean_row(row, wanted, may_be_empty=may_be_empty)
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
    result = {"task": saved.task, "model": str(folder), "rows": num_rows, "left_empty": num_empty, "seconds": round(seconds, 2)}
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
    options: dict[str, Any] = _for_task(task, columns) | {"encoding": encoding}
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


def starts_from_base(task: str) -> bool:
    """Whether the task starts from a language model unless told not to."""
    return getattr(task_module(task), "STARTS_FROM_BASE", True)


def goes_on(task: str) -> bool:
    """Whether the task may start from an earlier model of its own as well; its `train` says which."""
    return getattr(task_module(task), "GOES_ON", False)


def metrics_of(scores: Evaluation) -> dict[str, dict[str, float]]:
    """Return {metric: {value, ci_low, ci_high}}, without bounds that are not known."""
    return {
        row["metric"]: {name: round(float(row[name]), 6) for name in ("value", "ci_low", "ci_high") if not np.isnan(row[name])}
        for row in scores.metrics.to_dict("records")
    }


def _open(folder: str | Path) -> SavedModel:
    task = read_config(Path(folder))["task"]
    if task not in TASKS:
        raise ValueError(
            f"{folder} holds a model for the task {task!r}, but one of {', '.join(TASKS)} is needed. Make one by slm finetune."
        )
    return load_model(folder)


def _with_columns(frame: pd.DataFrame, task: str, source: str) -> pd.DataFrame:
    """Return rows that were read from `source` with all columns that the task learns from; raise if one is missing that it needs."""
    module = task_module(task)
    missing = [name for name in module.COLUMNS if name not in frame and name not in OPTIONAL]
    filled = {name: value for name, value in getattr(module, "OPTIONAL", {}).items() if name in missing}
    missing = [name for name in missing if name not in filled]
    if missing:
        raise ValueError(
            f"{source}: the task {task} needs the columns {', '.join(module.COLUMNS)}, but {missing[0]} is missing. "
            f"Say which column holds it, e.g. --{missing[0].replace('_', '-')} NAME."
        )
    return frame.assign(**filled)


def _for_task(task: str, columns: dict[str, str] | None, *, names: Sequence[str] | None = None) -> dict[str, str]:
    """Return the column names that concern the task; refuse others, which would be a mistake."""
    needed = task_module(task).COLUMNS
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


def _card(
    name: str, task: str, start: str, train: Sequence[str], frame: pd.DataFrame, seconds: float, split: str, scores: Evaluation | None
) -> str:
    """Return the model card in Markdown."""
    counts = ", ".join(f"{int((frame['split'] == part).sum()):,} {part}" for part in SPLITS)
    lines: Iterator[str] = iter(())
    if scores is not None:
        lines = (f"| {m} | {values['value']:.4f} | {_interval(values)} |" for m, values in metrics_of(scores).items())
    table = "\n".join(lines)
    limits = getattr(task_module(task), "LIMITS", "It knows no label and no kind of text that it was not trained on.")
    return f"""# {name}
A model for the task {task}, fine-tuned from {start} by `slm finetune`.

- **Data.** {", ".join(Path(part).name for part in train)}: {counts} rows.
- **Cost.** {seconds:.0f} seconds of training ({describe_machine()}), Keras {keras.__version__}.
- **Limits.** {limits} Look at its mistakes on `{split}` before you rely on it.

## Scores on {split}

| metric | value | 95 % interval |
| --- | --- | --- |
{table}
"""


def _interval(values: dict[str, float]) -> str:
    return f"{values['ci_low']:.4f} to {values['ci_high']:.4f}" if "ci_low" in values else ""
