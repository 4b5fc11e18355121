"""Train a language model on a stream of token ids."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from slm_helpers._backend import cached_on, keras
from slm_helpers.data.splits import make_windows
from slm_helpers.models.fast_rnn import mean_cross_entropy
from slm_helpers.models.language_model import make_backbone, output_weights
from slm_helpers.training.batches import DocumentStreams, StreamBatches, WindowBatches, fingerprint_of_stream
from slm_helpers.training.config import STREAM_DEFAULTS, TrainConfig, check_unused
from slm_helpers.training.loop import CHECKPOINT_NAME, TrainingRun, run_training
from slm_helpers.training.step import CompiledStep, computing_in

import numpy as np
import pandas as pd

ops = keras.ops


def fit_model(
    model: keras.Model,
    train_ids: np.ndarray,
    valid_ids: np.ndarray | None = None,
    *,
    config: TrainConfig,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    checkpoint_dir: str | Path | None = None,
    checkpoint_steps: int = 200,
) -> pd.DataFrame:
    """Train a language model to predict the next token.

    With a validation stream the best weights seen on it are put back at the end, and training stops early after `patience`
    evaluations without a better loss. With `checkpoint_dir`, a run that was cut off, by Ctrl-C, SIGTERM or a kill, goes on where
    its last checkpoint stands and ends with the weights of an unbroken run; a finished run only loads its result, unless it is now
    to be longer. Ctrl-C stops after the step under way, with `TrainingInterrupted`.

    Args:
        model: From `build_language_model`; its weights are changed in place.
        train_ids: Token ids, shape (num_tokens,).
        valid_ids: Token ids of the validation split; at least one window.
        config: Settings; what they leave open is that of STREAM_DEFAULTS.
        callbacks: Keras callbacks, e.g. `keras.callbacks.EarlyStopping`; they see loss and val_loss, and may set
            `model.stop_training`. A run that goes on tells them nothing of its earlier steps.
        checkpoint_dir: Folder for the checkpoint file.
        checkpoint_steps: Steps between checkpoints.

    Returns:
        History in long form, one row an evaluation and split: step, epoch, split ("train": mean since the last evaluation; "valid"),
        loss_nats, learning_rate, seconds (of training so far). `history.attrs["cpu_seconds"]` is what the steps took of all cores,
        `history.attrs["num_steps"]` how many were made.

    Raises:
        ValueError: If the checkpoint belongs to other settings, another model or other data, or a setting is of rows only.
        OSError: If the checkpoint folder cannot be written to, before the first step; or if the disk is full at a checkpoint: the one
            before it stays.
        FloatingPointError: If the loss or, at a checkpoint, a weight becomes NaN or infinite; the last good checkpoint stays.
    """
    run = _make_run(model, train_ids, valid_ids, config)
    return run_training(run, callbacks=callbacks, checkpoint_dir=checkpoint_dir, checkpoint_steps=checkpoint_steps)


def load_checkpoint(
    model: keras.Model, train_ids: np.ndarray, valid_ids: np.ndarray | None = None, *, config: TrainConfig, checkpoint_dir: str | Path
) -> pd.DataFrame:
    """Put the weights of the last checkpoint of a run, which may still be going on, into its model; nothing is trained or written.

    With `ema_decay` it is the running average of the weights. The arguments are those of `fit_model`.

    Returns:
        The history up to the checkpoint, as from `fit_model`.

    Raises:
        FileNotFoundError: If there is no checkpoint.
        ValueError: If it belongs to other settings, another model or other data.
    """
    path = Path(checkpoint_dir) / CHECKPOINT_NAME
    if not path.exists():
        raise FileNotFoundError(f"{path}: there is no such checkpoint. Train for some steps first.")
    run = _make_run(model, train_ids, valid_ids, config)
    run.load(path)
    run.use_average()
    return run.table()


def _make_run(model: keras.Model, train_ids: np.ndarray, valid_ids: np.ndarray | None, config: TrainConfig) -> TrainingRun:
    check_unused(config, "fit_model", "layer_decay", "frozen", "unfreeze_epochs", "class_weight")
    config = config.with_defaults(STREAM_DEFAULTS)
    make_batches = DocumentStreams if config.shuffle_documents else StreamBatches if config.carry_state else WindowBatches
    batches = make_batches(train_ids, window=config.window, batch_size=config.batch_size, seed=config.seed)
    compiled = StreamStep(model, config, batch_size=batches.batch_size)
    valid = None if valid_ids is None else _validation_batches(valid_ids, config)
    return TrainingRun(
        model,
        config,
        batches,
        compiled,
        evaluate=None if valid is None else loss_on(compiled, valid),
        valid_fingerprint="" if valid_ids is None else fingerprint_of_stream(valid_ids),
    )


def evaluate_loss(model: keras.Model, token_ids: np.ndarray, *, window: int = 64, batch_size: int = 64) -> float:
    """Return the mean loss in nats per token over windows that each start from a zero state."""
    config = TrainConfig(batch_size=batch_size, window=window).with_defaults(STREAM_DEFAULTS)
    compiled = cached_on(model, "stream_step", lambda: StreamStep(model, config))
    return mean_loss(compiled, _validation_batches(token_ids, config))


def count_tokens_trained(history: pd.DataFrame, config: TrainConfig) -> int:
    """Return how many target tokens the run of `history` has trained on."""
    config = config.with_defaults(STREAM_DEFAULTS)
    return int(history["step"].max()) * config.batch_size * config.window


class StreamStep(CompiledStep):
    """[inputs, targets, weights, carry_mask] -> mean loss. The carried states are variables, set to zero for windows that start anew."""

    def __init__(self, model: keras.Model, config: TrainConfig, *, batch_size: int | None = None):
        super().__init__(model, config)
        self.body = make_backbone(model)
        self.sizes = [state.shape[-1] for state in self.body.inputs[1:]]
        sizes = self.sizes if config.carry_state and batch_size else []
        self.carried = [self.add_weight(shape=(batch_size, n), initializer="zeros", trainable=False) for n in sizes]

    def call(self, arguments: list, training: bool = False) -> Any:
        """Return the mean loss over the targets that count."""
        inputs, targets, weights, carry_mask = arguments
        carries = bool(self.carried) and training
        mask = ops.cast(carry_mask, "float32")[:, None]
        states = [s * mask for s in self.carried] if carries else [ops.zeros((ops.shape(inputs)[0], n)) for n in self.sizes]
        with computing_in(self.body, self.policy):
            outputs = self.body([inputs, *states], training=training)
        features, *states = outputs if isinstance(outputs, list) else [outputs]  # a network without states gives one tensor
        if carries:
            for variable, state in zip(self.carried, states, strict=True):
                variable.assign(ops.cast(state, "float32"))
        flat = ops.reshape(ops.cast(features, self.policy.compute_dtype), (-1, features.shape[-1]))
        targets, weights = ops.reshape(ops.cast(targets, "int32"), (-1,)), ops.reshape(weights, (-1,))
        smoothing = self.smoothing if training else 0.0
        return mean_cross_entropy(flat, targets, weights, *output_weights(self.network), smoothing=smoothing)


def mean_loss(compiled: CompiledStep, batches: Sequence[tuple[np.ndarray, ...]]) -> float:
    """Return the mean loss over batches whose third array are the weights."""
    # Weighted by their tokens: a mean of batch means would overweight a short last batch.
    sums = [(compiled.measure(*batch) * batch[2].sum(), batch[2].sum()) for batch in batches]
    return float(sum(loss for loss, _ in sums) / sum(weight for _, weight in sums))


def loss_on(compiled: CompiledStep, batches: Sequence[tuple[np.ndarray, ...]]) -> Any:
    """Return the function by which a `TrainingRun` evaluates on such batches."""

    def evaluate() -> tuple[dict[str, float], float]:
        loss = mean_loss(compiled, batches)
        return {"loss_nats": loss}, loss

    return evaluate


def _validation_batches(token_ids: np.ndarray, config: TrainConfig) -> list[tuple[np.ndarray, ...]]:
    """Return the arrays of `StreamStep` for windows read from a zero state; the last batch is filled up with weight 0."""
    inputs, targets = make_windows(token_ids, config.window)
    size = min(config.batch_size, len(inputs))
    batches = []
    for start in range(0, len(inputs), size):
        x, y = inputs[start : start + size], targets[start : start + size]
        rows = ((0, size - len(x)), (0, 0))
        batches.append((np.pad(x, rows), np.pad(y, rows), np.pad(np.ones(x.shape, "float32"), rows), np.zeros(size, "float32")))
    return batches
