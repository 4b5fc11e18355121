"""Scores of classifiers with 95 % intervals, tables by class, and calibration of probabilities."""

from collections.abc import Sequence

from slm_helpers.metrics.intervals import interval_table, resample
from slm_helpers.metrics.language_model import token_losses

import numpy as np
import pandas as pd


def accuracy(labels: Sequence, predictions: Sequence) -> float:
    """Return the share of predictions that equal their label (a hundredth of the time of `sklearn.metrics.accuracy_score`)."""
    labels, predictions = check_pair(labels, predictions)
    return float((labels == predictions).mean())


def macro_f1(labels: Sequence, predictions: Sequence) -> float:
    """Return the mean over classes of F1, every class counted alike; classes are those that occur in the labels."""
    from sklearn.metrics import f1_score

    labels, predictions = check_pair(labels, predictions)
    return float(f1_score(labels, predictions, labels=np.unique(labels), average="macro", zero_division=0.0))


def macro_recall(labels: Sequence, predictions: Sequence) -> float:
    """Return the mean over classes of recall, every class counted alike (scikit-learn's balanced accuracy)."""
    from sklearn.metrics import recall_score

    labels, predictions = check_pair(labels, predictions)
    return float(recall_score(labels, predictions, labels=np.unique(labels), average="macro", zero_division=0.0))


def score_table(labels: Sequence, predictions: Sequence, *, num_samples: int = 1000, seed: int = 42) -> pd.DataFrame:
    """Return accuracy, macro_f1 and macro_recall with 95 % intervals: columns metric, value, ci_low, ci_high.

    Rows with the same label and prediction are drawn together, so that more rows take no more time.
    """
    labels, predictions = check_pair(labels, predictions)
    names, codes = np.unique(np.concatenate([labels, predictions]), return_inverse=True)
    pairs, sizes = np.unique(codes.reshape(2, -1), axis=1, return_counts=True)

    def scores(drawn: np.ndarray) -> tuple[float, float, float]:
        gold, predicted = (np.bincount(side, drawn, minlength=len(names)) for side in pairs)
        correct = np.bincount(pairs[0], drawn * (pairs[0] == pairs[1]), minlength=len(names))
        occurs = gold > 0
        f1 = 2 * correct[occurs] / (gold + predicted)[occurs]
        return correct.sum() / drawn.sum(), f1.mean(), (correct[occurs] / gold[occurs]).mean()

    samples = [scores(drawn) for drawn in resample(sizes, num_samples=num_samples, seed=seed)]
    return interval_table(["accuracy", "macro_f1", "macro_recall"], scores(sizes), samples)


def class_table(labels: Sequence, predictions: Sequence, classes: Sequence) -> pd.DataFrame:
    """Return columns label, precision, recall, f1 and rows (with that label), in the order of `classes`; 0 where nothing is divided."""
    from sklearn.metrics import precision_recall_fscore_support

    labels, predictions = check_pair(labels, predictions)
    scores = precision_recall_fscore_support(labels, predictions, labels=list(classes), zero_division=0.0)
    return pd.DataFrame({"label": list(classes)} | dict(zip(("precision", "recall", "f1", "rows"), scores, strict=True)))


def confusion_table(labels: Sequence, predictions: Sequence, classes: Sequence) -> pd.DataFrame:
    """Return how often each label got each prediction: columns label, prediction, rows, in the order of `classes`, without zeros."""
    from sklearn.metrics import confusion_matrix

    counts = confusion_matrix(*check_pair(labels, predictions), labels=list(classes))
    gold, predicted = np.nonzero(counts)
    names = np.array(classes, dtype=object)
    return pd.DataFrame({"label": names[gold], "prediction": names[predicted], "rows": counts[gold, predicted]})


def fit_temperature(scores: np.ndarray, targets: np.ndarray) -> float:
    """Return what to divide scores by so that the probabilities made of them are as likely as they claim.

    Args:
        scores: Logits or log-probabilities, shape (num_rows, num_choices), of rows that were not trained on.
        targets: The right choice of each, shape (num_rows,).

    Reference:
        Guo et al. (2017), "On Calibration of Modern Neural Networks", arXiv:1706.04599.
    """
    from scipy.optimize import minimize_scalar

    def loss(log_temperature: float) -> float:
        return float(token_losses(scores, targets, temperature=np.exp(log_temperature)).mean())

    # Within a factor of twenty: on few rows that are all right the best temperature would be zero.
    return float(np.exp(minimize_scalar(loss, bounds=(-3.0, 3.0), method="bounded").x))


def calibration_error(confidence: Sequence[float], correct: Sequence[bool], *, num_bins: int = 10) -> float:
    """Return the expected calibration error: the distance between mean confidence and accuracy, averaged over the rows of all bins.

    The bins hold equally many rows, sorted by confidence.

    Example:
        >>> calibration_error([0.9, 0.9, 0.6, 0.6], [1, 1, 1, 0], num_bins=2)
        0.1

    Reference:
        Naeini et al. (2015), "Obtaining Well Calibrated Probabilities Using Bayesian Binning".
    """
    confidence, correct = check_pair(np.asarray(confidence, dtype="float64"), np.asarray(correct, dtype="float64"))
    bins = np.array_split(np.argsort(confidence, kind="stable"), min(num_bins, len(confidence)))
    gaps = [abs(confidence[rows].mean() - correct[rows].mean()) * len(rows) for rows in bins]
    return float(sum(gaps) / len(confidence))


def check_pair(labels: Sequence, predictions: Sequence) -> tuple[np.ndarray, np.ndarray]:
    """Return both as arrays; raise ValueError unless there is one prediction per label."""
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    if labels.shape != predictions.shape or labels.size == 0:
        raise ValueError(f"There are {labels.size} labels and {predictions.size} predictions, but one prediction per label is needed.")
    return labels, predictions


def fit_confidence(probs: np.ndarray, right: np.ndarray) -> tuple[float, float]:
    """Return slope and shift so that sigmoid(slope * logit(probability) + shift) tells how often a prediction is right.

    Args:
        probs: The probability that the model gives each of its predictions, on rows that were not trained on.
        right: 1 for the predictions that were right, else 0.

    Reference:
        Platt (1999), "Probabilistic Outputs for Support Vector Machines", with his counts that keep few rows from certainty.
    """
    from sklearn.linear_model import LogisticRegression

    right = np.asarray(right, dtype="float64")
    hits, misses = right.sum(), (1 - right).sum()
    wanted = np.where(right > 0, (hits + 1) / (hits + 2), 1 / (misses + 2))
    scores = logit(probs)[:, None]
    model = LogisticRegression(C=10.0)
    model.fit(np.concatenate([scores, scores]), np.repeat([1, 0], len(scores)), sample_weight=np.concatenate([wanted, 1 - wanted]))
    return max(float(model.coef_[0, 0]), 0.0), float(model.intercept_[0])


def logit(probs: np.ndarray) -> np.ndarray:
    """Return log(p / (1 - p)), probabilities kept 1e-6 away from 0 and 1."""
    probs = np.clip(np.asarray(probs, dtype="float64"), 1e-6, 1 - 1e-6)
    return np.log(probs / (1 - probs))
