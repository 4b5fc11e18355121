"""Train a language model on a stream of token ids: schedules, clipping, early stopping, checkpoints that resume exactly."""

import hashlib
import json
import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from slm_helpers.backend import keras
from slm_helpers.checks import check_choice, check_positive, check_share
from slm_helpers.data import make_windows
from slm_helpers.files import atomic_write
from slm_helpers.progress import ProgressLine

import numpy as np
import pandas as pd
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

OPTIMIZERS = ("sgd", "momentum", "adam", "adamw")
SCHEDULES = ("constant", "linear", "cosine")
HISTORY_COLUMNS = ("step", "epoch", "split", "loss_nats", "learning_rate", "seconds")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Settings of one training run."""

    epochs: int = 5
    batch_size: int = 64  # windows
    window: int = 64  # tokens
    optimizer: str = "adam"  # one of OPTIMIZERS; momentum is SGD with Nesterov momentum 0.9
    learning_rate: float = 2e-3  # the highest of the schedule
    schedule: str = "cosine"  # one of SCHEDULES, from the highest rate to a hundredth of it
    warmup_steps: int = 0  # the rate climbs to its highest over these steps
    weight_decay: float = 0.0  # adamw only, per step and times the learning rate
    max_gradient_norm: float = 1.0  # over all weights together (Pascanu et al. 2013)
    eval_steps: int = 0  # steps between looks at valid; 0: once an epoch
    patience: int = 0  # looks at valid without a better loss before stopping; 0: never stop early
    max_seconds: float = 0.0  # stop (and finish the schedule) after this time; 0: no limit. Such a run is not repeatable.
    seed: int = 42  # of the order of the windows

    def __post_init__(self) -> None:
        """Check every setting where it enters."""
        check_positive(epochs=self.epochs, batch_size=self.batch_size, window=self.window)
        check_choice(OPTIMIZERS, optimizer=self.optimizer)
        check_choice(SCHEDULES, schedule=self.schedule)
        check_share(weight_decay=self.weight_decay)
        for name in ("learning_rate", "max_gradient_norm"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}, but must be above 0, e.g. {name}=0.001.")
        for name in ("warmup_steps", "eval_steps", "patience", "max_seconds"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}, but must be 0 or more.")


class WindowBatches:
    """Batches of windows from one stream of token ids; each epoch cuts at a new offset and shuffles the windows.

    `batch(epoch, index)` depends on nothing but its arguments, so training can go on in the middle of an epoch. The stream may
    be a memory map: only the windows of one batch are read at a time.
    """

    def __init__(self, token_ids: np.ndarray, *, window: int, batch_size: int, seed: int = 42):
        """Prepare the batches.

        Args:
            token_ids: Shape (num_tokens,).
            window: Tokens in one example.
            batch_size: Windows in one batch; fewer if the stream has fewer.
            seed: Of offsets and order.
        """
        check_positive(window=window, batch_size=batch_size)
        if token_ids.ndim != 1 or len(token_ids) < 2 * window + 1:
            raise ValueError(
                f"token_ids has shape {token_ids.shape}, but training on windows of {window} needs a flat array of at least "
                f"{2 * window + 1} tokens. Use more text or a smaller window."
            )
        self.token_ids = token_ids
        self.window = window
        self.seed = seed
        # One window less than fits, so that every offset gives the same number.
        self._num_windows = (len(token_ids) - 1) // window - 1
        self.batch_size = min(batch_size, self._num_windows)
        self._epoch = -1

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return self._num_windows // self.batch_size

    def batch(self, epoch: int, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return inputs and targets of one batch, int32, shape (batch, window)."""
        if epoch != self._epoch:
            rng = np.random.default_rng([self.seed, epoch])
            offset = int(rng.integers(0, self.window))
            self._starts = offset + self.window * rng.permutation(self._num_windows)
            self._epoch = epoch
        starts = self._starts[index * self.batch_size : (index + 1) * self.batch_size]
        windows = self.token_ids[starts[:, None] + np.arange(self.window + 1)].astype("int32")
        return windows[:, :-1], windows[:, 1:]

    def fingerprint(self) -> str:
        """Return a short code of the stream, to notice that a checkpoint belongs to other data."""
        sample = np.ascontiguousarray(self.token_ids[:: max(1, len(self.token_ids) // 10_000)], dtype="int64")
        return f"{len(self.token_ids)}-{hashlib.sha256(sample.tobytes()).hexdigest()[:16]}"


def fit_model(
    model: keras.Model,
    train_ids: np.ndarray,
    valid_ids: np.ndarray | None = None,
    *,
    config: TrainConfig,
    checkpoint_dir: str | Path | None = None,
    checkpoint_steps: int = 200,
) -> pd.DataFrame:
    """Train a language model to predict the next token.

    With a validation stream the best weights seen on it are put back at the end, and training stops early after `patience`
    looks without a better loss. With `checkpoint_dir`, a run that was cut off goes on where its last checkpoint stands and
    ends with the weights of an unbroken run; a finished run only loads its result. Ctrl-C stops after the step and writes one.

    Args:
        model: From `build_language_model`; its weights are changed in place.
        train_ids: Token ids, shape (num_tokens,).
        valid_ids: Token ids of the validation split; at least one window.
        config: All settings.
        checkpoint_dir: Folder for the checkpoint file.
        checkpoint_steps: Steps between checkpoints.

    Returns:
        History in long form, one row a look: step, epoch, split ("train": mean since the last look; "valid"), loss_nats,
        learning_rate, seconds (of training so far).

    Raises:
        ValueError: If the checkpoint belongs to other settings, another model or other data.
        FloatingPointError: If the loss or, at a checkpoint, a weight becomes NaN or infinite; the last good checkpoint stays.
    """
    batches = WindowBatches(train_ids, window=config.window, batch_size=config.batch_size, seed=config.seed)
    valid = make_windows(valid_ids, config.window) if valid_ids is not None else None
    compile_model(model, config)
    run = _Run(model, config, batches)
    checkpoint = Path(checkpoint_dir) / "checkpoint.safetensors" if checkpoint_dir is not None else None
    if checkpoint is not None:
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        if checkpoint.exists():
            run.load(checkpoint)
    num_steps = config.epochs * len(batches)
    eval_steps = config.eval_steps or len(batches)
    with _interrupt_after_step() as interrupts, ProgressLine() as line:
        while not run.done and not interrupts:
            run.train_step(num_steps)
            line.update(f"step {run.step} of {num_steps}, loss {run.last_loss:.3f} nats per token, {run.seconds:.0f} s")
            last = run.step == num_steps or bool(config.max_seconds and run.seconds >= config.max_seconds)
            if run.step % eval_steps == 0 or last:
                run.look(valid)
            run.done = last or bool(config.patience and run.looks_since_best >= config.patience)
            if checkpoint is not None and (run.step % checkpoint_steps == 0 or run.done or interrupts):
                run.save(checkpoint)
    run.restore_best()
    return pd.DataFrame(run.history, columns=list(HISTORY_COLUMNS))


def compile_model(model: keras.Model, config: TrainConfig) -> None:
    """Give `model` its optimiser and the cross-entropy over logits."""
    rate, norm = float(config.learning_rate), float(config.max_gradient_norm)  # Keras refuses whole numbers
    optimizer = {
        "sgd": lambda: keras.optimizers.SGD(rate, global_clipnorm=norm),
        "momentum": lambda: keras.optimizers.SGD(rate, momentum=0.9, nesterov=True, global_clipnorm=norm),
        "adam": lambda: keras.optimizers.Adam(rate, global_clipnorm=norm),
        "adamw": lambda: keras.optimizers.AdamW(rate, weight_decay=config.weight_decay, global_clipnorm=norm),
    }[config.optimizer]()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    # XLA compiles the loop over time for minutes on the CPU and gains nothing with TensorFlow; JAX runs on nothing else.
    model.compile(optimizer, loss=loss, jit_compile=keras.backend.backend() == "jax")


def learning_rate_at(config: TrainConfig, step: int, progress: float) -> float:
    """Return the learning rate of a step (from 0), given the share of training done.

    Example:
        >>> learning_rate_at(TrainConfig(learning_rate=1.0, schedule="linear"), 50, 0.5)
        0.505
    """
    warm = min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
    left = {"constant": 1.0, "linear": 1 - progress, "cosine": 0.5 * (1 + math.cos(math.pi * progress))}[config.schedule]
    return config.learning_rate * warm * (0.01 + 0.99 * left)


def evaluate_loss(model: keras.Model, token_ids: np.ndarray, *, window: int = 64, batch_size: int = 64) -> float:
    """Return the mean loss in nats per token over windows that each start from a zero state."""
    if getattr(model, "optimizer", None) is None:
        compile_model(model, TrainConfig())
    return _mean_loss(model, make_windows(token_ids, window), batch_size)


def count_tokens_trained(history: pd.DataFrame, config: TrainConfig) -> int:
    """Return how many target tokens the run of `history` has trained on."""
    return int(history["step"].max()) * config.batch_size * config.window


class _Run:
    """The moving parts of one training run: where it stands, its best weights, its history."""

    def __init__(self, model: keras.Model, config: TrainConfig, batches: WindowBatches):
        self.model, self.config, self.batches = model, config, batches
        model.optimizer.build(model.trainable_variables)
        self.step = 0
        self.done = False
        self.seconds = 0.0
        self.last_loss = math.nan
        self.loss_sum, self.loss_count = 0.0, 0
        self.best_loss, self.looks_since_best = math.inf, 0
        self.best: list[np.ndarray] = []
        self.history: list[tuple] = []

    def train_step(self, num_steps: int) -> None:
        started = time.perf_counter()
        config = self.config
        epoch, index = divmod(self.step, len(self.batches))
        spent = self.seconds / config.max_seconds if config.max_seconds else 0.0
        self.rate = learning_rate_at(config, self.step, min(1.0, max(self.step / num_steps, spent)))
        self.model.optimizer.learning_rate = self.rate
        self.model.reset_metrics()  # else Keras returns the mean over all steps so far
        self.last_loss = float(self.model.train_on_batch(*self.batches.batch(epoch, index)))
        self.step += 1
        self.seconds += time.perf_counter() - started
        if not math.isfinite(self.last_loss):
            raise FloatingPointError(
                f"The loss is {self.last_loss} at step {self.step}. Lower the learning rate (now {self.rate:g}) or "
                "max_gradient_norm. The last checkpoint, if any, is intact."
            )
        self.loss_sum += self.last_loss
        self.loss_count += 1

    def look(self, valid: tuple[np.ndarray, np.ndarray] | None) -> None:
        """Add rows to the history and keep the weights if they are the best on valid so far."""
        epoch = self.step / len(self.batches)
        rows = [("train", self.loss_sum / self.loss_count)]
        self.loss_sum, self.loss_count = 0.0, 0
        if valid is not None:
            started = time.perf_counter()
            loss = _mean_loss(self.model, valid, self.config.batch_size)
            self.seconds += time.perf_counter() - started
            rows.append(("valid", loss))
            self.looks_since_best += 1
            if loss < self.best_loss:
                self.best_loss, self.looks_since_best = loss, 0
                self.best = [keras.ops.convert_to_numpy(w).copy() for w in self.model.weights]
        self.history += [(self.step, epoch, split, loss, self.rate, self.seconds) for split, loss in rows]

    def restore_best(self) -> None:
        if self.best:
            self.model.set_weights(self.best)

    def _variables(self) -> list[Any]:
        # Metric variables are left out: they are reset at each step.
        metrics = {id(v) for v in self.model.metrics_variables}
        return [v for v in self.model.variables if id(v) not in metrics] + list(self.model.optimizer.variables)

    def _identity(self) -> dict[str, Any]:
        """What must agree for a checkpoint to go on."""
        return {
            "config": asdict(self.config),
            "model": getattr(self.model, "recipe", self.model.name),
            "data": self.batches.fingerprint(),
        }

    def save(self, path: Path) -> None:
        tensors = {f"now/{i}": np.atleast_1d(keras.ops.convert_to_numpy(v)) for i, v in enumerate(self._variables())}
        tensors |= {f"best/{i}": np.atleast_1d(values) for i, values in enumerate(self.best)}
        if not all(np.isfinite(values).all() for values in tensors.values()):
            # The loss shows it one step later only, when the last good checkpoint would be gone.
            raise FloatingPointError(
                f"The weights are NaN or infinite after step {self.step}. Lower the learning rate (now {self.rate:g}) or "
                "max_gradient_norm. The last checkpoint, if any, is intact."
            )
        names = ("step", "done", "seconds", "loss_sum", "loss_count", "best_loss", "looks_since_best", "history")
        state = {name: getattr(self, name) for name in names}
        with atomic_write(path, "wb") as file:
            file.write(save(tensors, metadata={"state": json.dumps(state), "identity": json.dumps(self._identity())}))

    def load(self, path: Path) -> None:
        try:
            with safe_open(path, framework="numpy") as file:
                metadata = file.metadata()
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dictionary
        except SafetensorError as error:
            raise ValueError(f"{path} cannot be read ({error}). Remove it to start anew.") from error
        theirs, ours = json.loads(metadata["identity"]), json.loads(json.dumps(self._identity()))
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


@contextmanager
def _interrupt_after_step() -> Iterator[list[int]]:
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


def _mean_loss(model: keras.Model, windows: tuple[np.ndarray, np.ndarray], batch_size: int) -> float:
    inputs, targets = windows
    total = 0.0
    for start in range(0, len(inputs), batch_size):
        x, y = inputs[start : start + batch_size], targets[start : start + batch_size]
        model.reset_metrics()
        # Sum over windows, then divide: averaging batch means would overweight a short last batch.
        total += float(model.test_on_batch(x, y)) * len(x)
    return total / len(inputs)
