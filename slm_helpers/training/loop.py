"""Train a language model on a stream of token ids: schedules, clipping, early stopping, checkpoints that resume exactly."""

import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from slm_helpers._backend import keras
from slm_helpers._processor import has_bfloat16
from slm_helpers._progress import ProgressLine
from slm_helpers.data.files import atomic_write, check_writable
from slm_helpers.data.splits import make_windows
from slm_helpers.models.fast_rnn import mean_cross_entropy
from slm_helpers.models.language_model import make_backbone, output_weights
from slm_helpers.training.batches import StreamBatches, WindowBatches
from slm_helpers.training.config import STREAM_DEFAULTS, TrainConfig, learning_rate_at
from slm_helpers.training.optimizers import make_optimizer

import numpy as np
import pandas as pd
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

ops = keras.ops


HISTORY_COLUMNS = ("step", "epoch", "split", "loss_nats", "learning_rate", "seconds")


def fit_model(
    model: keras.Model,
    train_ids: np.ndarray,
    valid_ids: np.ndarray | None = None,
    *,
    config: TrainConfig,
    checkpoint_dir: str | Path | None = None,
    checkpoint_steps: int = 200,
    on_step: Callable[[int, float], None] | None = None,
) -> pd.DataFrame:
    """Train a language model to predict the next token.

    With a validation stream the best weights seen on it are put back at the end, and training stops early after `patience`
    looks without a better loss. With `checkpoint_dir`, a run that was cut off goes on where its last checkpoint stands and
    ends with the weights of an unbroken run; a finished run only loads its result, unless it is now to be longer. Ctrl-C stops
    after the step and writes one.

    Args:
        model: From `build_language_model`; its weights are changed in place.
        train_ids: Token ids, shape (num_tokens,).
        valid_ids: Token ids of the validation split; at least one window.
        config: Settings; what they leave open is that of STREAM_DEFAULTS.
        checkpoint_dir: Folder for the checkpoint file.
        checkpoint_steps: Steps between checkpoints.
        on_step: Called after each step with its number, from 1, and its loss, e.g. for a live plot.

    Returns:
        History in long form, one row a look: step, epoch, split ("train": mean since the last look; "valid"), loss_nats,
        learning_rate, seconds (of training so far). `history.attrs["cpu_seconds"]` is what the steps took of all cores.

    Raises:
        ValueError: If the checkpoint belongs to other settings, another model or other data.
        OSError: If the checkpoint folder cannot be written to, before the first step; or if the disk is full at a checkpoint: the one
            before it stays.
        FloatingPointError: If the loss or, at a checkpoint, a weight becomes NaN or infinite; the last good checkpoint stays.
    """
    config = config.with_defaults(STREAM_DEFAULTS)
    make_batches = StreamBatches if config.carry_state else WindowBatches
    batches = make_batches(train_ids, window=config.window, batch_size=config.batch_size, seed=config.seed)
    trainer = _Trainer(model, config, batch_size=batches.batch_size)
    valid = None if valid_ids is None else _validation_batches(valid_ids, config)
    return run_training(
        TrainingRun(model, config, batches, trainer),
        valid,
        checkpoint_dir=checkpoint_dir,
        checkpoint_steps=checkpoint_steps,
        on_step=on_step,
    )


def run_training(
    run: "TrainingRun",
    valid: list[tuple[np.ndarray, ...]] | None,
    *,
    checkpoint_dir: str | Path | None,
    checkpoint_steps: int,
    on_step: Callable[[int, float], None] | None,
) -> pd.DataFrame:
    """Do all the steps of a run, see `fit_model`; a validation batch is what `trainer.measure` takes, its weights third."""
    config, batches = run.config, run.batches
    checkpoint = Path(checkpoint_dir) / "checkpoint.safetensors" if checkpoint_dir is not None else None
    if checkpoint is not None:
        check_writable(checkpoint.parent)
        if checkpoint.exists():
            run.load(checkpoint)
    num_steps = config.epochs * len(batches)
    eval_steps = config.eval_steps or len(batches)
    with interrupt_after_step() as interrupts, ProgressLine() as line:
        while not run.done and not interrupts and run.step < num_steps:
            run.train_step(num_steps)
            if on_step is not None:
                on_step(run.step, run.last_loss)
            line.update(f"step {run.step} of {num_steps}, loss {run.last_loss:.3f} nats per token, {run.seconds:.0f} s")
            last = run.step == num_steps or bool(config.max_seconds and run.seconds >= config.max_seconds)
            if run.step % eval_steps == 0 or last:
                run.look(valid)
            run.done = last or bool(config.patience and run.looks_since_best >= config.patience)
            if checkpoint is not None and (run.step % checkpoint_steps == 0 or run.done or interrupts):
                run.save(checkpoint)
    run.restore_best()
    history = pd.DataFrame(run.history, columns=list(HISTORY_COLUMNS))
    history.attrs["cpu_seconds"] = run.cpu_seconds
    return history


def evaluate_loss(model: keras.Model, token_ids: np.ndarray, *, window: int = 64, batch_size: int = 64) -> float:
    """Return the mean loss in nats per token over windows that each start from a zero state."""
    config = TrainConfig(batch_size=batch_size, window=window).with_defaults(STREAM_DEFAULTS)
    return _mean_loss(_Trainer(model, config), _validation_batches(token_ids, config))


def count_tokens_trained(history: pd.DataFrame, config: TrainConfig) -> int:
    """Return how many target tokens the run of `history` has trained on."""
    config = config.with_defaults(STREAM_DEFAULTS)
    return int(history["step"].max()) * config.batch_size * config.window


_STATE = ("step", "done", "seconds", "cpu_seconds", "loss_sum", "loss_count", "best_loss", "looks_since_best", "history")


_LENGTH = ("epochs", "max_seconds")  # settings that may change when a run goes on: how long it shall be


class TrainingRun:
    """The moving parts of one training run: where it stands, its best weights, its history."""

    def __init__(self, model: keras.Model, config: TrainConfig, batches: Any, trainer: Any):
        self.model, self.config, self.batches = model, config, batches
        self.trainer = trainer
        self.trainer.optimizer.build(model.trainable_variables)
        self.step = 0
        self.done = False
        self.seconds, self.cpu_seconds = 0.0, 0.0
        self.last_loss = math.nan
        self.loss_sum, self.loss_count = 0.0, 0
        self.best_loss, self.looks_since_best = math.inf, 0
        self.best: list[np.ndarray] = []
        self.history: list[tuple] = []

    def train_step(self, num_steps: int) -> None:
        """Do one step; raise FloatingPointError if its loss is not finite."""
        started, cpu_started = time.perf_counter(), time.process_time()
        config = self.config
        epoch, index = divmod(self.step, len(self.batches))
        spent = self.seconds / config.max_seconds if config.max_seconds else 0.0
        self.rate = learning_rate_at(config, self.step, num_steps, time_share=spent)
        self.trainer.optimizer.learning_rate = self.rate
        self.last_loss = self.trainer.step(*self.batches.batch(epoch, index))
        self.step += 1
        self.seconds += time.perf_counter() - started
        self.cpu_seconds += time.process_time() - cpu_started
        if not math.isfinite(self.last_loss):
            raise FloatingPointError(
                f"The loss is {self.last_loss} at step {self.step}. Lower the learning rate (now {self.rate:g}) or "
                "max_gradient_norm. The last checkpoint, if any, is intact."
            )
        self.loss_sum += self.last_loss
        self.loss_count += 1

    def look(self, valid: list[tuple[np.ndarray, ...]] | None) -> None:
        """Add rows to the history and keep the weights if they are the best on valid so far."""
        epoch = self.step / len(self.batches)
        rows = [("train", self.loss_sum / self.loss_count)]
        self.loss_sum, self.loss_count = 0.0, 0
        if valid is not None:
            started = time.perf_counter()
            loss = _mean_loss(self.trainer, valid)
            self.seconds += time.perf_counter() - started
            rows.append(("valid", loss))
            self.looks_since_best += 1
            if loss < self.best_loss:
                self.best_loss, self.looks_since_best = loss, 0
                self.best = [keras.ops.convert_to_numpy(w).copy() for w in self.model.weights]
        self.history += [(self.step, epoch, split, loss, self.rate, self.seconds) for split, loss in rows]

    def restore_best(self) -> None:
        """Put back the best weights seen on valid."""
        if self.best:
            self.model.set_weights(self.best)

    def _variables(self) -> list[Any]:
        return [*self.model.variables, *self.trainer.states, *self.trainer.optimizer.variables]

    def _identity(self) -> dict[str, Any]:
        """What must agree for a checkpoint to go on."""
        return {
            "config": asdict(self.config),
            "model": getattr(self.model, "recipe", self.model.name),
            "data": self.batches.fingerprint(),
        }

    def save(self, path: Path) -> None:
        """Write a checkpoint, unless a weight is not finite."""
        tensors = {f"now/{i}": np.atleast_1d(keras.ops.convert_to_numpy(v)) for i, v in enumerate(self._variables())}
        tensors |= {f"best/{i}": np.atleast_1d(values) for i, values in enumerate(self.best)}
        if not all(np.isfinite(values).all() for values in tensors.values()):
            # The loss shows it one step later only, when the last good checkpoint would be gone.
            raise FloatingPointError(
                f"The weights are NaN or infinite after step {self.step}. Lower the learning rate (now {self.rate:g}) or "
                "max_gradient_norm. The last checkpoint, if any, is intact."
            )
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
        theirs, ours = json.loads(metadata["identity"]), json.loads(json.dumps(self._identity()))
        theirs["config"] = json.loads(json.dumps(asdict(TrainConfig.from_settings(theirs["config"]))))
        lengths = [{name: identity["config"].pop(name, None) for name in _LENGTH} for identity in (theirs, ours)]
        for part in ours:
            if theirs[part] != ours[part]:
                named = [k for k in ours[part] if ours[part][k] != theirs[part].get(k)] if part == "config" else []
                raise ValueError(
                    f"{path} belongs to a run with another {part}{' (' + ', '.join(named) + ')' if named else ''}. "
                    "Choose another checkpoint_dir, or remove the file to start anew."
                )
        for i, variable in enumerate(self._variables()):
            variable.assign(tensors[f"now/{i}"].reshape(tuple(variable.shape)))
        num_best = sum(name.startswith("best/") for name in tensors)
        self.best = [tensors[f"best/{i}"].reshape(tuple(w.shape)) for i, w in zip(range(num_best), self.model.weights, strict=False)]
        for name, value in json.loads(metadata["state"]).items():
            setattr(self, name, value)
        self.history = [tuple(row) for row in self.history]
        self.done = self.done and lengths[0] == lengths[1]


@contextmanager
def interrupt_after_step() -> Iterator[list[int]]:
    """Hold Ctrl-C back until the caller looks at the list: a checkpoint from inside a step would repeat it. A second one stops at once."""
    interrupts: list[int] = []

    def note(number: int, frame: Any) -> None:
        if interrupts:
            raise KeyboardInterrupt
        interrupts.append(number)

    # Python lets only the main thread change this, and a handler set by somebody else is theirs to keep.
    ours = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if ours:
        signal.signal(signal.SIGINT, note)
    try:
        yield interrupts
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)
    if interrupts:
        raise KeyboardInterrupt


class _Trainer(keras.Model):
    """[inputs, targets, weights, going on] -> mean loss, as one compiled step on every backend.

    The carried states are variables, set to zero for windows that start anew.
    """

    def __init__(self, model: keras.Model, config: TrainConfig, *, batch_size: int | None = None):
        super().__init__(name="trainer")
        self.body = make_backbone(model)
        self.language_model = model
        bfloat16 = config.precision == "bfloat16" or (config.precision == "auto" and has_bfloat16())
        self.policy = keras.DTypePolicy("mixed_bfloat16" if bfloat16 else "float32")
        self.smoothing = config.label_smoothing
        self.sizes = [state.shape[-1] for state in self.body.inputs[1:]]
        carried = self.sizes if config.carry_state and batch_size else []
        self.states = [self.add_weight(shape=(batch_size, n), initializer="zeros", trainable=False) for n in carried]
        self.built = True
        # XLA compiles the loop over time for minutes on the CPU and gains nothing with TensorFlow; JAX runs on nothing else.
        self.compile(make_optimizer(config), jit_compile=keras.backend.backend() == "jax")

    def call(self, arguments: list, training: bool = False) -> Any:
        inputs, targets, weights, going_on = arguments
        kept = ops.cast(going_on, "float32")[:, None]
        carry = bool(self.states) and training
        states = [s * kept for s in self.states] if carry else [ops.zeros((ops.shape(inputs)[0], n)) for n in self.sizes]
        with computing_in(self.body.layers, self.policy):
            found = self.body([inputs, *states], training=training)
        features, *states = found if isinstance(found, list) else [found]  # a network without states gives one tensor
        if carry:
            for variable, state in zip(self.states, states, strict=True):
                variable.assign(ops.cast(state, "float32"))
        flat = ops.reshape(ops.cast(features, self.policy.compute_dtype), (-1, features.shape[-1]))
        targets, weights = ops.reshape(ops.cast(targets, "int32"), (-1,)), ops.reshape(weights, (-1,))
        smoothing = self.smoothing if training else 0.0
        return mean_cross_entropy(flat, targets, weights, *output_weights(self.language_model), smoothing=smoothing)

    def compute_loss(self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True) -> Any:
        return y_pred

    def step(self, inputs: np.ndarray, targets: np.ndarray, going_on: np.ndarray) -> float:
        self.reset_metrics()  # else Keras returns the mean over all steps so far
        return float(self.train_on_batch([inputs, targets, np.ones(targets.shape, "float32"), going_on]))

    def measure(self, inputs: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> float:
        self.reset_metrics()
        return float(self.test_on_batch([inputs, targets, weights, np.zeros(len(inputs), "float32")]))


@contextmanager
def computing_in(layers: list[keras.layers.Layer], policy: keras.DTypePolicy) -> Iterator[None]:
    """Let the layers compute in another precision while a step is traced; their weights stay float32."""
    kept = [(layer, layer.dtype_policy) for layer in layers]
    try:
        for layer, _ in kept:
            layer.dtype_policy = policy
        yield
    finally:
        for layer, own in kept:
            layer.dtype_policy = own


def _validation_batches(token_ids: np.ndarray, config: TrainConfig) -> list[tuple[np.ndarray, ...]]:
    """Return inputs, targets and weights of windows read from a zero state; the last batch is filled up with weight 0."""
    inputs, targets = make_windows(token_ids, config.window)
    size = min(config.batch_size, len(inputs))
    batches = []
    for start in range(0, len(inputs), size):
        x, y = inputs[start : start + size], targets[start : start + size]
        missing = size - len(x)
        weights = np.pad(np.ones(x.shape, "float32"), ((0, missing), (0, 0)))
        batches.append((np.pad(x, ((0, missing), (0, 0))), np.pad(y, ((0, missing), (0, 0))), weights))
    return batches


def _mean_loss(trainer: _Trainer, batches: list[tuple[np.ndarray, ...]]) -> float:
    # Weighted by their tokens: a mean of batch means would overweight a short last batch.
    sums = [(trainer.measure(*batch) * batch[2].sum(), batch[2].sum()) for batch in batches]
    return float(sum(loss for loss, _ in sums) / sum(weight for _, weight in sums))
