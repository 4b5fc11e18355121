"""Fine-tune a network on labelled rows of any task: batches of like length, a learning rate for each layer, freezing.

A task says what its rows are (`Examples`) and what the network's logits mean; the loss is the cross-entropy of each target. The
step is compiled for any length and kept with the model, so that training the same model again (few-shot curves, several seeds)
starts at once: put the weights back, or copy a base into it, and call `fit_examples` again.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from slm_helpers._backend import cached_on, keras
from slm_helpers.metrics.classification import fit_temperature
from slm_helpers.metrics.language_model import token_losses
from slm_helpers.models.rows import run_rows
from slm_helpers.training.batches import Examples, RowBatches
from slm_helpers.training.config import ROW_DEFAULTS, TrainConfig, check_unused
from slm_helpers.training.loop import TrainingRun, run_training
from slm_helpers.training.optimizers import LayerAdam, averaging
from slm_helpers.training.step import CompiledStep, computes_in_bfloat16, computing_in

import numpy as np
import pandas as pd

ops = keras.ops


HISTORY_COLUMNS = ("step", "epoch", "split", "loss_nats", "accuracy", "learning_rate", "seconds")


_MAX_LOGITS = 1 << 26  # of valid that are held at once, a quarter of a GB: of all texts, a vocabulary's could be ten


def fit_examples(
    model: keras.Model,
    train: Examples,
    valid: Examples | None = None,
    *,
    config: TrainConfig,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    checkpoint_dir: str | Path | None = None,
    checkpoint_steps: int = 200,
) -> pd.DataFrame:
    """Train a network on labelled rows; its weights are changed in place.

    With a validation part the weights with the lowest loss on it, at the best temperature, are put back at the end. Of a part whose
    logits would not fit into memory, evenly spaced rows are evaluated. What `fit_model` says of callbacks, checkpoints and Ctrl-C
    holds here too.

    Args:
        model: Its inputs are those of the examples; its output, float32 logits of shape (..., num_choices), has one row for each
            target. Layers with `dtype=slm_helpers.models.layers.FLOAT32` compute in float32 always.
        train: Rows to learn from.
        valid: Rows to evaluate on after each epoch.
        config: Settings; what they leave open is that of ROW_DEFAULTS.
        callbacks: Keras callbacks; they see loss, val_loss and val_accuracy.
        checkpoint_dir: Folder for the checkpoint file.
        checkpoint_steps: Steps between checkpoints.

    Returns:
        History in long form, one row an evaluation and split: step, epoch, split ("train": mean since the last one, with dropout;
        "valid"), loss_nats, accuracy (of valid, over targets), learning_rate (of the head), seconds (so far).

    Raises:
        ValueError: If a frozen layer does not exist, a setting is not of rows, or the checkpoint belongs to another run.
        FloatingPointError: If the loss becomes NaN or infinite.
    """
    check_unused(config, "fit_examples", "weight_decay", "label_smoothing", "carry_state", "shuffle_documents")
    config = config.with_defaults(ROW_DEFAULTS)
    if config.optimizer != "adam":
        raise ValueError(f"optimizer is {config.optimizer!r}, but fit_examples trains with adam, at a rate for each layer. Leave it None.")
    _check_layers(model, config)
    if valid is not None and valid.along is not None:
        valid = valid.subsample(-(-sum(target.size for target in valid.targets) * model.output_shape[-1] // _MAX_LOGITS))
    compiled = cached_on(model, step_key(config), lambda: RowStep(model, config))
    compiled.reset(config)
    run = TrainingRun(
        model,
        config,
        RowBatches(train, batch_size=config.batch_size, seed=config.seed),
        compiled,
        evaluate=None if valid is None else partial(_evaluate, model, valid),
        valid_fingerprint="" if valid is None else valid.fingerprint(),
        columns=HISTORY_COLUMNS,
    )
    return run_training(run, callbacks=callbacks, checkpoint_dir=checkpoint_dir, checkpoint_steps=checkpoint_steps)


def _evaluate(model: keras.Model, valid: Examples) -> tuple[dict[str, float], float]:
    """Return loss and accuracy, and the loss at the best temperature."""
    logits, targets, weights = _logits_of(model, valid)
    loss, accuracy = _loss_and_accuracy(logits, targets, weights)
    # A network that has grown too sure of itself may still be the best one: tasks mend that by a temperature.
    scaled, _ = _loss_and_accuracy(logits, targets, weights, temperature=fit_temperature(logits, targets))
    return {"loss_nats": loss, "accuracy": accuracy}, scaled


def _logits_of(model: keras.Model, examples: Examples) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
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


class RowStep(CompiledStep):
    """[*inputs, targets, weights] -> mean loss; kept with the model, so that training it again compiles nothing."""

    def __init__(self, model: keras.Model, config: TrainConfig):
        super().__init__(model, config, LayerAdam(config.max_gradient_norm, **averaging(config)))
        self.dropouts = [layer for layer in model.layers if isinstance(layer, keras.layers.Dropout)]
        self.start = [ops.convert_to_numpy(v) for v in self.optimizer.variables]

    def call(self, arguments: list, training: bool = False) -> Any:
        """Return the mean loss over the targets that count."""
        *inputs, targets, weights = arguments
        with computing_in(self.network, self.policy):
            logits = self.network(inputs if len(inputs) > 1 else inputs[0], training=training)
        losses = keras.losses.sparse_categorical_crossentropy(ops.cast(targets, "int32"), ops.cast(logits, "float32"), from_logits=True)
        return ops.sum(losses * weights) / ops.maximum(ops.sum(weights), 1e-9)

    def reset(self, config: TrainConfig) -> None:
        """Forget the optimiser's memory of an earlier run, and start dropout from the seed."""
        self.config = config
        for variable, value in zip(self.optimizer.variables, self.start, strict=True):
            variable.assign(value)
        for i, layer in enumerate(self.dropouts):
            if layer.rate:
                layer.seed_generator.state.assign(np.array([config.seed, i], dtype="uint32"))

    def start_epoch(self, epoch: int) -> None:
        """Set how fast each layer learns in an epoch (from 0)."""
        self.optimizer.set_factors(_layer_factors(self.network, self.config, epoch))


def step_key(config: TrainConfig) -> tuple:
    """Return the settings that are compiled into a step."""
    return ("row_step", computes_in_bfloat16(config), config.max_gradient_norm, config.ema_decay)


def _layer_factors(model: keras.Model, config: TrainConfig, epoch: int) -> dict[str, float]:
    """Return what each layer's learning rate is multiplied with in an epoch (from 0)."""
    factors = {}
    for depth, name in enumerate(reversed(layer_names(model))):
        thawed = name not in config.frozen and epoch >= depth * config.unfreeze_epochs
        factors[name] = config.layer_decay**depth if thawed else 0.0
    return factors


def _check_layers(model: keras.Model, config: TrainConfig) -> None:
    names = layer_names(model)
    unknown = [name for name in config.frozen if name not in names]
    if unknown:
        raise ValueError(f"frozen names {', '.join(unknown)}, but the layers with weights are {', '.join(names)}.")
    if names[-1] in config.frozen:
        raise ValueError(f"frozen names the head {names[-1]}, which starts from random weights and has to learn.")
