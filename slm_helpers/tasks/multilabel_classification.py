"""Any number of labels for each text: emotions, tags, genres."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from slm_helpers._numerics import sigmoid, two_choices
from slm_helpers.data.cells import LABELS_SEPARATOR
from slm_helpers.metrics.classification import fit_temperature
from slm_helpers.metrics.language_model import token_losses
from slm_helpers.metrics.multilabel import choose_thresholds, label_matrix, label_table, micro_f1, multilabel_table, row_counts
from slm_helpers.tasks.base import Evaluation, add_linear_head, train_and_valid
from slm_helpers.tasks.text_classification import TextClassifier, mute_network, text_scores
from slm_helpers.text.hashing import fit_ngram_table, hash_ngrams, ngram_scores, num_buckets_for
from slm_helpers.text.tfidf import MANY_ROWS_TIMES_CLASSES

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from slm_helpers._backend import keras
    from slm_helpers.models.saved import SavedModel

_ENSEMBLE_WEIGHTS = (1.0, 2.0)  # of network and linear model where there is no valid part to fit them
_LINEAR_L2 = (10.0, 3.0, 1.0, 0.3)


class MultiLabelClassifier(TextClassifier):
    """Any number of labels for each text, none too.

    Network and linear model are those of `TextClassifier`, but each label is a question of its own: a binary cross-entropy in training,
    a linear machine for each, and a threshold for each, chosen on valid for the highest F1. Labels are written with ", " between them.

    Args:
        base, epochs, batch_size, learning_rate, max_seconds, ngrams, dropout, max_tokens, config, seed: As of `TextClassifier`.
        class_weight: None; what balances labels here are the thresholds.

    Example:
        >>> rows = (["good day", "bad day", "good and bad day"] * 6, ["praise", "blame", "blame, praise"] * 6)
        >>> classifier = MultiLabelClassifier(base=None, epochs=1).fit(*rows, validation_data=rows)
        >>> classifier.predict(["good and bad"]).tolist()
        ['blame, praise']

    Reference:
        Read et al. (2011), "Classifier Chains for Multi-label Classification", on binary relevance, which this is.
    """

    task = "multilabel"
    is_classifier = False
    columns = ("text", "labels")
    target = "labels"

    def check_frame(self, frame: pd.DataFrame) -> None:
        """Raise ValueError if train has one label only, or another split has a label that train lacks."""
        names = {split: set(_names(rows["labels"])) for split, rows in frame.groupby("split")}
        train = names.get("train", set())
        if len(train) < 2:
            raise ValueError(f"train has {len(train)} label(s) ({', '.join(sorted(train))}), but two at least are needed.")
        for split in ("valid", "test"):
            if unseen := sorted(names.get(split, set()) - train):
                raise ValueError(f"{split} has the label {unseen[0]!r}, which train lacks. Correct its spelling or remove it.")

    def predict(self, X: Any) -> np.ndarray:
        """Return the labels of each text, joined by ", ": objects, shape (num_texts,)."""
        rows = self._rows(X)
        return np.array([row["prediction"] for row in self.predict_rows(rows)] if rows else [], dtype=object)

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the calibrated probability of each of `classes_`, each by itself: float32, shape (num_texts, num_labels)."""
        scores = text_scores(self._fitted(), [row["text"] for row in self._rows(X)])
        return sigmoid(scores / self.saved_.settings.get("temperature", 1.0)).astype("float32")

    def predict_rows(self, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return prediction (labels joined by ", ") and confidence (that all of them are right) for rows with a text."""
        scores = text_scores(self._fitted(), [row["text"] for row in rows])
        probs = sigmoid(scores / self.saved_.settings.get("temperature", 1.0))
        given = scores > self._thresholds()
        sure = np.where(given, probs, 1 - probs).prod(axis=1)
        names = np.array(self.saved_.labels, dtype=object)
        return [
            {"prediction": LABELS_SEPARATOR.join(names[row]), "confidence": round(float(value), 4)}
            for row, value in zip(given, sure, strict=True)
        ]

    def evaluate_frame(self, frame: pd.DataFrame) -> Evaluation:
        """Score rows with text and labels.

        Returns:
            micro_f1, macro_f1 and exact_match with 95 % intervals, and the table labels (precision, recall, F1 and rows of each).

        Raises:
            ValueError: If a label is not one of the model's.
        """
        names = self._fitted().labels
        for number, row in enumerate(frame["labels"], 1):
            if unknown := set(_names([row])) - set(names):
                raise ValueError(f"row {number}: the label {min(unknown)!r} is unknown to this model, which knows {', '.join(names[:10])}.")
        gold = label_matrix(frame["labels"], names)
        given = (text_scores(self.saved_, frame["text"].tolist()) > self._thresholds()).astype("int8")
        return Evaluation(rows=len(frame), metrics=multilabel_table(gold, given), tables={"labels": label_table(gold, given, names)})

    def score(self, X: Any, y: Any = None) -> float:
        """Return micro F1."""
        return float(self.evaluate(X, y).set_index("metric").loc["micro_f1", "value"])

    def training_config(self) -> Any:
        """Return the settings of the training; raise ValueError for a class weight."""
        if self.class_weight is not None:
            raise ValueError("class_weight has no meaning with several labels a text; leave it out (--balanced too).")
        return super().training_config()

    def _thresholds(self) -> np.ndarray:
        return np.array(self.saved_.settings.get("thresholds", [0.0] * len(self.saved_.labels)))

    def _labels_of(self, train: pd.DataFrame) -> tuple[list[str], str]:
        return _names(train["labels"]), "str"

    def _codes(self, rows: pd.DataFrame, labels: list[str]) -> np.ndarray:
        return label_matrix(rows["labels"], labels)

    def _quality(self, model: keras.Model, rows: tuple[Sequence[np.ndarray], np.ndarray] | None) -> float:
        from slm_helpers.training.classification import predict_logits

        if rows is None:
            return 0.0
        scores = two_choices(predict_logits(model, rows[0]))
        return -float(
            token_losses(scores, rows[1].reshape(-1).astype("int32"), temperature=fit_temperature(scores, rows[1].reshape(-1))).mean()
        )

    def _calibrate(self, scores: np.ndarray, codes: np.ndarray) -> dict[str, Any]:
        return calibrate(scores, codes)

    def _with_linear_model(self, frame: pd.DataFrame, *, keep_valid: bool) -> SavedModel:
        from slm_helpers.models.classifiers import build_text_classifier

        saved, parts = self.saved_, train_and_valid(frame)
        num_buckets = num_buckets_for(len(saved.labels), parts["train"]["text"])
        codes = {split: self._codes(rows, saved.labels) for split, rows in parts.items()}
        combined, logits = add_linear_head(
            saved,
            build_text_classifier,
            {split: hash_ngrams(rows["text"].tolist(), num_buckets=num_buckets) for split, rows in parts.items()},
            codes,
            network_logits=text_scores(saved, parts["valid"]["text"].tolist()) if "valid" in parts else None,
            default_weights=_ENSEMBLE_WEIGHTS,
            keep_valid=keep_valid,
            num_buckets=num_buckets,
            seed=self.seed,
        )
        if logits is not None:
            combined.settings |= calibrate(logits, codes["valid"])
        return combined


def calibrate(scores: np.ndarray, codes: np.ndarray) -> dict[str, Any]:
    """Return temperature and thresholds by scores of rows that were not trained on, and their labels, both (num_rows, num_labels)."""
    thresholds = np.minimum(choose_thresholds(scores, codes), 1e9)  # a folder holds no infinity
    temperature = fit_temperature(two_choices(scores), codes.reshape(-1))
    return {"temperature": temperature, "thresholds": [round(float(value), 5) for value in thresholds]}


def linear_multilabel(
    train: pd.DataFrame, valid: pd.DataFrame, *, l2s: Sequence[float] = _LINEAR_L2, seed: int = 42
) -> MultiLabelClassifier:
    """Return the linear model on n-grams alone, as a fitted classifier that can be saved.

    Args:
        train: Rows with text and labels.
        valid: Rows that choose the regularisation and the thresholds.
        l2s: The weights of the squared weights in the loss that are tried; with very many rows the second alone.
        seed: Of the solver.
    """
    labels = _names(train["labels"])
    num_buckets = num_buckets_for(len(labels), train["text"])
    hashed = {name: hash_ngrams(rows["text"].tolist(), num_buckets=num_buckets) for name, rows in (("train", train), ("valid", valid))}
    codes = {name: label_matrix(rows["labels"], labels) for name, rows in (("train", train), ("valid", valid))}
    best: tuple[Any, ...] = ()
    for l2 in l2s if codes["train"].size <= MANY_ROWS_TIMES_CLASSES else l2s[1:2]:
        table, bias = fit_ngram_table(hashed["train"], codes["train"], num_classes=len(labels), num_buckets=num_buckets, l2=l2, seed=seed)
        settings = calibrate(ngram_scores(table, hashed["valid"]) + bias, codes["valid"])
        given = (ngram_scores(table, hashed["valid"]) + bias > settings["thresholds"]).astype("int8")
        f1 = micro_f1(row_counts(codes["valid"], given).sum(axis=0))
        if not best or f1 > best[0]:
            best = (f1, table, bias, settings)
    return MultiLabelClassifier.from_saved(mute_network("multilabel", labels, train["text"], *best[1:]))


def _names(rows: Sequence[str]) -> list[str]:
    return sorted({name for row in rows for name in row.split(LABELS_SEPARATOR)} - {""})
