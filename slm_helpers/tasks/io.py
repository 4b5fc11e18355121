"""Fine-tune, evaluate and predict with any task, from files to files: what `slm finetune`, `slm evaluate` and `slm predict` do."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, Any

from slm_helpers._checks import harmless_cell
from slm_helpers._progress import ProgressLine
from slm_helpers.data.checks import describe_problems
from slm_helpers.data.files import atomic_write, check_writable, file_format, read_rows
from slm_helpers.data.loading import load_dataset
from slm_helpers.data.rows import Row
from slm_helpers.data.schema import NAMING, OPTIONAL, clean_row, find_columns, task_columns
from slm_helpers.data.splits import make_splits
from slm_helpers.models.folders import check_replaceable, model_folder, read_config
from slm_helpers.tasks import TASKS, task_class
from slm_helpers.tasks.base import Task, metrics_of, round_to_half

import numpy as np
import pandas as pd

_CHUNK = 1024  # rows predicted together
_CHECKED_ROWS = 10_000  # of a file to predict whose cells are looked at before a model is loaded
_OUTPUTS = (".csv", ".tsv", ".jsonl")
_ADDED = ("prediction", "confidence")
_MIN_FREE = 100 << 20  # bytes of disk: a model, the one it replaces and a checkpoint
_LEAST_SECONDS = 15  # of a whole command: Keras is loaded, a network compiled and scored
_MAX_HASHES = 10_000  # of training rows that a folder keeps: 8 bytes each


@dataclass(frozen=True, kw_only=True)
class FileOptions:
    """How a person's files are read."""

    columns: dict[str, str] = field(default_factory=dict)  # our name: name in the file
    encoding: str = "utf-8"
    header: bool = True  # whether the first line names the columns; else they are called "1", "2" and so on
    strict: bool = False  # refuse what else is repaired

    def reading(self) -> dict[str, Any]:
        """Return the arguments of `load_dataset` and `read_rows` other than columns."""
        return {"encoding": self.encoding, "header": self.header, "strict": self.strict}


def new_estimator(task: str, **settings: Any) -> Task:
    """Return an estimator with the settings that are not None, and the base; raise ValueError for one that the task has not."""
    kind = task_class(task)
    given = {name: value for name, value in settings.items() if value is not None or name == "base"}
    known = kind().get_params(deep=False)
    if "base" not in known:
        if given.pop("base", None) is not None:
            raise ValueError(f"The task {task} starts from random weights: leave the base out (--base none).")
    elif kind.default_base is None:
        given.setdefault("base", None)
    unknown = [name for name in given if name not in known]
    if unknown:
        names = {"class_weight": "balanced", "ngrams": "no-ngrams"}
        option = names.get(unknown[0], unknown[0].replace("_", "-"))
        raise ValueError(f"The task {task} has no setting {option}; leave --{option} out.")
    estimator = kind(**given)
    estimator.training_config()  # raises for settings that cannot be
    estimator.check_base()
    return estimator


def finetune(
    estimator: Task,
    *,
    train: Sequence[str],
    out: str | Path,
    valid: str | None = None,
    test: str | None = None,
    files: FileOptions = FileOptions(),
    resume: bool = False,
    say: Callable[[str], None] | None = None,
    started: float | None = None,
) -> dict[str, Any]:
    """Fine-tune on files or named sets and write a model folder with its scores.

    All that can be wrong with files, settings and folders is told before Keras is loaded. Checkpoints stand beside `out` until the
    model is written.

    Args:
        estimator: From `new_estimator`; its max_seconds is for all that is done here.
        train: Paths or names of sets. Without `valid` and `test`, a file's column `split` is used, or its rows are dealt 80/10/10.
        out: The model folder; an older one there is replaced.
        valid: Rows that choose the epoch; a tenth of train unless given.
        test: Rows that are scored at the end.
        files: How the files are read.
        resume: Go on from the checkpoints of a run that was cut off; without any, begin.
        say: Gets short lines on what is odd about the data.
        started: `time.perf_counter()` when the command began; now unless given.

    Returns:
        task, model, rows (of train), seconds (of training), split, metrics: what `slm finetune --json` prints.
    """
    started = time.perf_counter() if started is None else started
    out, limit = Path(out), estimator.get_params(deep=False).get("max_seconds")
    if limit and limit < _LEAST_SECONDS:
        raise ValueError(f"max_seconds is {limit:g}, but to start, to compile a network and to score it takes {_LEAST_SECONDS}. Give more.")
    check_replaceable(out)
    check_writable(out.parent)
    check_free_disk(out.parent)
    frame = load_parts(estimator.task, train=train, valid=valid, test=test, files=files, seed=estimator.seed)
    estimator = estimator.for_frame(frame)
    estimator.check_frame(frame)
    for note in [*describe_problems(frame, task=estimator.task), *estimator.notes(frame)] if say is not None else []:
        say(note)
    checkpoints = _checkpoint_dir(out, estimator, frame, resume=resume)
    split = "test" if (frame["split"] == "test").any() else "valid"
    if limit:  # some time is left for scoring and writing
        estimator.set_params(max_seconds=max(0.1, 0.85 * limit - (time.perf_counter() - started)))
    begun = time.perf_counter()
    try:
        estimator.fit_frame(frame, keep_valid=split == "valid", checkpoint_dir=checkpoints)  # what was learned from cannot be scored
    finally:
        if not any(checkpoints.rglob("*.safetensors")):  # refused before a first checkpoint, or too short a run for one
            shutil.rmtree(checkpoints, ignore_errors=True)
    seconds = round(time.perf_counter() - begun, 2)
    estimator.set_params(max_seconds=limit)
    round_to_half(estimator.saved_)  # written in half precision, so that is what is scored
    held_out = frame[frame["split"] == split]
    if len(held_out):
        estimator.evaluation_ = estimator.evaluate_frame(held_out)
    learned = frame if split == "test" else frame[frame["split"] == "train"]
    hashes = _row_hashes(learned[learned["split"] != "test"], estimator.predict_columns)
    estimator.saved_.settings |= {"columns": files.columns, "train_rows": _pack(hashes)}
    estimator.save(out, weights_dtype="float16", sources=train)
    shutil.rmtree(checkpoints, ignore_errors=True)
    metrics = metrics_of(estimator.evaluation_) if len(held_out) else {}
    num_rows = int((frame["split"] == "train").sum())
    return {"task": estimator.task, "model": str(out), "rows": num_rows, "seconds": seconds, "split": split, "metrics": metrics}


def evaluate(
    folder: str | Path,
    test: str | Path,
    *,
    files: FileOptions = FileOptions(),
    say: Callable[[str], None] | None = None,
    engine: str = "onnx",
) -> dict[str, Any]:
    """Score a model folder on a file or the test part of a named set: what `slm evaluate --json` prints, tables as lists of rows.

    `say` gets a line if the model learned from some of the rows; `engine` is that of `open_estimator`.
    """
    _check_path(test, "evaluate(frame)")
    folder = model_folder(folder)
    config = _task_config(folder)
    task = config["task"]
    kind = task_class(task)
    named = _for_task(task, files.columns)
    if Path(test).is_file():
        named = _remembered(config, _first_row(test, task, files)) | named
    frame = load_dataset(str(test), task=task, split="test", **files.reading(), **named)
    frame = _with_columns(frame, task, str(test))
    if say is not None and (note := _trained_on(config["settings"], frame, kind.predict_columns)):
        say(note)
    estimator = open_estimator(folder, engine=engine)
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
    target: str | Path | None = None,
    *,
    files: FileOptions = FileOptions(),
    keep_bad: bool = False,
    safe_csv: bool = False,
    engine: str = "onnx",
    explain: Callable[[Task, Sequence[dict[str, Any]], str], list[Any]] | None = None,
) -> dict[str, Any]:
    """Add a prediction and its confidence to each row of a file, in constant memory; `target` is written only if all goes well.

    Args:
        folder: A model folder.
        source: The rows: a file as `read_rows` takes it.
        target: Where to: .csv, .tsv or .jsonl.
        files: How the source is read; the target is UTF-8. Columns that were named in training need not be named again.
        keep_bad: Leave the prediction of a row without a value empty; else such a row is an error.
        safe_csv: Put an apostrophe before cells that a spreadsheet would run as a formula.
        engine: That of `open_estimator`.
        explain: Gives a cell of the column `explanation` for each row, from the estimator, rows with `predict_columns`, and the ending
            of the target.

    Returns:
        task, model, rows, left_empty, seconds, rows_per_second.
    """
    _check_path(source, "predict(texts)")
    if target is None:
        raise TypeError(
            "predict(folder, source, target) reads a file and writes a file. For texts use slm_helpers.load(folder).predict(texts)."
        )
    folder = model_folder(folder)
    config = _task_config(folder)
    kind = task_class(config["task"])
    if kind.no_predict:
        raise ValueError(f"{folder} holds a model for the task {kind.task}. {kind.no_predict.format(folder=folder)}")
    ending = Path(target).suffix.lower()
    if ending not in _OUTPUTS:
        raise ValueError(f"{target}: predictions are written to a file with one of the endings {', '.join(_OUTPUTS)}.")
    file_format(source)
    first = _first_row(source, kind.task, files)
    read, filled = _columns_to_read(kind, config, files, first, source)
    reading = {"task": kind.task, "columns": files.columns} | files.reading()

    def cleaned(rows: Sequence[Row]) -> list[dict[str, Any] | None]:
        return [_cleaned(row, read, filled, kind, added=added, names=names, keep_bad=keep_bad) for row in rows]

    added = _ADDED if explain is None else (*_ADDED, "explanation")
    names = None if ending == ".jsonl" else [*first]
    notes: list[str] = []  # were told when the first row was read
    cleaned(list(islice(read_rows(source, notes=notes, **reading), _CHECKED_ROWS)))
    estimator = open_estimator(folder, engine=engine)
    predict_rows = estimator.row_predictor()

    def answers(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        found = predict_rows(rows)
        return found if explain is None else [a | {"explanation": b} for a, b in zip(found, explain(estimator, rows, ending), strict=True)]

    started, num_rows, num_empty = time.perf_counter(), 0, 0
    with atomic_write(target) as file, ProgressLine() as line:
        write = _writer(file, ending, [*first, *added], target, safe=safe_csv)
        for chunk in _chunks(read_rows(source, notes=notes, **reading)):
            rows = cleaned(chunk)
            found = iter(answers([row for row in rows if row is not None]) if any(rows) else [])
            for row, clean in zip(chunk, rows, strict=True):
                write(row | (next(found) if clean is not None else dict.fromkeys(added, "")))
                num_empty += clean is None
            num_rows += len(chunk)
            line.update(f"{num_rows:,} rows, {num_rows / (time.perf_counter() - started):,.0f} a second")
    seconds = time.perf_counter() - started
    result = {"task": kind.task, "model": str(folder), "rows": num_rows, "left_empty": num_empty, "seconds": round(seconds, 2)}
    return result | {"rows_per_second": round(num_rows / seconds, 1)}


def open_estimator(folder: str | Path, *, engine: str = "onnx") -> Task:
    """Return the estimator of a model folder for predictions.

    Args:
        folder: A model folder.
        engine: That of `slm_helpers.generation.opening.open_model`; language models keep their exact weights.
    """
    from slm_helpers.generation.opening import open_model

    kind = task_class(_task_config(Path(folder))["task"])
    return kind.from_saved(open_model(folder, task=kind.task, engine=engine, exact=True))


def load_parts(
    task: str,
    *,
    train: Sequence[str],
    valid: str | None = None,
    test: str | None = None,
    files: FileOptions = FileOptions(),
    seed: int = 42,
) -> pd.DataFrame:
    """Return the rows of all files or sets with a column `split`; without `valid`, a tenth of train (2,000 rows at most) becomes it."""
    options: dict[str, Any] = {"task": task} | _for_task(task, files.columns) | files.reading()
    alone = valid is None and test is None
    parts = [load_dataset(name, **options, seed=seed, **({} if alone else {"split": "train"})) for name in train]
    parts += [load_dataset(name, **options, split=split) for split, name in (("valid", valid), ("test", test)) if name is not None]
    frame = pd.concat(parts, ignore_index=True)
    if valid is None and test is not None:
        rows = frame["split"] == "train"
        if rows.sum() < 10:
            raise ValueError(f"{train[0]}: {rows.sum()} rows are too few to keep some for validation. Give ten at least, or --valid.")
        frame.loc[rows, "split"] = _deal_valid(frame[rows], seed)
    return _with_columns(frame, task, train[0])


def with_valid(frame: pd.DataFrame, *, seed: int = 42) -> pd.DataFrame:
    """Return rows with a valid part: as they are, or with a tenth of train (2,000 rows at most) where the file has train and test only."""
    train = frame["split"] == "train"
    if (frame["split"] == "valid").any() or train.sum() < 10:
        return frame
    frame = frame.copy()
    frame.loc[train, "split"] = _deal_valid(frame[train], seed)
    return frame


def check_free_disk(folder: Path) -> None:
    """Raise OSError if the disk has no room for a model: better now than after the training."""
    free = shutil.disk_usage(folder).free
    if free < _MIN_FREE:
        raise OSError(f"{folder}: the disk has {free >> 20} MB free, but {_MIN_FREE >> 20} are needed. Make room or choose another disk.")


def _deal_valid(rows: pd.DataFrame, seed: int) -> np.ndarray:
    """Return "train" or "valid" for each row: a tenth, 2,000 at most; whole learners, or valid would know what train is to learn."""
    labels = next((rows[name] for name in ("label", "intent") if name in rows), None)
    if "student" in rows:
        keys, share = rows["student"], 0.1
    else:
        keys = (
            rows.drop(columns=["split", *(name for name in ("label", "labels", "tags", "intent") if name in rows)])
            .astype(str)
            .agg(" ".join, axis=1)
        )
        share = min(0.1, 2000 / len(rows))
    return make_splits(keys, shares=(1 - share, share, 0.0), labels=labels, exact=any(name in rows for name in NAMING), seed=seed)


def _checkpoint_dir(out: Path, estimator: Task, frame: pd.DataFrame, *, resume: bool) -> Path:
    """Return the folder of the checkpoints of such a run; without `resume` an older one is removed, of another run it is refused."""
    folder = out.with_name(f"{out.name}.checkpoints")
    params = {name: str(value) for name, value in estimator.get_params(deep=False).items() if name not in ("max_seconds", "base")}
    params["base"] = str(estimator.get_params(deep=False).get("base"))
    rows = hashlib.sha256(frame.to_json(orient="values").encode()).hexdigest()
    run = {"format_version": 1, "task": estimator.task, "settings": params, "rows": rows}
    if folder.exists() and not (folder / "run.json").is_file():
        raise ValueError(f"{folder} is where checkpoints would stand, but something else does. Rename it or choose another --out.")
    if resume and folder.exists():
        before = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        other = next((name for name in run if before.get(name) != run[name]), None)
        if other is not None:
            raise ValueError(f"{folder} belongs to a run with other {other}. Call it as before, or leave --resume out to begin anew.")
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps(run), encoding="utf-8")
    return folder


def _task_config(folder: Path) -> dict[str, Any]:
    """Return the config of a model folder of one of the tasks; raise for another, before Keras is loaded."""
    config = read_config(folder)
    if config["task"] not in TASKS:
        raise ValueError(f"{folder} holds a model for the task {config['task']!r}, but one of {', '.join(TASKS)} is needed.")
    return config


def _first_row(source: str | Path, task: str, files: FileOptions) -> Row:
    return next(read_rows(source, task=task, columns=files.columns, **files.reading()))


def _remembered(config: dict[str, Any], first: Row) -> dict[str, str]:
    """Return the names of columns that were given in training, for those that this file has."""
    return {ours: theirs for ours, theirs in config["settings"].get("columns", {}).items() if theirs in first}


def _columns_to_read(
    kind: type[Task], config: dict[str, Any], files: FileOptions, first: Row, source: str | Path
) -> tuple[dict[str, str], dict[str, Any]]:
    """Return {our name: name in the file} of what is predicted from, and what stands for columns that may be absent."""
    named = {ours: theirs for ours, theirs in _remembered(config, first).items() if ours in kind.predict_columns}
    named |= {ours: theirs for ours, theirs in _for_task(kind.task, files.columns).items() if ours in kind.predict_columns}
    present = first.column_names()
    read = find_columns(present, named, task=kind.task, only=kind.predict_columns, where=str(source))
    read |= {ours: ours for ours in kind.predict_columns if ours not in read and ours in first}
    optional = OPTIONAL | kind.predict_optional
    filled = {ours: optional[ours] for ours in kind.predict_columns if ours not in read and ours in optional}
    missing = [ours for ours in kind.predict_columns if ours not in read and ours not in filled]
    if missing:
        free = [name for name in present if name not in read.values()] or present
        example = max(free, key=lambda name: len(str(first[name])))  # the longest cell is the likeliest to be the text
        raise ValueError(
            f"{source}: there is no column {missing[0]!r}, which a model for the task {kind.task} reads. "
            f"It has: {', '.join(present)}. Say which one holds it, e.g. --{missing[0].replace('_', '-')} {example}, "
            "or take a model for another task."
        )
    return read, filled


def _cleaned(
    row: Row,
    read: dict[str, str],
    filled: dict[str, Any],
    kind: type[Task],
    *,
    added: Sequence[str],
    names: list[str] | None,
    keep_bad: bool,
) -> dict[str, Any] | None:
    """Return what is predicted from, None for a row that stays without a prediction; raise for one that cannot be written as it is."""
    taken = next((name for name in added if name in row), None)
    if taken:
        raise ValueError(f"{row.where} has a column {taken!r} already, which the result would overwrite. Rename it.")
    late = next((name for name in row if names is not None and name not in names), None)
    if late is not None:
        raise ValueError(
            f"{row.where}: the first row has no {late!r}, so there is no column for it. Give every row the same keys, or write a .jsonl."
        )
    clean, problem = clean_row(row, read, may_be_empty=kind.may_be_empty)
    if problem and not keep_bad:
        raise ValueError(
            f"{problem['where']}, column {problem['column']!r}: {problem['reason']}. Fill it in, or leave such rows without a prediction "
            "by keep_bad=True, in the shell --keep-bad."
        )
    return None if problem else clean | filled | {"where": row.where}


def _chunks(rows: Iterator[Row]) -> Iterator[list[Row]]:
    while chunk := list(islice(rows, _CHUNK)):
        yield chunk


def _check_path(value: Any, instead: str) -> None:
    if not isinstance(value, str | Path):
        raise TypeError(f"A file is needed, not a {type(value).__name__}. For rows in memory use slm_helpers.load(folder).{instead}.")


def _row_hashes(frame: pd.DataFrame, columns: Sequence[str]) -> np.ndarray:
    """Return a hash of what is read of each row, letters and digits in lower case: uint64, shape (num_rows,)."""
    present = [name for name in columns if name in frame]
    texts = ("\t".join("".join(filter(str.isalnum, str(cell).lower())) for cell in row) for row in frame[present].itertuples(index=False))
    return np.array([int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") for text in texts], dtype="uint64")


def _pack(hashes: np.ndarray) -> dict[str, Any]:
    """Return the smallest hashes as text and how many there were: a fair sample of rows, and always the same one."""
    kept = np.unique(hashes)[:_MAX_HASHES]
    return {"rows": len(np.unique(hashes)), "hashes": base64.b64encode(kept.astype(">u8").tobytes()).decode("ascii")}


def _trained_on(settings: dict[str, Any], frame: pd.DataFrame, columns: Sequence[str]) -> str:
    """Return a warning if the model learned from some of these rows, else ""."""
    packed = settings.get("train_rows")
    if not packed:
        return ""
    kept = np.frombuffer(base64.b64decode(packed["hashes"]), dtype=">u8").astype("uint64")
    hashes = _row_hashes(frame, columns)
    comparable = hashes <= kept.max(initial=0) if len(kept) < packed["rows"] else np.ones(len(hashes), dtype=bool)
    known = np.isin(hashes[comparable], kept)
    if not known.any():
        return ""
    about = "" if comparable.all() else "about "
    number = round(known.mean() * len(hashes))
    return f"{about}{number:,} of {len(hashes):,} rows were learned from in training: scores on them say nothing about new rows."


def _with_columns(frame: pd.DataFrame, task: str, source: str) -> pd.DataFrame:
    """Return rows that were read from `source` with all columns that the task learns from; raise if one is missing that it needs."""
    kind = task_class(task)
    missing = [name for name in kind.columns if name not in frame and name not in OPTIONAL]
    filled = {name: value for name, value in kind.optional.items() if name in missing}
    missing = [name for name in missing if name not in filled]
    if missing:
        raise ValueError(
            f"{source}: the task {task} needs the columns {', '.join(kind.columns)}, but {missing[0]} is missing. "
            f"Say which column holds it, e.g. --{missing[0].replace('_', '-')} NAME."
        )
    return frame.assign(**filled)


def _for_task(task: str, columns: dict[str, str]) -> dict[str, str]:
    """Return the column names that the user gave; refuse those that do not concern the task, which would be a mistake."""
    known = {*task_columns(task), *task_class(task).columns}
    if "labels" in known and "label" in columns:
        columns = {"labels" if ours == "label" else ours: theirs for ours, theirs in columns.items()}
    foreign = [name for name in columns if name not in known]
    if foreign:
        names = ", ".join(task_class(task).columns)
        raise ValueError(f"--{foreign[0]} names a column that the task {task} does not use; its columns are {names}.")
    return columns


def _writer(file: IO[str], ending: str, names: list[str], target: str | Path, *, safe: bool) -> Callable[[dict[str, Any]], Any]:
    """Return a function that writes one row."""
    if ending == ".jsonl":
        return lambda row: file.write(json.dumps(row, ensure_ascii=False, default=str) + "\n")

    def cells(row: dict[str, Any]) -> list[str]:
        found = ["" if row.get(name) is None else str(row[name]) for name in names]
        return [harmless_cell(cell) for cell in found] if safe else found

    if ending == ".csv":
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([harmless_cell(name) for name in names] if safe else names)
        return lambda row: writer.writerow(cells(row))
    file.write("\t".join(names) + "\n")

    def write(row: dict[str, Any]) -> None:
        line = cells(row)
        if any(sign in cell for cell in line for sign in "\t\n\r"):
            raise ValueError(f"{target}: a cell holds a tab or a line end, which a .tsv cannot carry. Write a .csv or .jsonl instead.")
        file.write("\t".join(line) + "\n")

    return write
