"""What the tasks share: the result of an evaluation, the vocabulary to start with, calibration."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from slm_helpers.models import SavedModel
from slm_helpers.tokenizers import Tokenizer, train_bpe_tokenizer

import numpy as np
import pandas as pd

SCRATCH_VOCAB_SIZE = 4096


@dataclass(frozen=True)
class Evaluation:
    """Scores of a model on labelled rows."""

    rows: int
    metrics: pd.DataFrame  # metric, value, ci_low, ci_high (95 %)
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)  # what stands behind them, by name


def starting_tokenizer(base: SavedModel | None, texts: Iterable[str]) -> Tokenizer:
    """Return the tokeniser of the base, or without one a new byte-level BPE of the training texts."""
    return base.tokenizer if base is not None else train_bpe_tokenizer(texts, vocab_size=SCRATCH_VOCAB_SIZE)


def fit_temperature(scores: np.ndarray, targets: np.ndarray) -> float:
    """Return what to divide scores by so that the probabilities made of them are as likely as they claim.

    Args:
        scores: Logits or log-probabilities, shape (num_rows, num_choices), of rows that were not trained on.
        targets: The right choice of each, shape (num_rows,).

    Reference:
        Guo et al. (2017), "On Calibration of Modern Neural Networks", arXiv:1706.04599.
    """
    from scipy.optimize import minimize_scalar

    scores, targets = np.asarray(scores, dtype="float64"), np.asarray(targets)
    scores = scores - scores.max(axis=1, keepdims=True)
    right = scores[np.arange(len(targets)), targets]

    def loss(log_temperature: float) -> float:
        scale = np.exp(-log_temperature)
        return float((np.log(np.exp(scores * scale).sum(axis=1)) - right * scale).mean())

    # Within a factor of twenty: on few rows that are all right the best temperature would be zero.
    return float(np.exp(minimize_scalar(loss, bounds=(-3.0, 3.0), method="bounded").x))


def calibration_error(confidence: np.ndarray, right: np.ndarray, *, num_bins: int = 10) -> float:
    """Return the mean distance between confidence and accuracy, over bins of equally many rows, weighted by them."""
    order = np.argsort(confidence, kind="stable")
    bins = [part for part in np.array_split(order, num_bins) if len(part)]
    return float(sum(abs(confidence[part].mean() - right[part].mean()) * len(part) for part in bins) / len(order))
