"""A class for each text: sentiment, topics, spam, intents. From columns to a trained model, its scores and its predictions."""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from slm_helpers._backend import cached_on, keras
from slm_helpers.data.schema import check_labels
from slm_helpers.metrics.classification import confusion_counts, fit_temperature, scores_from_confusion
from slm_helpers.models.classifiers import build_text_classifier
from slm_helpers.models.registry import shared_shape, start_from
from slm_helpers.models.saved import SavedModel
from slm_helpers.tasks.base import Evaluation, put_beside, starting_tokenizer
from slm_helpers.text.hashing import hash_ngrams, num_buckets_for
from slm_helpers.training.batches import Examples, encode_texts
from slm_helpers.training.config import FinetuneConfig
from slm_helpers.training.finetune import fit_examples, layer_names, run_rows, softmax

import numpy as np
import pandas as pd

COLUMNS = ("text", "label")
PREDICT_COLUMNS = ("text",)
MAX_TOKENS = 256  # of a text that are read, unless the model's settings say otherwise
SCRATCH = {"embedding_dim": 128, "units": 192}  # size of a network without a base: few rows do not fill a larger one
_SHARES = (0.7, 2.0)  # of network and n-grams where there is no valid part to tell
FEW_ROWS = 2000  # of train; with no more than these a head on the frozen base is tried too
# From a random head: a fitted one has a few large weights, and the first steps of Adam, as large for every weight, spoil what they read.
DEFAULT = FinetuneConfig(epochs=6, batch_size=32, learning_rate=1e-3)


def check_rows(frame: pd.DataFrame) -> None:
    """Raise ValueError if train has one class only, or another split has a label that train lacks."""
    check_labels(frame)


def train(
    frame: pd.DataFrame,
    *,
    base: SavedModel | None,
    config: FinetuneConfig = DEFAULT,
    dropout: float = 0.3,
    max_tokens: int = MAX_TOKENS,
    ngrams: bool = True,
    keep_valid: bool = False,
) -> tuple[SavedModel, pd.DataFrame]:
    """Fine-tune a classifier on the columns text, label and split.

    A recurrent network is trained, and a linear model is fitted to the n-grams of the texts; the model returned adds their
    scores, in the shares that tell the labels of valid best.

    Args:
        frame: From `load_dataset`; the split valid, if there, chooses the epoch and calibrates the confidence.
        base: A language model to start from; None starts from random weights with a vocabulary of the training texts. With few
            rows the better on valid is kept of two: all layers trained, or a head fitted to the frozen base.
        config: Settings of the training.
        dropout: Share of activations dropped in training.
        max_tokens: Tokens of a text that the network reads; longer texts lose their middle.
        ngrams: Put the linear model beside the network; else the network has to do alone.
        keep_valid: Keep the rows of valid from the linear model, which else learns from them in the end; see `add_ngrams`.

    Returns:
        The model with its tokeniser, labels and settings, and the history of its training.

    Raises:
        ValueError: If train has one class only, or another split has a label that train lacks.
    """
    check_rows(frame)
    parts = {split: rows for split, rows in frame.groupby("split") if split in ("train", "valid")}
    labels = sorted(parts["train"]["label"].unique())
    keras.utils.set_random_seed(config.seed)
    tokenizer = starting_tokenizer(base, parts["train"]["text"])
    if base is None:
        model = build_text_classifier(tokenizer.vocab_size, num_classes=len(labels), dropout=dropout, **SCRATCH)
    else:
        model = classifier_from_base(base.model, num_classes=len(labels), dropout=dropout)
    ids = {split: encode_texts(tokenizer, rows["text"], max_tokens=max_tokens) for split, rows in parts.items()}
    codes = {split: rows["label"].map(labels.index).to_numpy() for split, rows in parts.items()}
    valid = (ids["valid"], codes["valid"]) if "valid" in parts else (None, None)
    start = model.get_weights()
    fitted_head = None
    if base is not None and len(codes["train"]) <= FEW_ROWS:
        fit_head(model, ids["train"], codes["train"], balanced=config.balanced)
        fitted_head = model.get_weights()
        right_head = _share_right(model, *valid)
        model.set_weights(start)
    history = fit_classifier(model, ids["train"], codes["train"], *valid, config=config)
    head_only = fitted_head is not None and right_head >= _share_right(model, *valid)
    if head_only:
        model.set_weights(fitted_head)
    saved = SavedModel(model=model, tokenizer=tokenizer, task="classify", labels=labels)
    saved.settings |= {"max_tokens": max_tokens, "head_only": head_only}
    if "valid" in parts:
        saved.settings["temperature"] = fit_temperature(text_scores(saved, parts["valid"]["text"].tolist()), codes["valid"])
    if ngrams:
        saved = add_ngrams(saved, frame, balanced=config.balanced, keep_valid=keep_valid, seed=config.seed)
    return saved, history


def evaluate(saved: SavedModel, frame: pd.DataFrame) -> Evaluation:
    """Score a classifier on the columns text and label.

    Returns:
        accuracy, macro_f1 and macro_recall with 95 % intervals, and the tables classes (precision, recall, F1 and rows of each)
        and confusion (label, prediction, rows).

    Raises:
        ValueError: If a label is not one of the model's.
    """
    unknown = np.flatnonzero(~frame["label"].isin(saved.labels))
    if len(unknown):
        raise ValueError(
            f"row {unknown[0] + 1}: the label {frame['label'].iloc[unknown[0]]!r} is unknown to this model, which knows "
            f"{', '.join(saved.labels[:10])}{' ...' if len(saved.labels) > 10 else ''}. Correct its spelling or leave such rows out."
        )
    probs = text_probs(saved, frame["text"].tolist())
    counts = confusion_counts(frame["label"].map(saved.labels.index), probs.argmax(axis=1), num_classes=len(saved.labels))
    right, asked, answered = np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision, recall, f1 = (np.nan_to_num(part) for part in (right / answered, right / asked, 2 * right / (asked + answered)))
    classes = pd.DataFrame({"label": saved.labels, "precision": precision, "recall": recall, "f1": f1, "rows": asked})
    places = np.argwhere(counts)
    names = np.array(saved.labels, dtype=object)
    confusion = pd.DataFrame({"label": names[places[:, 0]], "prediction": names[places[:, 1]], "rows": counts[tuple(places.T)]})
    return Evaluation(rows=len(frame), metrics=scores_from_confusion(counts), tables={"classes": classes, "confusion": confusion})


def predict(saved: SavedModel, rows: Sequence[dict[str, str]]) -> list[dict[str, Any]]:
    """Return prediction and confidence (calibrated probability) for rows with a text."""
    probs = text_probs(saved, [row["text"] for row in rows])
    return [
        {"prediction": saved.labels[best], "confidence": round(float(row[best]), 4)}
        for row, best in zip(probs, probs.argmax(axis=1), strict=True)
    ]


def add_ngrams(saved: SavedModel, frame: pd.DataFrame, *, balanced: bool = False, keep_valid: bool = False, seed: int = 42) -> SavedModel:
    """Put a linear model on the n-grams of texts beside the network of a classifier; `train` does it unless told not to.

    Args:
        saved: From `train` with ngrams=False; it stays as it is.
        frame: The rows it was trained on, with the split valid, which tells how much of either to add; without one both get a
            usual share.
        balanced: Every class counts alike in the linear model, however many rows it has.
        keep_valid: Do without the rows of valid in the end. Else the linear model learns from them too once the shares are found, and
            a score on valid says nothing any more.
        seed: Of its solver.

    Returns:
        A classifier whose score of a class is the sum of both; its confidence is calibrated by the shares.
    """
    parts = {split: rows for split, rows in frame.groupby("split") if split in ("train", "valid")}
    texts = {split: rows["text"].tolist() for split, rows in parts.items()}
    num_buckets = num_buckets_for(len(saved.labels), texts["train"])
    both, _ = put_beside(
        saved,
        build_text_classifier,
        {split: hash_ngrams(rows, num_buckets=num_buckets) for split, rows in texts.items()},
        {split: rows["label"].map(saved.labels.index).to_numpy() for split, rows in parts.items()},
        network_scores=text_scores(saved, texts["valid"]) if "valid" in texts else None,
        usual_shares=_SHARES,
        keep_valid=keep_valid,
        num_buckets=num_buckets,
        balanced=balanced,
        seed=seed,
    )
    return both


def text_probs(saved: SavedModel, texts: Sequence[str]) -> np.ndarray:
    """Return the calibrated probability of each class for each text, shape (num_texts, num_classes)."""
    return softmax(text_scores(saved, texts) / saved.settings.get("temperature", 1.0))


def text_scores(saved: SavedModel, texts: Sequence[str]) -> np.ndarray:
    """Return the scores of each class for each text, shape (num_texts, num_classes)."""
    inputs = {"token_ids": encode_texts(saved.tokenizer, texts, max_tokens=saved.settings.get("max_tokens", MAX_TOKENS))}
    if len(saved.model.inputs) > 1:
        inputs["ngrams"] = hash_ngrams(texts, num_buckets=saved.model.get_layer("ngram_scores").num_buckets)
    return np.stack(run_rows(saved.model, inputs))


def classifier_from_base(base: keras.Model, *, num_classes: int, dropout: float = 0.2) -> keras.Model:
    """Build a text classifier in the shape of a language model and copy the shared layers; its head starts from random weights.

    Args:
        base: From `build_language_model`, e.g. `load_pretrained("slm-base-en").model`.
        num_classes: Number of classes.
        dropout: Share of activations dropped in training.
    """
    model = build_text_classifier(**shared_shape(base), num_classes=num_classes, dropout=dropout)
    start_from(model, base)
    return model


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
    features, labels = np.stack(_pooled_features(model, rows)), np.array(rows.targets)
    mean, scale = features.mean(axis=0), features.std(axis=0) + 1e-6
    regression = LogisticRegression(C=1 / penalty, max_iter=1000, class_weight="balanced" if balanced else None)
    regression.fit((features - mean) / scale, labels)
    weights, bias = regression.coef_, regression.intercept_
    if len(weights) == 1:  # of two classes scikit-learn scores the second only
        weights, bias = np.concatenate([-weights, weights]) / 2, np.concatenate([-bias, bias]) / 2
    num_classes = model.output_shape[-1]
    kernel = np.zeros((features.shape[1], num_classes), dtype="float32")
    kernel[:, regression.classes_] = (weights / scale).T
    full_bias = np.full(num_classes, -20.0, dtype="float32")
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
    """Train a text classifier by `fit_examples`; the model's weights are changed in place.

    Where all layers but the head are frozen, their output is computed once and only the head is run.

    Args:
        model: From `build_text_classifier` or `classifier_from_base`.
        train_ids: Token ids of each text, e.g. from `encode_texts`.
        train_labels: Class of each text, from 0.
        valid_ids: The same of the validation split.
        valid_labels: The same.
        config: All settings.
        on_step: Called after each step with its number, from 1, and its loss.

    Returns:
        History as `fit_examples` returns it.

    Raises:
        ValueError: If texts and labels do not fit together or the model, or train has one class only.
        FloatingPointError: If the loss becomes NaN or infinite.
    """
    train = _train_rows(model, train_ids, train_labels, balanced=config.balanced)
    valid = None if valid_ids is None else _rows(model, valid_ids, valid_labels, name="valid")
    if set(layer_names(model)[:-1]) <= set(config.frozen):
        head = _head(model)
        train, valid = (_on_features(model, part) for part in (train, valid))
        return fit_examples(head, train, valid, config=replace(config, frozen=()), on_step=on_step)
    return fit_examples(model, train, valid, config=config, on_step=on_step)


def predict_probs(model: keras.Model, token_ids: Sequence[np.ndarray], *, batch_size: int = 128) -> np.ndarray:
    """Return the probability of each class for each text: float32, shape (num_texts, num_classes)."""
    rows = _rows(model, token_ids, np.zeros(len(token_ids), dtype="int32"), name="token_ids")
    features = {"features": _pooled_features(model, rows, batch_size=batch_size)}
    return softmax(np.stack(run_rows(_head(model), features, batch_size=batch_size))).astype("float32")


def _share_right(model: keras.Model, token_ids: Sequence[np.ndarray] | None, codes: np.ndarray | None) -> float:
    """Return the accuracy on valid; without valid a head on the frozen base is the careful choice, so all count alike."""
    return 0.0 if token_ids is None else float((predict_probs(model, token_ids).argmax(axis=1) == codes).mean())


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
    if labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= num_classes:
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
    """Return what the body makes of each text; a text that it has read is not read again as long as its weights stay the same."""
    pooled = cached_on(model, "pooled", lambda: keras.Model(model.input, model.get_layer("pooling").output, name="pooled"))
    known = cached_on(model, "pooled_features", dict)
    mark = 0
    for weight in pooled.get_weights():
        mark = zlib.crc32(np.ascontiguousarray(weight), mark)
    if known.get("of weights") != mark:
        known.clear()
        known["of weights"] = mark
    token_ids = [ids.astype("int32") for ids in rows.inputs["token_ids"]]
    keys = [ids.tobytes() for ids in token_ids]
    new = {key: ids for key, ids in zip(keys, token_ids, strict=True) if key not in known}
    if new:
        known.update(zip(new, run_rows(pooled, {"token_ids": list(new.values())}, batch_size=batch_size), strict=True))
    return [known[key] for key in keys]


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
