"""Fine-tune a network on labelled rows of any task: batches of like length, a learning rate for each layer, freezing, early stopping.

A task says what its rows are (`Examples`) and what the network's scores mean; the loss is the cross-entropy of each target. The
step is compiled for any length and kept with the model, so that training the same model again (few-shot curves, several seeds)
starts at once: put the weights back, or copy a base into it, and call `fit_examples` again.
"""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

from slm_helpers._backend import cached_on, keras, quiet_retracing
from slm_helpers._processor import has_bfloat16
from slm_helpers._progress import ProgressLine
from slm_helpers.metrics.classification import fit_temperature
from slm_helpers.metrics.language_model import token_losses
from slm_helpers.training.batches import Examples, pad_rows
from slm_helpers.training.config import ROW_DEFAULTS, TrainConfig, learning_rate_at
from slm_helpers.training.loop import computing_in, interrupt_after_step
from slm_helpers.training.optimizers import LayerAdam

import numpy as np
import pandas as pd

ops = keras.ops


HISTORY_COLUMNS = ("step", "epoch", "split", "loss_nats", "accuracy", "learning_rate", "seconds")


_MOST_SCORES = 1 << 26  # of valid that are kept at once, a quarter of a GB: of all texts, a vocabulary's could be ten


def fit_examples(
    model: keras.Model,
    train: Examples,
    valid: Examples | None = None,
    *,
    config: TrainConfig,
    on_step: Callable[[int, float], None] | None = None,
) -> pd.DataFrame:
    """Train a network on labelled rows; its weights are changed in place.

    With a validation part the weights of the epoch with the lowest loss on it, at the best temperature, are put back at the end.
    Of a part whose scores would not fit into memory, evenly spaced rows are looked at.
    Ctrl-C stops after the step under way and leaves the weights as they then are.

    Args:
        model: Its inputs are those of the examples; its output, float32 scores of shape (..., num_choices), has one row of scores
            for each target. Layers named logits or pooling (and what follows, as logits_start) compute in float32 always.
        train: Rows to learn from.
        valid: Rows to look at after each epoch.
        config: Settings; what they leave open is that of ROW_DEFAULTS.
        on_step: Called after each step with its number, from 1, and its loss.

    Returns:
        History in long form, two rows an epoch with valid and one without: step, epoch, split ("train": mean over the epoch,
        with dropout; "valid"), loss_nats, accuracy (of valid, over targets), learning_rate (of the head), seconds (so far).

    Raises:
        ValueError: If a frozen layer does not exist.
        FloatingPointError: If the loss becomes NaN or infinite.
    """
    config = config.with_defaults(ROW_DEFAULTS)
    _check_layers(model, config)
    if valid is not None and valid.along is not None:
        valid = valid.thinned(-(-sum(target.size for target in valid.targets) * model.output_shape[-1] // _MOST_SCORES))
    started = time.perf_counter()
    trainer = _trainer_of(model, config)
    trainer.reset(config.seed)
    batch_size, num_batches = train.batch_sizes(config.batch_size)
    num_steps = config.epochs * num_batches
    history, best, best_loss, worse, step, rate = [], None, math.inf, 0, 0, 0.0
    with interrupt_after_step() as interrupts, ProgressLine() as line:
        for epoch in range(config.epochs):
            trainer.optimizer.set_factors(_layer_factors(model, config, epoch))
            losses, out_of_time = [], False
            for picked in train.batches(batch_size, num_batches, np.random.default_rng([config.seed, epoch])):
                spent = (time.perf_counter() - started) / config.max_seconds if config.max_seconds else 0.0
                rate = learning_rate_at(config, step, num_steps, time_share=spent)
                losses.append(trainer.step(rate, *train.batch(picked, batch_size)))
                step += 1
                if not math.isfinite(losses[-1]):
                    raise FloatingPointError(f"The loss is {losses[-1]} at step {step}. Lower the learning rate (now {rate:g}).")
                if on_step is not None:
                    on_step(step, losses[-1])
                line.update(f"step {step} of {num_steps}, loss {losses[-1]:.3f} nats, {time.perf_counter() - started:.0f} s")
                out_of_time = bool(config.max_seconds) and time.perf_counter() - started >= config.max_seconds
                if interrupts or out_of_time:
                    break
            looks = [("train", float(np.mean(losses)), math.nan)]
            if valid is not None and not interrupts:
                scores, targets, weights = _scores_of(model, valid)
                looks.append(("valid", *_loss_and_accuracy(scores, targets, weights)))
                # A network that has grown too sure of itself may still be the best one: tasks mend that by a temperature.
                scaled, _ = _loss_and_accuracy(scores, targets, weights, temperature=fit_temperature(scores, targets))
                worse += 1
                if scaled < best_loss:
                    best_loss, worse, best = scaled, 0, [ops.convert_to_numpy(w).copy() for w in model.weights]
            seconds = time.perf_counter() - started
            history += [(step, step / num_batches, split, loss, right, rate, seconds) for split, loss, right in looks]
            if interrupts or out_of_time or (config.patience and worse >= config.patience):
                break
    if best is not None:
        model.set_weights(best)
    return pd.DataFrame(history, columns=list(HISTORY_COLUMNS))


def run_rows(
    model: keras.Model, inputs: dict[str, Sequence[np.ndarray]], *, along: str | None = None, by: str | None = None, batch_size: int = 128
) -> list[np.ndarray]:
    """Run a model over rows of any number, sorted by length into batches; returns its output for each row, in their order.

    Args:
        model: Any network with these inputs.
        inputs: As in `Examples`.
        along: Name of the input whose first axis the output runs along: what stands behind a row's own length is cut off.
        by: Name of the input whose length costs most, by which rows are sorted; the first unless given.
        batch_size: Rows run together.
    """
    columns = {name: [np.asarray(row) for row in rows] for name, rows in inputs.items()}
    order = np.argsort([len(row) for row in columns[by or next(iter(columns))]], kind="stable")
    outputs: list[np.ndarray] = [np.empty(0)] * len(order)
    for start in range(0, len(order), batch_size):
        picked = order[start : start + batch_size]
        padded = [pad_rows([rows[i] for i in picked], min(batch_size, len(order)), exact=True) for rows in columns.values()]
        with quiet_retracing():
            found = ops.convert_to_numpy(model.predict_on_batch(padded if len(padded) > 1 else padded[0]))
        for row, i in zip(found, picked, strict=False):
            outputs[i] = row if along is None else row[: len(columns[along][i])]
    return outputs


def measure_examples(model: keras.Model, examples: Examples) -> tuple[float, float]:
    """Return the mean loss in nats and the share of targets whose score is the highest, over all targets that count."""
    return _loss_and_accuracy(*_scores_of(model, examples))


def _scores_of(model: keras.Model, examples: Examples) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the scores, targets and weights of all targets that count, one row each."""
    outputs = run_rows(model, examples.inputs, along=examples.along)
    flat = [target.reshape(-1) for target in examples.targets]
    scores = np.concatenate([row.reshape(-1, row.shape[-1])[target >= 0] for row, target in zip(outputs, flat, strict=True)])
    targets = np.concatenate(flat)
    counts = targets >= 0
    weights = np.repeat(examples.weights, [target.size for target in examples.targets])
    if examples.target_weights is not None:
        weights = weights * np.concatenate([row.reshape(-1) for row in examples.target_weights])
    return scores, targets[counts], weights[counts]


def _loss_and_accuracy(scores: np.ndarray, targets: np.ndarray, weights: np.ndarray, *, temperature: float = 1.0) -> tuple[float, float]:
    losses = token_losses(scores, targets, temperature=temperature)
    return float((losses * weights).sum() / weights.sum()), float((scores.argmax(axis=1) == targets).mean())


def layer_names(model: keras.Model) -> list[str]:
    """Return the names of the layers with weights, from the embedding up to the head."""
    return [layer.name for layer in model.layers if layer.weights]


def softmax(scores: np.ndarray) -> np.ndarray:
    """Return the probabilities of scores along the last axis."""
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


class _Trainer(keras.Model):
    """[*inputs, targets, weights] -> mean loss, as one compiled step on every backend."""

    def __init__(self, model: keras.Model, config: TrainConfig):
        super().__init__(name="finetune_trainer")
        self.network = model
        self.dropouts = [layer for layer in model.layers if isinstance(layer, keras.layers.Dropout)]
        self.policy = keras.DTypePolicy("mixed_bfloat16" if _in_bfloat16(config) else "float32")
        self.built = True
        self.compile(LayerAdam(config.max_gradient_norm), jit_compile=keras.backend.backend() == "jax")
        self.optimizer.build(self.trainable_variables)
        self.start = [ops.convert_to_numpy(v) for v in self.optimizer.variables]

    def call(self, arguments: list, training: bool = False) -> Any:
        *inputs, targets, weights = arguments
        low = [layer for layer in self.network.layers if not layer.name.startswith(("logits", "pooling"))]
        with computing_in(low, self.policy):
            scores = self.network(inputs if len(inputs) > 1 else inputs[0], training=training)
        losses = keras.losses.sparse_categorical_crossentropy(ops.cast(targets, "int32"), ops.cast(scores, "float32"), from_logits=True)
        return ops.sum(losses * weights) / ops.maximum(ops.sum(weights), 1e-9)

    def compute_loss(self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True) -> Any:
        return y_pred

    def reset(self, seed: int) -> None:
        """Forget the optimiser's memory of an earlier run, and start dropout from `seed`."""
        for variable, value in zip(self.optimizer.variables, self.start, strict=True):
            variable.assign(value)
        for i, layer in enumerate(self.dropouts):
            if layer.rate:
                layer.seed_generator.state.assign(np.array([seed, i], dtype="uint32"))

    def step(self, rate: float, inputs: list[np.ndarray], targets: np.ndarray, weights: np.ndarray) -> float:
        self.optimizer.learning_rate = rate
        self.reset_metrics()  # else Keras returns the mean over all steps so far
        with quiet_retracing():
            return float(self.train_on_batch([*inputs, targets, weights]))


def _layer_factors(model: keras.Model, config: TrainConfig, epoch: int) -> dict[str, float]:
    """Return what each layer's learning rate is multiplied with in an epoch (from 0)."""
    factors = {}
    for depth, name in enumerate(reversed(layer_names(model))):
        thawed = name not in config.frozen and epoch >= depth * config.unfreeze_epochs
        factors[name] = config.layer_decay**depth if thawed else 0.0
    return factors


def _trainer_of(model: keras.Model, config: TrainConfig) -> _Trainer:
    """Return the compiled step for such settings."""
    key = ("trainer", _in_bfloat16(config), config.max_gradient_norm)
    return cached_on(model, key, lambda: _Trainer(model, config))


def _check_layers(model: keras.Model, config: TrainConfig) -> None:
    names = layer_names(model)
    unknown = [name for name in config.frozen if name not in names]
    if unknown:
        raise ValueError(f"frozen names {', '.join(unknown)}, but the layers with weights are {', '.join(names)}.")
    if names[-1] in config.frozen:
        raise ValueError(f"frozen names the head {names[-1]}, which starts from random weights and has to learn.")


def _in_bfloat16(config: TrainConfig) -> bool:
    return config.precision == "bfloat16" or (config.precision == "auto" and has_bfloat16())
