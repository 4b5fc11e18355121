"""Train the network of a text classifier: all its layers, or the head alone on what the layers below make of each text."""

import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from slm_helpers._backend import cached_on, keras
from slm_helpers._numerics import softmax
from slm_helpers.models.rows import run_rows
from slm_helpers.training.batches import Examples
from slm_helpers.training.config import TrainConfig
from slm_helpers.training.finetune import fit_examples, layer_names

import numpy as np
import pandas as pd

_MAX_CACHED = 1 << 25  # numbers, 128 MB: features of texts that are kept with a network


def fit_head(
    model: keras.Model, train_ids: Sequence[np.ndarray], train_labels: Sequence[int], *, penalty: float = 300.0, balanced: bool = False
) -> None:
    """Fit the head alone: logistic regression on the pooled features of the body as it stands, in about a second.

    A good result in itself with few rows, and a good start for `fit_classifier`: a random head would send large gradients into
    the pretrained layers (Kumar et al. 2022). The features are standardised, which is worked into the head's weights afterwards.

    Args:
        model: From `classifier_from_base`; only its head is changed, and the same rows always give the same head.
        train_ids: Token ids of each text, e.g. from `encode_texts`.
        train_labels: Class of each text, from 0; or 0 or 1 for each class, shape (num_texts, num_classes), where each is a question of
            its own. A class without a text is never predicted.
        penalty: Of the squared weights against the summed loss (1 / C of scikit-learn): the larger, the more careful.
        balanced: Every class counts alike, however many rows it has.

    Reference:
        Kumar et al. (2022), "Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution", arXiv:2202.10054.
    """
    from sklearn.linear_model import LogisticRegression

    if not penalty > 0:
        raise ValueError(f"penalty is {penalty}, but must be above 0.")
    rows = _train_rows(model, train_ids, train_labels)
    features, labels = np.stack(_pooled_features(model, rows)), np.array(rows.targets)
    mean, scale = features.mean(axis=0), features.std(axis=0) + 1e-6
    settings = {"C": 1 / penalty, "max_iter": 1000, "class_weight": "balanced" if balanced else None}
    scaled = (features - mean) / scale
    if labels.ndim == 2:
        classes = np.flatnonzero(labels.any(axis=0) & ~labels.all(axis=0))
        fitted = [LogisticRegression(**settings).fit(scaled, labels[:, column]) for column in classes]
        weights, bias = np.concatenate([one.coef_ for one in fitted]), np.concatenate([one.intercept_ for one in fitted])
    else:
        regression = LogisticRegression(**settings).fit(scaled, labels)
        weights, bias, classes = regression.coef_, regression.intercept_, regression.classes_
        if len(weights) == 1:  # of two classes scikit-learn scores the second only
            weights, bias = np.concatenate([-weights, weights]) / 2, np.concatenate([-bias, bias]) / 2
    num_classes = model.output_shape[-1]
    kernel = np.zeros((features.shape[1], num_classes), dtype="float32")
    kernel[:, classes] = (weights / scale).T
    full_bias = np.full(num_classes, -20.0, dtype="float32")
    full_bias[classes] = bias - (weights / scale) @ mean
    model.get_layer("logits").set_weights([kernel, full_bias])


def fit_classifier(
    model: keras.Model,
    train_ids: Sequence[np.ndarray],
    train_labels: Sequence[int],
    valid_ids: Sequence[np.ndarray] | None = None,
    valid_labels: Sequence[int] | None = None,
    *,
    config: TrainConfig,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    checkpoint_dir: str | Path | None = None,
) -> pd.DataFrame:
    """Train a text classifier by `fit_examples`; the model's weights are changed in place.

    Where all layers but the head are frozen, their output is computed once and only the head is run.

    Args:
        model: From `build_text_classifier` or `classifier_from_base`.
        train_ids: Token ids of each text, e.g. from `encode_texts`.
        train_labels: Class of each text, from 0; or 0 or 1 for each class, as for `fit_head`: the loss is the mean binary cross-entropy.
        valid_ids: The same of the validation split.
        valid_labels: The same.
        config: All settings.
        callbacks: Keras callbacks.
        checkpoint_dir: Folder for the checkpoint file, from which a run that was cut off goes on.

    Returns:
        History as `fit_examples` returns it.

    Raises:
        ValueError: If texts and labels do not fit together or the model, or train has one class only.
        FloatingPointError: If the loss becomes NaN or infinite.
    """
    train = _train_rows(model, train_ids, train_labels, balanced=config.class_weight == "balanced")
    valid = None if valid_ids is None else _rows(model, valid_ids, valid_labels, name="valid")
    if set(layer_names(model)[:-1]) <= set(config.frozen):
        train, valid = (_on_features(model, part) for part in (train, valid))
        model, config = _head(model), replace(config, frozen=())
    if train.targets[0].ndim:
        model = _yes_or_no(model)
    return fit_examples(model, train, valid, config=config, callbacks=callbacks, checkpoint_dir=checkpoint_dir)


def predict_probs(model: keras.Model, token_ids: Sequence[np.ndarray], *, batch_size: int = 128) -> np.ndarray:
    """Return the probability of each class for each text: float32, shape (num_texts, num_classes)."""
    return softmax(predict_logits(model, token_ids, batch_size=batch_size)).astype("float32")


def predict_logits(model: keras.Model, token_ids: Sequence[np.ndarray], *, batch_size: int = 128) -> np.ndarray:
    """Return the logits of each class for each text: float32, shape (num_texts, num_classes)."""
    rows = _rows(model, token_ids, np.zeros(len(token_ids), dtype="int32"), name="token_ids")
    features = {"features": _pooled_features(model, rows, batch_size=batch_size)}
    return np.stack(run_rows(_head(model), features, batch_size=batch_size))


def _rows(
    model: keras.Model, token_ids: Sequence[np.ndarray], labels: Sequence[int] | None, *, name: str, balanced: bool = False
) -> Examples:
    """Return checked rows; `balanced`: a class's share of the loss is that of every other class that occurs."""
    if labels is None or len(token_ids) != len(labels) or not len(token_ids):
        raise ValueError(f"{name} has {len(token_ids)} texts and {0 if labels is None else len(labels)} labels; give one label a text.")
    token_ids = [np.asarray(ids) for ids in token_ids]
    lengths = np.array([len(ids) for ids in token_ids])
    if lengths.min() < 1:
        raise ValueError(f"{name}: text {int(lengths.argmin())} has no token. encode_texts puts one before every text.")
    vocab_size, num_classes = model.get_layer("embedding").input_dim, model.output_shape[-1]
    found = [min(ids.min() for ids in token_ids), max(ids.max() for ids in token_ids)]
    if found[0] < 1 or found[1] >= vocab_size:
        raise ValueError(f"{name}: token ids lie in {found[0]}..{found[1]}, but must lie in 1..{vocab_size - 1}; 0 is padding.")
    labels = np.asarray(labels)
    if labels.ndim == 2:
        if labels.shape[1] != num_classes or not np.isin(labels, (0, 1)).all():
            raise ValueError(f"{name}: a table of labels must hold 0 or 1 for each of the {num_classes} classes, one row a text.")
    elif labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(f"{name}: labels must be whole numbers in 0..{num_classes - 1}, the place of the class among the names.")
    weights = None
    if balanced:
        counts = np.bincount(labels, minlength=num_classes)
        weights = (len(labels) / (np.count_nonzero(counts) * np.maximum(counts, 1)))[labels]
    return Examples({"token_ids": token_ids}, labels.astype("int32"), weights=weights)


def _train_rows(model: keras.Model, token_ids: Sequence[np.ndarray], labels: Sequence[int], *, balanced: bool = False) -> Examples:
    rows = _rows(model, token_ids, labels, name="train", balanced=balanced)
    if len(np.unique(rows.targets)) < 2:
        raise ValueError(f"All {len(rows)} training rows are of class {rows.targets[0]}, but a classifier needs two classes at least.")
    return rows


def _pooled_features(model: keras.Model, rows: Examples, *, batch_size: int = 128) -> list[np.ndarray]:
    """Return what the layers below the head make of each text.

    Few-shot curves ask for the same texts again and again, so results are cached as long as the weights stay the same, at most
    _MAX_CACHED numbers.
    """
    pooled = cached_on(model, "pooled", lambda: keras.Model(model.input, model.get_layer("pooling").output, name="pooled"))
    known = cached_on(model, "pooled_features", dict)
    checksum = 0
    for weight in pooled.get_weights():
        checksum = zlib.crc32(np.ascontiguousarray(weight), checksum)
    if known.get("of weights") != checksum:
        known.clear()
        known["of weights"] = checksum
    token_ids = [ids.astype("int32") for ids in rows.inputs["token_ids"]]
    keys = [ids.tobytes() for ids in token_ids]
    new = {key: ids for key, ids in zip(keys, token_ids, strict=True) if key not in known}
    outputs = run_rows(pooled, {"token_ids": list(new.values())}, batch_size=batch_size) if new else []
    found = dict(zip(new, outputs, strict=True))
    features = [found[key] if key in found else known[key] for key in keys]
    if (len(known) + len(found)) * pooled.output_shape[-1] <= _MAX_CACHED:
        known.update(found)
    return features


def _yes_or_no(model: keras.Model) -> keras.Model:
    """Return the same network with two logits for each class, no (0) and yes, so that the loss of a row asks every class by itself."""

    def build() -> keras.Model:
        yes = keras.ops.expand_dims(model.output, -1)
        return keras.Model(model.input, keras.ops.concatenate([keras.ops.zeros_like(yes), yes], axis=-1), name="yes_or_no")

    return cached_on(model, "yes_or_no", build)


def _head(model: keras.Model) -> keras.Model:
    """Return the head alone, sharing its weights: pooled features -> logits."""

    def build() -> keras.Model:
        features = keras.Input(shape=model.get_layer("pooling").output.shape[1:], name="features")
        return keras.Model(features, model.get_layer("logits")(model.get_layer("pooling_dropout")(features)), name="head")

    return cached_on(model, "head", build)


def _on_features(model: keras.Model, rows: Examples | None) -> Examples | None:
    """Return the same rows with what the body makes of them in place of their tokens."""
    if rows is None:
        return None
    return Examples({"features": _pooled_features(model, rows)}, rows.targets, weights=rows.weights, lengths=rows.lengths)
