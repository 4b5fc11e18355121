"""Fine-tune a text classifier: batches of like length, a learning rate for each layer, freezing, early stopping.

The step is compiled for any length of text and kept with the model, so that training the same model again (few-shot curves,
several seeds) starts at once: put the weights back, or copy a base into it, and call `fit_classifier` again.
"""

import json
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from slm_helpers.backend import has_bfloat16, keras
from slm_helpers.checks import check_choice, check_positive
from slm_helpers.models import build_text_classifier, start_from
from slm_helpers.progress import ProgressLine
from slm_helpers.tokenizers import Tokenizer
from slm_helpers.training import PRECISIONS, SCHEDULES, TrainConfig, _computing_in, _interrupt_after_step, learning_rate_at

import numpy as np
import pandas as pd

ops = keras.ops

HISTORY_COLUMNS = ("step", "epoch", "split", "loss_nats", "accuracy", "learning_rate", "seconds")
_POOL = 16  # batches' worth of texts that are sorted by length before they are cut into batches


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
    patience: int = 0  # epochs without a better loss on valid before stopping; 0: never stop early
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


def classifier_from_base(base: keras.Model, *, num_classes: int, dropout: float = 0.2) -> keras.Model:
    """Build a text classifier in the shape of a language model and copy the shared layers; its head starts from random weights.

    Args:
        base: From `build_language_model`, e.g. `load_pretrained("slm-base-en").model`.
        num_classes: Number of classes.
        dropout: Share of activations dropped in training.
    """
    arguments = json.loads(base.recipe)["arguments"]
    shape = {name: arguments[name] for name in ("vocab_size", "cell", "embedding_dim", "units", "num_layers")}
    model = build_text_classifier(**shape, num_classes=num_classes, dropout=dropout)
    start_from(model, base)
    return model


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


def fit_head(
    model: keras.Model, train_ids: Sequence[np.ndarray], train_labels: Sequence[int], *, penalty: float = 300.0, balanced: bool = False
) -> None:
    """Fit the head alone: logistic regression on the pooled features of the body as it stands, in about a second.

    A good result in itself with few rows, and a good start for `fit_classifier`: a random head would send large gradients into
    the pretrained layers (Kumar et al. 2022). The features are standardised, which is worked into the head's weights afterwards.

    Args:
        model: From `classifier_from_base`; only its head is changed, and the same rows always give the same head.
        train_ids: Token ids of each text, e.g. from `encode_texts`.
        train_labels: Class of each text, from 0. A class without a text is never predicted.
        penalty: Of the squared weights against the summed loss (1 / C of scikit-learn): the larger, the more careful.
        balanced: Every class counts alike, however many rows it has.

    Reference:
        Kumar et al. (2022), "Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution", arXiv:2202.10054.
    """
    from sklearn.linear_model import LogisticRegression

    if not penalty > 0:
        raise ValueError(f"penalty is {penalty}, but must be above 0.")
    rows = _train_rows(model, train_ids, train_labels)
    rows.read_features(model)
    mean, scale = rows.features.mean(axis=0), rows.features.std(axis=0) + 1e-6
    regression = LogisticRegression(C=1 / penalty, max_iter=1000, class_weight="balanced" if balanced else None)
    regression.fit((rows.features - mean) / scale, rows.labels)
    weights, bias = regression.coef_, regression.intercept_
    if len(weights) == 1:  # of two classes scikit-learn scores the second only
        weights, bias = np.concatenate([-weights, weights]) / 2, np.concatenate([-bias, bias]) / 2
    kernel = np.zeros((rows.features.shape[1], rows.num_classes), dtype="float32")
    kernel[:, regression.classes_] = (weights / scale).T
    full_bias = np.full(rows.num_classes, -20.0, dtype="float32")
    full_bias[regression.classes_] = bias - (weights / scale) @ mean
    model.get_layer("logits").set_weights([kernel, full_bias])


def fit_classifier(
    model: keras.Model,
    train_ids: Sequence[np.ndarray],
    train_labels: Sequence[int],
    valid_ids: Sequence[np.ndarray] | None = None,
    valid_labels: Sequence[int] | None = None,
    *,
    config: FinetuneConfig,
    on_step: Callable[[int, float], None] | None = None,
) -> pd.DataFrame:
    """Train a text classifier; the model's weights are changed in place.

    With a validation part the weights of the epoch with the lowest loss on it are put back at the end. Where all layers but
    the head are frozen, their output is computed once and only the head is run. Ctrl-C stops after the step under way and
    leaves the weights as they then are.

    Args:
        model: From `build_text_classifier` or `classifier_from_base`.
        train_ids: Token ids of each text, e.g. from `encode_texts`.
        train_labels: Class of each text, from 0.
        valid_ids: The same of the validation split.
        valid_labels: The same.
        config: All settings.
        on_step: Called after each step with its number, from 1, and its loss.

    Returns:
        History in long form, two rows an epoch with valid and one without: step, epoch, split ("train": mean over the epoch,
        with dropout; "valid"), loss_nats, accuracy (of valid), learning_rate (of the head), seconds (so far).

    Raises:
        ValueError: If texts and labels do not fit together or the model, or train has one class only.
        FloatingPointError: If the loss becomes NaN or infinite.
    """
    rows = _train_rows(model, train_ids, train_labels)
    valid = None if valid_ids is None else _Rows(model, valid_ids, valid_labels, name="valid")
    _check_layers(model, config)
    started = time.perf_counter()
    head_only = set(layer_names(model)[:-1]) <= set(config.frozen)
    if head_only:
        rows.read_features(model)
        if valid is not None:
            valid.read_features(model)
    trainer = _trainer_of(model, config, head_only=head_only)
    trainer.reset(config.seed)
    weights = rows.class_weights() if config.balanced else np.ones(len(rows.labels), "float32")
    batch_size, num_batches = rows.batch_sizes(config.batch_size)
    num_steps = config.epochs * num_batches
    rates = TrainConfig(learning_rate=config.learning_rate, schedule=config.schedule, warmup_steps=round(config.warmup_share * num_steps))
    history, best, best_loss, worse, step, rate = [], None, math.inf, 0, 0, 0.0
    with _interrupt_after_step() as interrupts, ProgressLine() as line:
        for epoch in range(config.epochs):
            trainer.optimizer.set_factors(_layer_factors(model, config, epoch))
            losses, out_of_time = [], False
            for picked in rows.batches(batch_size, num_batches, np.random.default_rng([config.seed, epoch])):
                spent = (time.perf_counter() - started) / config.max_seconds if config.max_seconds else 0.0
                rate = learning_rate_at(rates, step, min(1.0, max(step / num_steps, spent)))
                losses.append(trainer.step(rate, *rows.batch(picked, batch_size, weights)))
                step += 1
                if not math.isfinite(losses[-1]):
                    raise FloatingPointError(f"The loss is {losses[-1]} at step {step}. Lower the learning rate (now {rate:g}).")
                if on_step is not None:
                    on_step(step, losses[-1])
                line.update(f"step {step} of {num_steps}, loss {losses[-1]:.3f} nats per text, {time.perf_counter() - started:.0f} s")
                out_of_time = bool(config.max_seconds) and time.perf_counter() - started >= config.max_seconds
                if interrupts or out_of_time:
                    break
            looks = [("train", float(np.mean(losses)), math.nan)]
            if valid is not None and not interrupts:
                looks.append(("valid", *valid.measure(model)))
                worse += 1
                if looks[-1][1] < best_loss:
                    best_loss, worse, best = looks[-1][1], 0, [ops.convert_to_numpy(w).copy() for w in model.weights]
            seconds = time.perf_counter() - started
            history += [(step, step / num_batches, split, loss, right, rate, seconds) for split, loss, right in looks]
            if interrupts or out_of_time or (config.patience and worse >= config.patience):
                break
    if best is not None:
        model.set_weights(best)
    return pd.DataFrame(history, columns=list(HISTORY_COLUMNS))


def predict_probs(model: keras.Model, token_ids: Sequence[np.ndarray], *, batch_size: int = 128) -> np.ndarray:
    """Return the probability of each class for each text: float32, shape (num_texts, num_classes)."""
    rows = _Rows(model, token_ids, np.zeros(len(token_ids), dtype="int32"), name="token_ids")
    return _softmax(rows.logits(model, batch_size)).astype("float32")


class _Rows:
    """Texts as arrays of token ids (or the features of a frozen body) with their labels; makes batches of them."""

    def __init__(self, model: keras.Model, token_ids: Sequence[np.ndarray], labels: Sequence[int] | None, *, name: str):
        if labels is None or len(token_ids) != len(labels) or not len(token_ids):
            raise ValueError(f"{name} has {len(token_ids)} texts and {0 if labels is None else len(labels)} labels; give one label a text.")
        self.token_ids = [np.asarray(ids) for ids in token_ids]
        self.lengths = np.array([len(ids) for ids in self.token_ids])
        if self.lengths.min() < 1:
            raise ValueError(f"{name}: text {int(self.lengths.argmin())} has no token. encode_texts puts one before every text.")
        vocab_size, num_classes = model.get_layer("embedding").input_dim, model.output_shape[-1]
        found = [min(ids.min() for ids in self.token_ids), max(ids.max() for ids in self.token_ids)]
        if found[0] < 1 or found[1] >= vocab_size:
            raise ValueError(f"{name}: token ids lie in {found[0]}..{found[1]}, but must lie in 1..{vocab_size - 1}; 0 is padding.")
        self.labels = np.asarray(labels)
        if self.labels.dtype.kind not in "iu" or self.labels.min() < 0 or self.labels.max() >= num_classes:
            raise ValueError(f"{name}: labels must be whole numbers in 0..{num_classes - 1}, the place of the class among the names.")
        self.labels = self.labels.astype("int32")
        self.num_classes = num_classes
        self.features: np.ndarray | None = None

    def read_features(self, model: keras.Model) -> None:
        """Run the body once over all texts, without dropout."""
        self.features = _by_length(_kept(model, "pooled", lambda: _pooled(model)), self, batch_size=128)

    def class_weights(self) -> np.ndarray:
        """Return one weight a row: its class's share of the loss is that of every other class that occurs."""
        counts = np.bincount(self.labels, minlength=self.num_classes)
        return (len(self.labels) / (np.count_nonzero(counts) * np.maximum(counts, 1)))[self.labels].astype("float32")

    def batch_sizes(self, batch_size: int) -> tuple[int, int]:
        """Return the rows of a batch and the number of batches, so that all batches are about equally full."""
        num_batches = -(-len(self.labels) // batch_size)
        return -(-len(self.labels) // num_batches), num_batches

    def batches(self, batch_size: int, num_batches: int, rng: np.random.Generator) -> list[np.ndarray]:
        """Return the rows of each batch of an epoch: drawn at random, but of like length, and in random order."""
        order = rng.permutation(len(self.labels))
        pools = [order[i : i + _POOL * batch_size] for i in range(0, len(order), _POOL * batch_size)]
        order = np.concatenate([pool[np.argsort(self.lengths[pool], kind="stable")] for pool in pools])
        batches = np.array_split(order, num_batches)
        return [batches[i] for i in rng.permutation(num_batches)]

    def batch(self, picked: np.ndarray, batch_size: int, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return inputs, labels and weights of some rows, filled up to `batch_size` with rows of weight 0."""
        missing = batch_size - len(picked)
        inputs = self.padded(picked) if self.features is None else self.features[picked]
        rest = [np.pad(part[picked], (0, missing)) for part in (self.labels, weights)]
        return (np.pad(inputs, ((0, missing), (0, 0))), *rest)

    def padded(self, picked: np.ndarray) -> np.ndarray:
        """Return the token ids of some rows, padded on the right with 0: int32, shape (len(picked), time)."""
        # Few different lengths: JAX compiles each anew.
        multiple = 8 if keras.backend.backend() == "tensorflow" else 32
        longest = -(-int(self.lengths[picked].max()) // multiple) * multiple
        return np.stack([np.pad(self.token_ids[i], (0, longest - self.lengths[i])) for i in picked]).astype("int32")

    def logits(self, model: keras.Model, batch_size: int = 128) -> np.ndarray:
        """Return the scores of each row, shape (num_rows, num_classes)."""
        if self.features is None:
            return _by_length(model, self, batch_size=batch_size)
        head = model.get_layer("logits")
        return self.features @ ops.convert_to_numpy(head.kernel) + ops.convert_to_numpy(head.bias)

    def measure(self, model: keras.Model) -> tuple[float, float]:
        """Return mean loss in nats and accuracy."""
        probs = _softmax(self.logits(model).astype("float64"))
        right = probs[np.arange(len(self.labels)), self.labels]
        return float(-np.log(np.maximum(right, 1e-30)).mean()), float((probs.argmax(axis=1) == self.labels).mean())


def _train_rows(model: keras.Model, train_ids: Sequence[np.ndarray], train_labels: Sequence[int]) -> _Rows:
    rows = _Rows(model, train_ids, train_labels, name="train")
    if len(np.unique(rows.labels)) < 2:
        raise ValueError(
            f"All {len(rows.labels)} training rows are of class {rows.labels[0]}, but a classifier needs two classes at least."
        )
    return rows


class _Trainer(keras.Model):
    """[token ids or pooled features, labels, weights] -> mean loss, as one compiled step on every backend."""

    def __init__(self, model: keras.Model, config: FinetuneConfig, *, head_only: bool):
        super().__init__(name="finetune_trainer")
        self.body = None if head_only else _pooled(model)
        self.dropout, self.head = model.get_layer("pooling_dropout"), model.get_layer("logits")
        self.dropouts = [layer for layer in model.layers if isinstance(layer, keras.layers.Dropout)]
        self.policy = keras.DTypePolicy("mixed_bfloat16" if _in_bfloat16(config) else "float32")
        self.built = True
        self.compile(_LayerAdam(config.max_gradient_norm), jit_compile=keras.backend.backend() == "jax")
        self.optimizer.build(self.trainable_variables)
        self.start = [ops.convert_to_numpy(v) for v in self.optimizer.variables]

    def call(self, arguments: list, training: bool = False) -> Any:
        inputs, labels, weights = arguments
        if self.body is not None:
            with _computing_in(self.body, self.policy):
                inputs = self.body(inputs, training=training)
        logits = self.head(self.dropout(ops.cast(inputs, "float32"), training=training))
        losses = keras.losses.sparse_categorical_crossentropy(ops.cast(labels, "int32"), logits, from_logits=True)
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

    def step(self, rate: float, inputs: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> float:
        self.optimizer.learning_rate = rate
        self.reset_metrics()  # else Keras returns the mean over all steps so far
        with _retracing():
            return float(self.train_on_batch([inputs, labels, weights]))


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


def _pooled(model: keras.Model) -> keras.Model:
    """Return a view of a classifier without its head, to be run or trained: token ids -> pooled features."""
    return keras.Model(model.input, model.get_layer("pooling").output, name="pooled")


def _trainer_of(model: keras.Model, config: FinetuneConfig, *, head_only: bool) -> _Trainer:
    """Return the compiled step for such settings."""
    key = ("trainer", head_only, _in_bfloat16(config), config.max_gradient_norm)
    return _kept(model, key, lambda: _Trainer(model, config, head_only=head_only))


def _kept(model: keras.Model, key: Any, make: Callable[[], keras.Model]) -> keras.Model:
    """Return what is kept with the model under `key`, made if need be: it has been compiled already."""
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


def _by_length(model: keras.Model, rows: _Rows, *, batch_size: int) -> np.ndarray:
    """Run a model over all rows, sorted by length into batches; returns its outputs in the order of the rows."""
    order = np.argsort(rows.lengths, kind="stable")
    parts = []
    for start in range(0, len(order), batch_size):
        picked = order[start : start + batch_size]
        inputs = np.pad(rows.padded(picked), ((0, min(batch_size, len(order)) - len(picked)), (0, 0)))
        with _retracing():
            parts.append(ops.convert_to_numpy(model.predict_on_batch(inputs))[: len(picked)])
    return np.concatenate(parts)[np.argsort(order, kind="stable")]


def _check_layers(model: keras.Model, config: FinetuneConfig) -> None:
    names = layer_names(model)
    unknown = [name for name in config.frozen if name not in names]
    if unknown:
        raise ValueError(f"frozen names {', '.join(unknown)}, but the layers with weights are {', '.join(names)}.")
    if names[-1] in config.frozen:
        raise ValueError(f"frozen names the head {names[-1]}, which starts from random weights and has to learn.")


def _in_bfloat16(config: FinetuneConfig) -> bool:
    return config.precision == "bfloat16" or (config.precision == "auto" and has_bfloat16())


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)
