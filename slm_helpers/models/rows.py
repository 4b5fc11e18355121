"""Run a network over rows of different lengths: one of Keras, or one that runs without it."""

import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np


def run_rows(
    model: Any, inputs: dict[str, Sequence[np.ndarray]], *, along: str | None = None, by: str | None = None, batch_size: int = 128
) -> list[np.ndarray]:
    """Run a model over rows of any number, sorted by length into batches; returns its output for each row, in their order.

    Args:
        model: Any network with these inputs: a keras.Model, or a `slm_helpers.deploy.engine.RowNetwork`.
        inputs: As in `slm_helpers.training.batches.Examples`.
        along: Name of the input whose first axis the output runs along: what stands behind a row's own length is cut off.
        by: Name of the input whose length costs most, by which rows are sorted; the first unless given.
        batch_size: Rows run together.
    """
    columns = {name: [np.asarray(row) for row in rows] for name, rows in inputs.items()}
    order = np.argsort([len(row) for row in columns[by or next(iter(columns))]], kind="stable")
    outputs: list[np.ndarray] = [np.empty(0)] * len(order)

    def run(picked: np.ndarray) -> np.ndarray:
        padded = [pad_rows([rows[i] for i in picked], min(batch_size, len(order)), exact=True) for rows in columns.values()]
        with quiet_retracing():
            return np.asarray(model.predict_on_batch(padded if len(padded) > 1 else padded[0]))

    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    for picked, found in zip(batches, map_batches(model, run, batches), strict=True):
        for row, i in zip(found, picked, strict=False):
            outputs[i] = row if along is None else row[: len(columns[along][i])]
    return outputs


def map_batches(model: Any, run: Callable[[Any], Any], batches: Iterable[Any]) -> Iterator[Any]:
    """Run a function over batches, as many side by side as the model's `num_workers` says (one for Keras); gives what it returns.

    A network that runs without Keras takes one thread a batch: two threads of one product wait for each other at every step of a
    recurrent layer, which costs more than they gain as soon as another program is busy.
    """
    workers = getattr(model, "num_workers", 1)
    if workers == 1:
        yield from map(run, batches)
        return
    with ThreadPoolExecutor(workers) as pool:
        yield from pool.map(run, batches)


def pad_rows(rows: list[np.ndarray], num_rows: int, *, exact: bool = False) -> np.ndarray:
    """Return arrays side by side, padded with 0: int32 or float32, shape (num_rows, time, ...), or (num_rows, size) of float vectors.

    `exact`: no longer than the longest row, where that compiles nothing anew: a fifth less work with texts of a dozen tokens.
    """
    kind = "float32" if rows[0].dtype.kind == "f" else "int32"
    if kind == "float32" and rows[0].ndim == 1:
        return np.pad(np.stack(rows).astype(kind), [(0, num_rows - len(rows)), (0, 0)])
    keras = sys.modules.get("keras")  # not loaded for a network that runs without it
    # Few different lengths: JAX compiles each anew.
    multiple = 32 if keras is not None and keras.backend.backend() != "tensorflow" else 1 if exact else 8
    longest = -(-max(len(row) for row in rows) // multiple) * multiple
    padded = np.zeros((num_rows, longest, *rows[0].shape[1:]), dtype=kind)
    for i, row in enumerate(rows):
        padded[i, : len(row)] = row
    return padded


@contextmanager
def quiet_retracing() -> Iterator[None]:
    """Keep TensorFlow from warning that the first two lengths of text are traced anew; the second trace serves all others."""
    logger = logging.getLogger("tensorflow")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
