"""The one training loop: learning rates, callbacks, evaluation, early stopping, and checkpoints from which a run goes on exactly."""

import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from slm_helpers._backend import keras
from slm_helpers._progress import ProgressLine
from slm_helpers.data.files import atomic_write, check_writable
from slm_helpers.training.config import TrainConfig, learning_rate_at
from slm_helpers.training.step import CompiledStep

import numpy as np
import pandas as pd
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

CHECKPOINT_NAME = "checkpoint.safetensors"
HISTORY_COLUMNS = ("step", "epoch", "split", "loss_nats", "learning_rate", "seconds")


class Batches(Protocol):
    """The batches of every epoch. A batch depends on nothing but its place, so that a run can go on in the middle of an epoch."""

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""

    def batch(self, epoch: int, index: int) -> tuple[np.ndarray, ...]:
        """Return the arrays of one batch."""

    def fingerprint(self) -> str:
        """Return a short code of all the data, to notice that a checkpoint belongs to other data."""


class TrainingInterrupted(KeyboardInterrupt):
    """Ctrl-C, or a notebook's stop button, ended the training after a whole step; `history` holds it up to there."""

    def __init__(self, message: str, history: pd.DataFrame):
        super().__init__(message)
        self.history = history

    def _render_traceback_(self) -> list[str]:
        """Return what IPython shows in place of a traceback."""
        return [str(self)]


def run_training(
    run: "TrainingRun",
    *,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    checkpoint_dir: str | Path | None = None,
    checkpoint_steps: int = 500,
) -> pd.DataFrame:
    """Make all the steps of a run and return its history; `fit_model` says what the arguments mean."""
    config, num_steps, per_epoch = run.config, run.config.epochs * len(run.batches), len(run.batches)
    checkpoint = Path(checkpoint_dir) / CHECKPOINT_NAME if checkpoint_dir is not None else None
    if checkpoint is not None:
        check_writable(checkpoint.parent)
        if checkpoint.exists():
            run.load(checkpoint)
    observers = _callback_list(run, callbacks)
    with _signals_after_step(terminate=checkpoint is not None) as signals, ProgressLine() as line:
        observers.on_train_begin()
        new_epoch = True
        while not run.done and not signals and run.step < num_steps:
            epoch, index = divmod(run.step, per_epoch)
            if new_epoch:
                run.compiled.start_epoch(epoch)
                observers.on_epoch_begin(epoch)
            observers.on_train_batch_begin(index)
            run.train_step(num_steps)
            observers.on_train_batch_end(index, {"loss": run.last_loss})
            line.update(f"step {run.step} of {num_steps}, loss {run.last_loss:.3f} nats, {run.seconds:.0f} s")
            out_of_time = bool(config.max_seconds) and run.seconds + run.seconds_to_evaluate >= config.max_seconds
            last = run.step >= num_steps or out_of_time or run.model.stop_training
            if run.step % (config.eval_steps or per_epoch) == 0 or last:
                run.evaluate()
            new_epoch = run.step % per_epoch == 0
            if new_epoch or last:
                observers.on_epoch_end(epoch, run.logs())
            run.done = bool(last or run.model.stop_training or (config.patience and run.evals_since_best >= config.patience))
            if checkpoint is not None and (run.step % checkpoint_steps == 0 or run.done or signals):
                run.save(checkpoint)
        observers.on_train_end(run.logs())
        run.finish()
        if signal.SIGINT in signals:
            where = "Run it again to go on exactly there." if checkpoint else "To go on exactly after a stop, give a checkpoint_dir."
            raise TrainingInterrupted(f"Training stopped after step {run.step} of {num_steps}; its weights are kept. {where}", run.table())
    return run.table()


_STATE = ("step", "done", "seconds", "cpu_seconds", "loss_sum", "loss_count", "best_loss", "evals_since_best", "history")


_LENGTH = ("epochs", "max_seconds")  # settings that may change when a run goes on: how long it shall be


class TrainingRun:
    """Where a training run stands: its weights, its best weights on valid, its history."""

    def __init__(
        self,
        model: keras.Model,
        config: TrainConfig,
        batches: Batches,
        compiled: CompiledStep,
        *,
        evaluate: Callable[[], tuple[dict[str, float], float]] | None = None,
        valid_fingerprint: str = "",
        columns: Sequence[str] = HISTORY_COLUMNS,
    ):
        """Begin at step 0.

        Args:
            model: Its weights are trained.
            config: All settings, none left open.
            batches: What it learns from.
            compiled: Makes a step.
            evaluate: Returns the columns of the history's row of valid, and the loss by which the best weights are chosen.
            valid_fingerprint: Code of the rows that `evaluate` reads.
            columns: Of the history.
        """
        self.model, self.config, self.batches, self.compiled = model, config, batches, compiled
        self.evaluate_valid, self.valid_fingerprint, self.columns = evaluate, valid_fingerprint, list(columns)
        self.step, self.done = 0, False
        self.seconds, self.cpu_seconds = 0.0, 0.0
        self.last_loss, self.rate = math.nan, math.nan
        self.loss_sum, self.loss_count = 0.0, 0
        self.best_loss, self.evals_since_best = math.inf, 0
        self.best: list[np.ndarray] = []
        self.history: list[dict[str, Any]] = []
        self.seconds_to_evaluate = 0.0  # what the next evaluation is expected to take: as the last one; before it, as compiling a step

    def train_step(self, num_steps: int) -> None:
        """Make one step; raise FloatingPointError if its loss is not finite."""
        started, cpu_started = time.perf_counter(), time.process_time()
        config = self.config
        time_share = (self.seconds + self.seconds_to_evaluate) / config.max_seconds if config.max_seconds else 0.0
        self.rate = learning_rate_at(config, self.step, num_steps, time_share=time_share)
        self.compiled.optimizer.learning_rate = self.rate
        self.last_loss = self.compiled.train(*self.batches.batch(*divmod(self.step, len(self.batches))))
        self.step += 1
        step_seconds = time.perf_counter() - started
        self.seconds += step_seconds
        self.cpu_seconds += time.process_time() - cpu_started
        if self.evaluate_valid is not None and not self.seconds_to_evaluate:
            self.seconds_to_evaluate = step_seconds
        if not math.isfinite(self.last_loss):
            raise FloatingPointError(f"The loss is {self.last_loss} at step {self.step}. {self._advice()}")
        self.loss_sum += self.last_loss
        self.loss_count += 1

    def evaluate(self) -> None:
        """Add rows to the history, and keep the weights if they are the best on valid so far."""
        if self.loss_count:
            self._note("train", {"loss_nats": self.loss_sum / self.loss_count})
        self.loss_sum, self.loss_count = 0.0, 0
        if self.evaluate_valid is None:
            return
        started = time.perf_counter()
        with self._averaged_weights():
            found, loss = self.evaluate_valid()
            self.seconds_to_evaluate = time.perf_counter() - started
            self.seconds += self.seconds_to_evaluate
            self._note("valid", found)
            self.evals_since_best += 1
            if loss < self.best_loss:
                self.best_loss, self.evals_since_best = loss, 0
                self.best = [keras.ops.convert_to_numpy(w).copy() for w in self.model.weights]

    def logs(self) -> dict[str, float]:
        """Return the newest losses under the names that Keras callbacks know."""
        newest = {row["split"]: row for row in self.history}
        logs = {"loss": newest["train"]["loss_nats"] if "train" in newest else self.last_loss}
        for name, column in (("val_loss", "loss_nats"), ("val_accuracy", "accuracy")):
            if column in newest.get("valid", {}):
                logs[name] = newest["valid"][column]
        return logs

    def finish(self) -> None:
        """Put the best weights seen on valid into the model; without valid, the running average where one is kept."""
        if self.best:
            self.model.set_weights(self.best)
        else:
            self.use_average()

    def use_average(self) -> None:
        """Put the running average into the model, where one is kept."""
        self.compiled.optimizer.finalize_variable_values(self.model.trainable_variables)

    def table(self) -> pd.DataFrame:
        """Return the history, with cpu_seconds (of all cores) and num_steps (made so far) in its attrs."""
        table = pd.DataFrame(self.history, columns=self.columns)
        table.attrs |= {"cpu_seconds": self.cpu_seconds, "num_steps": self.step}
        return table

    def save(self, path: Path) -> None:
        """Write a checkpoint, unless a weight is not finite."""
        tensors = {f"now/{i}": np.atleast_1d(keras.ops.convert_to_numpy(v)) for i, v in enumerate(self._variables())}
        tensors |= {f"best/{i}": np.atleast_1d(values) for i, values in enumerate(self.best)}
        if not all(np.isfinite(values).all() for values in tensors.values()):
            # The loss shows it one step later only, when the last good checkpoint would be gone.
            raise FloatingPointError(f"The weights are NaN or infinite after step {self.step}. {self._advice()}")
        state = {name: getattr(self, name) for name in _STATE}
        with atomic_write(path, "wb") as file:
            file.write(save(tensors, metadata={"state": json.dumps(state), "identity": json.dumps(self._identity())}))

    def load(self, path: Path) -> None:
        """Go on from a checkpoint; raise ValueError if it belongs to another run."""
        try:
            with safe_open(path, framework="numpy") as file:
                metadata = file.metadata()
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dictionary
        except SafetensorError as error:
            raise ValueError(f"{path} cannot be read ({error}). Remove it to start anew.") from error
        same_length = self._check_identity(path, json.loads(metadata["identity"]))
        for i, variable in enumerate(self._variables()):
            variable.assign(tensors[f"now/{i}"].reshape(tuple(variable.shape)))
        num_best = sum(name.startswith("best/") for name in tensors)
        self.best = [tensors[f"best/{i}"].reshape(tuple(w.shape)) for i, w in zip(range(num_best), self.model.weights, strict=False)]
        for name, value in json.loads(metadata["state"]).items():
            setattr(self, name, value)
        self.done = self.done and same_length

    def _check_identity(self, path: Path, theirs: dict[str, Any]) -> bool:
        """Raise ValueError if a checkpoint belongs to another run; returns whether that one was to be as long as this one."""
        ours = json.loads(json.dumps(self._identity()))
        theirs["config"] = json.loads(json.dumps(asdict(TrainConfig.from_settings(theirs["config"]))))
        lengths = [{name: identity["config"].pop(name) for name in _LENGTH} for identity in (theirs, ours)]
        for part, value in ours.items():
            if theirs.get(part) != value:
                named = [name for name in value if value[name] != theirs[part][name]] if part == "config" else []
                raise ValueError(
                    f"{path} belongs to a run with another {part}{' (' + ', '.join(named) + ')' if named else ''}. "
                    "Choose another checkpoint_dir, or remove the file to start anew."
                )
        return lengths[0] == lengths[1]

    def _identity(self) -> dict[str, Any]:
        """Return what must agree for a checkpoint to go on."""
        return {
            "config": asdict(self.config),
            "model": getattr(self.model, "builder_config", self.model.name),
            "data": self.batches.fingerprint(),
            "valid data": self.valid_fingerprint,
        }

    def _variables(self) -> list[Any]:
        return [*self.model.variables, *self.compiled.carried, *self.compiled.optimizer.variables]

    def _note(self, split: str, found: dict[str, float]) -> None:
        place = {"step": self.step, "epoch": self.step / len(self.batches), "split": split}
        self.history.append(place | found | {"learning_rate": self.rate, "seconds": self.seconds})

    def _advice(self) -> str:
        return f"Lower the learning rate (now {self.rate:g}) or max_gradient_norm. The last checkpoint, if any, is intact."

    @contextmanager
    def _averaged_weights(self) -> Iterator[None]:
        """Put the running average in place of the weights for a while, where one is kept."""
        if not self.config.ema_decay:
            yield
            return
        trained = [keras.ops.convert_to_numpy(variable).copy() for variable in self.model.trainable_variables]
        self.use_average()
        yield
        for variable, values in zip(self.model.trainable_variables, trained, strict=True):
            variable.assign(values)


def _callback_list(run: TrainingRun, callbacks: Sequence[keras.callbacks.Callback]) -> keras.callbacks.CallbackList:
    for callback in callbacks:
        if not isinstance(callback, keras.callbacks.Callback):
            raise TypeError(f"callbacks holds {callback!r}, but must hold objects of classes derived from keras.callbacks.Callback.")
    run.model.stop_training = False
    sizes = {"epochs": run.config.epochs, "steps": len(run.batches)}
    return keras.callbacks.CallbackList(list(callbacks), add_history=False, add_progbar=False, model=run.model, **sizes)


@contextmanager
def _signals_after_step(*, terminate: bool) -> Iterator[list[int]]:
    """Hold Ctrl-C, and SIGTERM if asked, back until the caller looks at the list: a checkpoint from inside a step would repeat it.

    A second Ctrl-C stops at once. After the work, SIGTERM ends the process as it does by default.
    """
    received: list[int] = []

    def note(number: int, frame: Any) -> None:
        if number in received:
            raise KeyboardInterrupt
        received.append(number)

    usual = {signal.SIGINT: signal.default_int_handler} | ({signal.SIGTERM: signal.SIG_DFL} if terminate else {})
    # Python lets only the main thread change this, and a handler set by somebody else is theirs to keep.
    on_main = threading.current_thread() is threading.main_thread()
    ours = {number: handler for number, handler in usual.items() if on_main and signal.getsignal(number) is handler}
    for number in ours:
        signal.signal(number, note)
    try:
        yield received
    finally:
        for number, handler in ours.items():
            signal.signal(number, handler)
        if signal.SIGTERM in received:
            signal.raise_signal(signal.SIGTERM)
