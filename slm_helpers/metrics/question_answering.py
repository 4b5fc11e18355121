"""Exact match and token F1 of answers."""

import re
import string
from collections import Counter
from collections.abc import Sequence

from slm_helpers.metrics.classification import check_pair
from slm_helpers.metrics.intervals import mean_interval

import numpy as np
import pandas as pd


def normalise_answer(answer: str) -> str:
    """Return an answer in lower case without punctuation, English articles and spare spaces, as SQuAD compares them.

    Reference:
        Rajpurkar et al. (2016), "SQuAD: 100,000+ Questions for Machine Comprehension of Text", arXiv:1606.05250.
    """
    bare = "".join(sign for sign in answer.lower() if sign not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", bare).split())


def exact_matches(answers: Sequence[str], predictions: Sequence[str]) -> np.ndarray:
    """Return for each question 1.0 if the prediction is the answer after `normalise_answer`, else 0.0."""
    pairs = zip(*check_pair(np.asarray(answers, dtype=object), np.asarray(predictions, dtype=object)), strict=True)
    return np.array([float(normalise_answer(answer) == normalise_answer(prediction)) for answer, prediction in pairs])


def token_f1_scores(answers: Sequence[str], predictions: Sequence[str]) -> np.ndarray:
    """Return for each question the F1 of the words that answer and prediction share; two empty ones agree fully."""
    pairs = zip(*check_pair(np.asarray(answers, dtype=object), np.asarray(predictions, dtype=object)), strict=True)
    return np.array([_word_f1(normalise_answer(answer).split(), normalise_answer(prediction).split()) for answer, prediction in pairs])


def _word_f1(answer: list[str], prediction: list[str]) -> float:
    if not answer or not prediction:
        return float(answer == prediction)
    return 2 * sum((Counter(answer) & Counter(prediction)).values()) / (len(answer) + len(prediction))


def answer_table(answers: Sequence[str], predictions: Sequence[str]) -> pd.DataFrame:
    """Return exact_match, token_f1 and, where some questions have no answer, no_answer_recall: metric, value, ci_low, ci_high."""
    exact = exact_matches(answers, predictions)
    columns = {"exact_match": exact, "token_f1": token_f1_scores(answers, predictions)}
    none = np.array([not answer for answer in answers])
    if none.any() and not none.all():
        columns["no_answer_recall"] = exact[none]
    rows = [(name, values.mean(), *mean_interval(values)) for name, values in columns.items()]
    return pd.DataFrame(rows, columns=["metric", "value", "ci_low", "ci_high"])
