"""Fine-tune a network on labelled rows of any task: batches of like length, a learning rate for each layer, freezing, early stopping.

A task says what its rows are (`Examples`) and what the network's scores mean; the loss is the cross-entropy of each target. The
step is compiled for any length and kept with the model, so that training the same model again (few-shot curves, several seeds)
starts at once: put the weights back, or copy a base into it, and call `fit_examples` again.
"""

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from slm_helpers._backend import has_bfloat16, keras
from slm_helpers._checks import check_choice, check_positive
from slm_helpers._progress import ProgressLine
from slm_helpers.metrics.classification import fit_temperature, token_losses
from slm_helpers.text.tokenizers import Tokenizer
from slm_helpers.training.loop import PRECISIONS, SCHEDULES, TrainConfig, _computing_in, _interrupt_after_step, learning_rate_at

import numpy as np
import pandas as pd

ops = keras.ops

HISTORY_COLUMNS = ("step", "epoch", "split", "loss_nats", "accuracy", "learning_rate", "seconds")
_MOST_SCORES = 1 << 26  # of valid that are kept at once, a quarter of a GB: of all texts, a vocabulary's could be ten
_POOL = 16  # batches' worth of rows that are sorted by length before they are cut into batches


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """Settings of one fine-tuning run; the optimiser is Adam."""

    epochs: int = 6
    batch_size: int = 32  # texts
    learning_rate: float = 1e-3  # of the head, the highest of the schedule
    schedule: str = "linear"  # one of SCHEDULES, from the highest rate to a hundredth of it
    warmup_share: float = 0.1  # of all steps; the rate climbs to its highest over these
    layer_decay: float = 1.0  # each layer learns at this times the rate of the layer above it (Howard and Ruder 2018: 1 / 2.6)
    frozen: tuple[str, ...] = ()  # names of layers that stay as they are, see `layer_names`
    unfreeze_epochs: int = 0  # gradual unfreezing: the head alone for so many epochs, then the layer below it too, and so on
    balanced: bool = False  # every class counts alike in the loss, however many rows it has
    max_gradient_norm: float = 1.0  # over all weights that learn
    patience: int = 0  # epochs without a better loss on valid (at the best temperature) before stopping; 0: never stop early
    max_seconds: float = 0.0  # stop (and finish the schedule) after this time; 0: no limit. Such a run is not repeatable.
    precision: str = "auto"  # of the large products: "float32", "bfloat16", or auto: bfloat16 where the processor multiplies in it
    seed: int = 42  # of the order of the texts and of dropout

    def __post_init__(self) -> None:
        """Check every setting where it enters."""
        check_positive(epochs=self.epochs, batch_size=self.batch_size)
        check_choice(SCHEDULES, schedule=self.schedule)
        check_choice(PRECISIONS, precision=self.precision)
        if isinstance(self.frozen, str):
            raise ValueError(f'frozen is {self.frozen!r}, but must be a tuple of layer names, e.g. frozen=("embedding",).')
        for name in ("learning_rate", "max_gradient_norm", "layer_decay"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}, but must be above 0.")
        if not 0 <= self.warmup_share <= 1:
            raise ValueError(f"warmup_share is {self.warmup_share}, but must lie in [0, 1].")
        for name in ("unfreeze_epochs", "patience", "max_seconds"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}, but must be 0 or more.")


class Examples:
    """Labelled rows of different lengths, and the batches made of them."""

    def __init__(
        self,
        inputs: dict[str, Sequence[np.ndarray]],
        targets: Sequence[Any],
        *,
        along: str | None = None,
        weights: np.ndarray | None = None,
        target_weights: Sequence[np.ndarray] | None = None,
        lengths: np.ndarray | None = None,
    ):
        """Bring inputs and targets together.

        Args:
            inputs: What the network reads, in the order of its inputs: for each a list of arrays, one a row. They may differ in
                length on their first axis and are padded on the right with 0; vectors of floats must have one length.
            targets: One whole number a row, or one array of them: the place of the right answer among the scores; -1 does not count.
            along: Name of the input whose first axis the targets run along, for networks that score each place of a row.
            weights: How much each row counts in the loss; all alike unless given.
            target_weights: How much each target of a row counts beside the row's others, arrays of the shape of the targets.
            lengths: By which rows are sorted into batches; that of the first input unless given.
        """
        self.inputs = {name: [np.asarray(row) for row in rows] for name, rows in inputs.items()}
        self.targets = [np.asarray(target) for target in targets]
        self.along = along
        sizes = {name: len(rows) for name, rows in self.inputs.items()} | {"targets": len(self.targets)}
        if len(set(sizes.values())) > 1 or not self.targets:
            raise ValueError(f"Inputs and targets must have one length of at least 1, but have {sizes}.")
        self.weights = np.ones(len(self.targets), "float32") if weights is None else np.asarray(weights, dtype="float32")
        self.target_weights = None if target_weights is None else [np.asarray(row, dtype="float32") for row in target_weights]
        self.lengths = np.array([row.shape[0] for row in next(iter(self.inputs.values()))]) if lengths is None else lengths

    def __len__(self) -> int:
        return len(self.targets)

    def thinned(self, share: int) -> "Examples":
        """Return every so many'th row."""
        kept = range(0, len(self), share)
        return Examples(
            {name: [rows[i] for i in kept] for name, rows in self.inputs.items()},
            [self.targets[i] for i in kept],
            along=self.along,
            weights=self.weights[kept],
            target_weights=None if self.target_weights is None else [self.target_weights[i] for i in kept],
            lengths=self.lengths[kept],
        )

    def batch_sizes(self, batch_size: int) -> tuple[int, int]:
        """Return the rows of a batch and the number of batches, so that all batches are about equally full."""
        num_batches = -(-len(self) // batch_size)
        return -(-len(self) // num_batches), num_batches

    def batches(self, batch_size: int, num_batches: int, rng: np.random.Generator) -> list[np.ndarray]:
        """Return the rows of each batch of an epoch: drawn at random, but of like length, and in random order."""
        order = rng.permutation(len(self))
        pools = [order[i : i + _POOL * batch_size] for i in range(0, len(order), _POOL * batch_size)]
        order = np.concatenate([pool[np.argsort(self.lengths[pool], kind="stable")] for pool in pools])
        batches = np.array_split(order, num_batches)
        return [batches[i] for i in rng.permutation(num_batches)]

    def batch(self, picked: np.ndarray, batch_size: int) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
        """Return inputs, targets and weights (of the shape of the targets) of some rows, filled up with rows of weight 0."""
        inputs = [_padded([rows[i] for i in picked], batch_size) for rows in self.inputs.values()]
        targets = [self.targets[i] for i in picked]
        if self.along is None:
            targets = np.stack(targets)
            targets = np.pad(targets, [(0, batch_size - len(picked)), *[(0, 0)] * (targets.ndim - 1)], constant_values=-1)
        else:  # 0 is what _padded fills with
            targets = _padded([target + 1 for target in targets], batch_size) - 1
        weights = np.pad(self.weights[picked], (0, batch_size - len(picked)))
        weights = weights.reshape(-1, *[1] * (targets.ndim - 1)) * (targets >= 0)
        if self.target_weights is not None:
            for place, i in enumerate(picked):
                weights[(place, *(slice(size) for size in self.target_weights[i].shape))] *= self.target_weights[i]
        return inputs, np.maximum(targets, 0).astype("int32"), weights.astype("float32")


def fit_examples(
    model: keras.Model,
    train: Examples,
    valid: Examples | None = None,
    *,
    config: FinetuneConfig,
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
        config: All settings.
        on_step: Called after each step with its number, from 1, and its loss.

    Returns:
        History in long form, two rows an epoch with valid and one without: step, epoch, split ("train": mean over the epoch,
        with dropout; "valid"), loss_nats, accuracy (of valid, over targets), learning_rate (of the head), seconds (so far).

    Raises:
        ValueError: If a frozen layer does not exist.
        FloatingPointError: If the loss becomes NaN or infinite.
    """
    _check_layers(model, config)
    if valid is not None and valid.along is not None:
        valid = valid.thinned(-(-sum(target.size for target in valid.targets) * model.output_shape[-1] // _MOST_SCORES))
    started = time.perf_counter()
    trainer = _trainer_of(model, config)
    trainer.reset(config.seed)
    batch_size, num_batches = train.batch_sizes(config.batch_size)
    num_steps = config.epochs * num_batches
    rates = TrainConfig(learning_rate=config.learning_rate, schedule=config.schedule, warmup_steps=round(config.warmup_share * num_steps))
    history, best, best_loss, worse, step, rate = [], None, math.inf, 0, 0, 0.0
    with _interrupt_after_step() as interrupts, ProgressLine() as line:
        for epoch in range(config.epochs):
            trainer.optimizer.set_factors(_layer_factors(model, config, epoch))
            losses, out_of_time = [], False
            for picked in train.batches(batch_size, num_batches, np.random.default_rng([config.seed, epoch])):
                spent = (time.perf_counter() - started) / config.max_seconds if config.max_seconds else 0.0
                rate = learning_rate_at(rates, step, min(1.0, max(step / num_steps, spent)))
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
        padded = [_padded([rows[i] for i in picked], min(batch_size, len(order)), exact=True) for rows in columns.values()]
        with _retracing():
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


def encode_texts(tokenizer: Tokenizer, texts: Sequence[str], *, max_tokens: int = 256) -> list[np.ndarray]:
    """Return the token ids of each text after an <end>, as a document begins in pretraining: int32 arrays of 1 to `max_tokens`.

    A longer text loses its middle: openings and conclusions say most about its class.
    """
    check_positive(max_tokens=max_tokens)
    start = np.array([tokenizer.end_id], dtype="int32")
    encoded = []
    for ids in tokenizer.encode_batch(texts):
        kept = max_tokens - 1
        if len(ids) > kept:
            ids = np.concatenate([ids[: kept - kept // 2], ids[len(ids) - kept // 2 :]])
        encoded.append(np.concatenate([start, ids]))
    return encoded


def softmax(scores: np.ndarray) -> np.ndarray:
    """Return the probabilities of scores along the last axis."""
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def _padded(rows: list[np.ndarray], num_rows: int, *, exact: bool = False) -> np.ndarray:
    """Return arrays side by side, padded with 0: int32 or float32, shape (num_rows, time, ...), or (num_rows, size) of float vectors.

    `exact`: no longer than the longest row, where that compiles nothing anew: a fifth less work with texts of a dozen tokens.
    """
    kind = "float32" if rows[0].dtype.kind == "f" else "int32"
    if kind == "float32" and rows[0].ndim == 1:
        return np.pad(np.stack(rows).astype(kind), [(0, num_rows - len(rows)), (0, 0)])
    # Few different lengths: JAX compiles each anew.
    multiple = 32 if keras.backend.backend() != "tensorflow" else 1 if exact else 8
    longest = -(-max(len(row) for row in rows) // multiple) * multiple
    found = np.zeros((num_rows, longest, *rows[0].shape[1:]), dtype=kind)
    for place, row in enumerate(rows):
        found[place, : len(row)] = row
    return found


class _Trainer(keras.Model):
    """[*inputs, targets, weights] -> mean loss, as one compiled step on every backend."""

    def __init__(self, model: keras.Model, config: FinetuneConfig):
        super().__init__(name="finetune_trainer")
        self.network = model
        self.dropouts = [layer for layer in model.layers if isinstance(layer, keras.layers.Dropout)]
        self.policy = keras.DTypePolicy("mixed_bfloat16" if _in_bfloat16(config) else "float32")
        self.built = True
        self.compile(_LayerAdam(config.max_gradient_norm), jit_compile=keras.backend.backend() == "jax")
        self.optimizer.build(self.trainable_variables)
        self.start = [ops.convert_to_numpy(v) for v in self.optimizer.variables]

    def call(self, arguments: list, training: bool = False) -> Any:
        *inputs, targets, weights = arguments
        low = [layer for layer in self.network.layers if not layer.name.startswith(("logits", "pooling"))]
        with _computing_in(low, self.policy):
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
        with _retracing():
            return float(self.train_on_batch([*inputs, targets, weights]))


class _LayerAdam(keras.optimizers.Adam):
    """Adam with a factor on the learning rate of each weight, 0 for a frozen one.

    Scaling the gradient would do nothing: Adam divides it by its own size. The factors are variables, so that a layer thaws
    without a new compilation. Frozen weights keep their running means, but do not count in the norm that is clipped.
    """

    def __init__(self, max_gradient_norm: float):
        super().__init__(1e-3, name="layer_adam")
        self.max_gradient_norm = max_gradient_norm

    def build(self, variables: list) -> None:
        super().build(variables)
        self.paths = [variable.path for variable in variables]
        self.factors = self.add_variable(shape=(len(variables),), initializer="ones", name="factors")

    def set_factors(self, by_layer: dict[str, float]) -> None:
        """Set the factor of each layer's weights."""
        self.factors.assign(np.array([by_layer[path.split("/")[0]] for path in self.paths], dtype="float32"))

    def _clip_gradients(self, grads: list) -> list:
        grads = [ops.convert_to_tensor(g, sparse=False) for g in grads]  # the embedding's comes as rows, some of them twice
        live = ops.cast(self.factors > 0, "float32")
        norm = ops.sqrt(sum(live[i] * ops.sum(ops.square(g)) for i, g in enumerate(grads)))
        scale = ops.minimum(1.0, self.max_gradient_norm / ops.maximum(norm, 1e-12))
        return [g * scale for g in grads]

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        super().update_step(gradient, variable, learning_rate * self.factors[self._get_variable_index(variable)])


def _layer_factors(model: keras.Model, config: FinetuneConfig, epoch: int) -> dict[str, float]:
    """Return what each layer's learning rate is multiplied with in an epoch (from 0)."""
    factors = {}
    for depth, name in enumerate(reversed(layer_names(model))):
        thawed = name not in config.frozen and epoch >= depth * config.unfreeze_epochs
        factors[name] = config.layer_decay**depth if thawed else 0.0
    return factors


def _trainer_of(model: keras.Model, config: FinetuneConfig) -> _Trainer:
    """Return the compiled step for such settings."""
    key = ("trainer", _in_bfloat16(config), config.max_gradient_norm)
    return kept_with(model, key, lambda: _Trainer(model, config))


def kept_with(model: keras.Model, key: Any, make: Callable[[], Any]) -> Any:
    """Return what is kept with the model under `key`, made if need be: a network that has been compiled already, features of texts."""
    if not hasattr(model, "_finetune_kept"):
        object.__setattr__(model, "_finetune_kept", {})  # past Keras, which would count it among the model's layers
    if key not in model._finetune_kept:
        model._finetune_kept[key] = make()
    return model._finetune_kept[key]


@contextmanager
def _retracing() -> Iterator[None]:
    """Keep TensorFlow from warning that the first two lengths of text are traced anew; the second trace serves all others."""
    logger = logging.getLogger("tensorflow")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _check_layers(model: keras.Model, config: FinetuneConfig) -> None:
    names = layer_names(model)
    unknown = [name for name in config.frozen if name not in names]
    if unknown:
        raise ValueError(f"frozen names {', '.join(unknown)}, but the layers with weights are {', '.join(names)}.")
    if names[-1] in config.frozen:
        raise ValueError(f"frozen names the head {names[-1]}, which starts from random weights and has to learn.")


def _in_bfloat16(config: FinetuneConfig) -> bool:
    return config.precision == "bfloat16" or (config.precision == "auto" and has_bfloat16())
