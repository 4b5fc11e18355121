"""A class for each text: sentiment, topics, spam, intents."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slm_helpers._numerics import softmax
from slm_helpers.data.schema import check_labels
from slm_helpers.metrics.classification import class_table, confusion_table, fit_temperature, score_table
from slm_helpers.tasks.base import Evaluation, Task, add_linear_head, starting_tokenizer, train_and_valid
from slm_helpers.text.hashing import fit_ngram_table, hash_ngrams, ngram_scores, num_buckets_for
from slm_helpers.training.config import TrainConfig

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from slm_helpers._backend import keras
    from slm_helpers.models.saved import SavedModel

MAX_TOKENS = 256  # of a text that are read, unless the model's settings say otherwise
SCRATCH = {"embedding_dim": 128, "units": 192}  # size of a network without a base: few rows do not fill a larger one
_ENSEMBLE_WEIGHTS = (0.7, 2.0)  # of network and linear model where there is no valid part to fit them
_LINEAR_L2 = (10.0, 3.0, 1.0, 0.3)  # regularisation of the linear model alone, of which valid chooses
_LEAST_SECONDS = 5.0  # that compiling a training step takes: with less left, the linear probe has to do
FEW_ROWS = 2000  # of train; with no more than these a linear probe of the base is tried too


class TextClassifier(Task):
    """A class for each text.

    A recurrent network is trained, and a linear model is fitted to the n-grams of the texts; the score of a class is the sum of both,
    in the weights that predict the labels of valid best. With a base and at most 2,000 rows of train the better on valid is kept of
    two: all layers trained, or a linear probe (logistic regression on the output of the frozen base). Without rows of valid nothing
    tells which is better: the linear probe is taken, unless epochs, batch_size, learning_rate or config ask for training.

    Args:
        base: A language model to start from (folder, name, SavedModel, fitted estimator); None starts from random weights with a
            vocabulary of the training texts.
        epochs: Passes over train at most; None: 6.
        batch_size: Texts in an update; None: 32.
        learning_rate: The highest, of the head; None: 0.001.
        max_seconds: End the training of the network after this time; None: no limit.
        class_weight: "balanced" makes every class count alike, however many rows it has.
        ngrams: Add the linear model; else the network alone.
        dropout: Share of activations dropped in training.
        max_tokens: Tokens of a text that the network reads; longer texts lose their middle.
        config: Other settings of the training.
        seed: Of order, dropout and weights.

    Example:
        >>> classifier = TextClassifier(base=None, epochs=1).fit(["good day", "bad day"] * 8, ["praise", "blame"] * 8)
        >>> classifier.predict(["a good day"]).tolist()
        ['praise']

    Reference:
        Howard and Ruder (2018), "Universal Language Model Fine-tuning for Text Classification", arXiv:1801.06146; Kumar et al. (2022),
        "Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution", arXiv:2202.10054 (the linear probe).
    """

    task = "classify"
    is_classifier = True
    columns = ("text", "label")
    target = "label"
    predict_columns = ("text",)
    # From a random head: a fitted one has a few large weights, and the first steps of Adam, as large for each, spoil what they read.
    default_config = TrainConfig(epochs=6, batch_size=32, learning_rate=1e-3)

    def __init__(
        self,
        base: str | Path | SavedModel | Task | None = "slm-base-en",
        *,
        epochs: int | None = None,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        max_seconds: float | None = None,
        class_weight: str | None = None,
        ngrams: bool = True,
        dropout: float = 0.3,
        max_tokens: int = MAX_TOKENS,
        config: TrainConfig | None = None,
        seed: int = 42,
    ):
        self.base = base
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.max_seconds = max_seconds
        self.class_weight = class_weight
        self.ngrams = ngrams
        self.dropout = dropout
        self.max_tokens = max_tokens
        self.config = config
        self.seed = seed

    def check_frame(self, frame: pd.DataFrame) -> None:
        """Raise ValueError if train has one class only, or another split has a label that train lacks."""
        check_labels(frame)

    def notes(self, frame: pd.DataFrame) -> list[str]:
        """Return how many texts are longer than what the network reads."""
        tokenizer = self.base_tokenizer()
        lengths = [] if tokenizer is None else [len(ids) for ids in tokenizer.encode_batch(frame["text"].tolist())]
        longer = sum(length > self.max_tokens - 1 for length in lengths)
        if not longer:
            return []
        return [f"{longer:,} of {len(lengths):,} texts are longer than {self.max_tokens} tokens: the network does not read their middle."]

    def predict(self, X: Any) -> np.ndarray:
        """Return a class for each text, of the type of the labels in training: shape (num_texts,)."""
        best = self.predict_proba(X).argmax(axis=1)
        return self.classes_[best]

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the calibrated probability of each of `classes_`: float32, shape (num_texts, num_classes)."""
        return text_probs(self._fitted(), [row["text"] for row in self._rows(X)])

    def predict_rows(self, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return prediction and confidence (calibrated probability) for rows with a text."""
        probs = text_probs(self._fitted(), [row["text"] for row in rows])
        names = [
            self.classes_[best].item() if hasattr(self.classes_[best], "item") else self.classes_[best] for best in probs.argmax(axis=1)
        ]
        return [{"prediction": name, "confidence": round(float(row.max()), 4)} for name, row in zip(names, probs, strict=True)]

    def evaluate_frame(self, frame: pd.DataFrame) -> Evaluation:
        """Score rows with text and label.

        Returns:
            accuracy, macro_f1 and macro_recall with 95 % intervals, and the tables classes (precision, recall, F1 and rows of each)
            and confusion (label, prediction, rows).

        Raises:
            ValueError: If a label is not one of the model's.
        """
        labels, names = frame["label"].astype(str), self._fitted().labels
        unknown = np.flatnonzero(~labels.isin(names))
        if len(unknown):
            raise ValueError(
                f"row {unknown[0] + 1}: the label {labels.iloc[unknown[0]]!r} is unknown to this model, which knows "
                f"{', '.join(names[:10])}{' ...' if len(names) > 10 else ''}. Correct its spelling or leave such rows out."
            )
        probs = text_probs(self.saved_, frame["text"].tolist())
        predictions = np.array(names, dtype=object)[probs.argmax(axis=1)]
        tables = {"classes": class_table(labels, predictions, names), "confusion": confusion_table(labels, predictions, names)}
        return Evaluation(rows=len(frame), metrics=score_table(labels, predictions), tables=tables)

    def score(self, X: Any, y: Any = None) -> float:
        """Return the accuracy."""
        return float(self.evaluate(X, y).set_index("metric").loc["accuracy", "value"])

    def _train(self, frame, *, base, config, keep_valid, checkpoint_dir, callbacks) -> tuple[SavedModel, pd.DataFrame]:
        from slm_helpers.models.saved import SavedModel
        from slm_helpers.training.batches import encode_texts
        from slm_helpers.training.classification import fit_classifier, fit_head

        started = time.perf_counter()
        parts = train_and_valid(frame)
        labels, kind = self._labels_of(parts["train"])
        tokenizer = starting_tokenizer(base, parts["train"]["text"])
        model = new_classifier(base, tokenizer.vocab_size, num_classes=len(labels), dropout=self.dropout)
        ids = {split: encode_texts(tokenizer, rows["text"], max_tokens=self.max_tokens) for split, rows in parts.items()}
        codes = {split: self._codes(rows, labels) for split, rows in parts.items()}
        valid = (ids["valid"], codes["valid"]) if "valid" in parts else None
        probe, history = None, _no_history()
        if base is not None and len(codes["train"]) <= FEW_ROWS:
            start = model.get_weights()
            fit_head(model, ids["train"], codes["train"], balanced=config.class_weight == "balanced")
            probe, probe_quality = model.get_weights(), self._quality(model, valid)
            model.set_weights(start)
        asked = any(self.is_given(name) for name in ("epochs", "batch_size", "learning_rate"))
        seconds_left = config.max_seconds - (time.perf_counter() - started) if config.max_seconds else math.inf
        trained = probe is None or ((valid is not None or asked) and seconds_left > _LEAST_SECONDS)
        if trained:
            # The linear model needs some of the time too.
            limit = {} if seconds_left == math.inf else {"max_seconds": max(0.01, (0.8 if self.ngrams else 1) * seconds_left)}
            options = {"config": replace(config, **limit), "callbacks": callbacks, "checkpoint_dir": checkpoint_dir}
            history = fit_classifier(model, ids["train"], codes["train"], *(valid or (None, None)), **options)
        head_only = probe is not None and (not trained or (valid is not None and probe_quality >= self._quality(model, valid)))
        if head_only:
            model.set_weights(probe)
        settings = {"max_tokens": self.max_tokens, "head_only": head_only, "label_kind": kind}
        saved = SavedModel(model=model, tokenizer=tokenizer, task=self.task, labels=labels, settings=settings)
        if valid is not None:
            saved.settings |= self._calibrate(text_scores(saved, parts["valid"]["text"].tolist()), codes["valid"])
        return saved, history

    def _labels_of(self, train: pd.DataFrame) -> tuple[list[str], str]:
        """Return the labels as folders hold them, and what `labels_as` needs to give them back as they were."""
        classes = np.unique(train["label"].to_numpy())
        return [str(value) for value in classes], "str" if classes.dtype.kind in "OUS" else classes.dtype.kind

    def _codes(self, rows: pd.DataFrame, labels: list[str]) -> np.ndarray:
        """Return what the network learns to predict of each row."""
        return rows["label"].astype(str).map(labels.index).to_numpy()

    def _quality(self, model: keras.Model, rows: tuple[Sequence[np.ndarray], np.ndarray] | None) -> float:
        """Return how good a network is on rows of token ids and codes, the more the better; 0 without rows."""
        from slm_helpers.training.classification import predict_logits

        return float((predict_logits(model, rows[0]).argmax(axis=1) == rows[1]).mean()) if rows is not None else 0.0

    def _calibrate(self, scores: np.ndarray, codes: np.ndarray) -> dict[str, Any]:
        """Return settings by which scores on valid become probabilities that mean something."""
        return {"temperature": fit_temperature(scores, codes)}

    def _with_linear_model(self, frame: pd.DataFrame, *, keep_valid: bool) -> SavedModel:
        frame = frame.assign(label=frame["label"].astype(str))
        return add_ngrams(
            self.saved_, frame, balanced=self.training_config().class_weight == "balanced", keep_valid=keep_valid, seed=self.seed
        )

    def _learned(self) -> None:
        self.classes_ = labels_as(self.saved_.labels, self.saved_.settings.get("label_kind", "str"))


def new_classifier(base: SavedModel | None, vocab_size: int, *, num_classes: int, dropout: float) -> keras.Model:
    """Return a classifier of texts on the layers of a base, or a small one with random weights for so many token ids."""
    from slm_helpers.models.classifiers import build_text_classifier, classifier_from_base

    if base is None:
        return build_text_classifier(vocab_size, num_classes=num_classes, dropout=dropout, **SCRATCH)
    return classifier_from_base(base.model, num_classes=num_classes, dropout=dropout)


def labels_as(labels: Sequence[str], kind: str) -> np.ndarray:
    """Return labels, which folders hold as text, in the kind they had in training: "i", "u", "f", "b" (as in NumPy) or "str"."""
    if kind == "b":
        return np.array([label == "True" for label in labels])
    return np.array(labels, dtype={"i": "int64", "u": "uint64", "f": "float64"}.get(kind, object))


def add_ngrams(saved: SavedModel, frame: pd.DataFrame, *, balanced: bool = False, keep_valid: bool = False, seed: int = 42) -> SavedModel:
    """Combine the network of a classifier with a linear model on the n-grams of texts; `TextClassifier` does it unless told not to.

    Args:
        saved: A classifier without n-grams; it stays as it is.
        frame: The rows it was trained on (text, label, split); those of valid tell how much of either to add; without any both get a
            usual weight.
        balanced: Every class counts alike in the linear model, however many rows it has.
        keep_valid: Do without the rows of valid in the end. Else the linear model learns from them too once the weights are found, and
            a score on valid says nothing any more.
        seed: Of its solver.

    Returns:
        A classifier whose score of a class is the sum of both; its confidence is calibrated by the weights.
    """
    from slm_helpers.models.classifiers import build_text_classifier

    parts = {split: rows for split, rows in frame.groupby("split") if split in ("train", "valid")}
    texts = {split: rows["text"].tolist() for split, rows in parts.items()}
    num_buckets = num_buckets_for(len(saved.labels), texts["train"])
    both, _ = add_linear_head(
        saved,
        build_text_classifier,
        {split: hash_ngrams(rows, num_buckets=num_buckets) for split, rows in texts.items()},
        {split: rows["label"].map(saved.labels.index).to_numpy() for split, rows in parts.items()},
        network_logits=text_scores(saved, texts["valid"]) if "valid" in texts else None,
        default_weights=_ENSEMBLE_WEIGHTS,
        keep_valid=keep_valid,
        num_buckets=num_buckets,
        class_weight="balanced" if balanced else None,
        seed=seed,
    )
    return both


def linear_classifier(train: pd.DataFrame, valid: pd.DataFrame, *, l2s: Sequence[float] = _LINEAR_L2, seed: int = 42) -> TextClassifier:
    """Return the linear model on n-grams alone, as a fitted classifier that can be saved: its network is as small as one can be, and mute.

    Args:
        train: Rows with text and label (strings) to learn from.
        valid: Rows that choose the regularisation and calibrate the confidence; nothing else is learned from them.
        l2s: The weights of the squared weights in the loss that are tried.
        seed: Of the solver.
    """
    labels = sorted(set(train["label"]))
    num_buckets = num_buckets_for(len(labels), train["text"])
    hashed = {name: hash_ngrams(rows["text"].tolist(), num_buckets=num_buckets) for name, rows in (("train", train), ("valid", valid))}
    codes = {name: rows["label"].map(labels.index).to_numpy() for name, rows in (("train", train), ("valid", valid))}
    best: tuple[Any, ...] = ()
    for l2 in l2s:
        table, bias = fit_ngram_table(hashed["train"], codes["train"], num_classes=len(labels), num_buckets=num_buckets, l2=l2, seed=seed)
        logits = ngram_scores(table, hashed["valid"]) + bias
        accuracy = (logits.argmax(axis=1) == codes["valid"]).mean()
        if not best or accuracy > best[0]:
            best = (accuracy, table, bias, logits)
    _, table, bias, logits = best
    settings = {"temperature": fit_temperature(logits, codes["valid"])}
    return TextClassifier.from_saved(mute_network("classify", labels, train["text"], table, bias, settings))


def mute_network(
    task: str, labels: list[str], texts: pd.Series, table: np.ndarray, bias: np.ndarray, settings: dict[str, Any]
) -> SavedModel:
    """Return a linear model on n-grams (from `fit_ngram_table`) in the form of a classifier whose network is tiny and says nothing."""
    from slm_helpers.models.classifiers import build_text_classifier
    from slm_helpers.models.saved import SavedModel
    from slm_helpers.text.tokenizers import train_bpe_tokenizer

    tokenizer = train_bpe_tokenizer(texts.head(200), vocab_size=300)
    sizes = {"num_classes": len(labels), "embedding_dim": 1, "units": 1, "num_buckets": len(table) - 1}
    model = build_text_classifier(tokenizer.vocab_size, **sizes)
    kernel, _ = model.get_layer("logits").get_weights()
    model.get_layer("logits").set_weights([0 * kernel, bias])
    model.get_layer("ngram_scores").set_weights([table])
    settings = {"max_tokens": 1, "start": "random weights"} | settings
    return SavedModel(model=model, tokenizer=tokenizer, task=task, labels=labels, settings=settings)


def text_probs(saved: SavedModel, texts: Sequence[str]) -> np.ndarray:
    """Return the calibrated probability of each class for each text, shape (num_texts, num_classes)."""
    return softmax(text_scores(saved, texts) / saved.settings.get("temperature", 1.0))


def text_scores(saved: SavedModel, texts: Sequence[str]) -> np.ndarray:
    """Return the scores of each class for each text, shape (num_texts, num_classes)."""
    from slm_helpers.models.rows import run_rows
    from slm_helpers.training.batches import encode_texts

    if not len(texts):
        return np.empty((0, len(saved.labels)), dtype="float32")
    inputs = {"token_ids": encode_texts(saved.tokenizer, texts, max_tokens=saved.settings.get("max_tokens", MAX_TOKENS))}
    if num_buckets := saved.arguments.get("num_buckets"):
        inputs["ngrams"] = hash_ngrams(texts, num_buckets=num_buckets)
    return np.stack(run_rows(saved.model, inputs))


def _no_history() -> pd.DataFrame:
    from slm_helpers.training.finetune import HISTORY_COLUMNS

    return pd.DataFrame(columns=list(HISTORY_COLUMNS))
