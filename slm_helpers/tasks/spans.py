"""The answer as a span of a passage: what a network and a log-linear model of features think of each span, added up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from slm_helpers.tasks.reading import Reading
from slm_helpers.text.spans import SpanFeatures
from slm_helpers.text.tokenizers import Tokenizer
from slm_helpers.text.words import split_words

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from slm_helpers.models.saved import SavedModel

MAX_WORDS = 20  # of a span, or fewer if no answer of train has as many
# How much of the network's and of the features' scores to add, and what to add for no answer. Where there is no valid part to tell,
# what cross-validation on the training part of the bundled passages gives; few rows of valid move them little.
SHARES = (0.35, 0.5, 1.5)
SHARES_ALONE = (0.5, 0.0, 1.5)  # of a network without features beside it
_TRUST = np.array([10.0, 10.0, 1.0])  # in these shares: nats for a squared distance of 1
_COMPARED = 100  # spans of a passage, the likeliest, among which the best is looked for
_OVERLAP_COUNTS = 0.3  # found by the same cross-validation: more would answer more, and be exact less often
_CHUNK = 256  # rows whose spans are in memory together


@dataclass(frozen=True)
class SpanScores:
    """The spans of a passage that may be the answer to a question, with their scores; the network's are relative to no answer."""

    places: np.ndarray  # first character and end, shape (num_spans, 2)
    network: np.ndarray  # shape (num_spans,)
    features: np.ndarray
    none: float  # the features' score of no answer, -inf where there is always one


def fit_span_model(tokenizer: Tokenizer, rows: pd.DataFrame, *, seed: int = 42) -> dict[str, Any]:
    """Fit the log-linear model to training rows; returns it as settings to save: max_words, span_weights, none_weights."""
    from slm_helpers.baselines.extractive_qa import SpanBaseline

    reading = Reading(tokenizer)
    reading.add([*rows["context"], *rows["question"]])
    model = SpanBaseline(idf=reading.rarity, max_words=longest_answer(rows), seed=seed)
    model.fit(rows["context"].tolist(), rows["question"].tolist(), rows["answer"].tolist())
    none = None if model.none_weights_ is None else model.none_weights_.round(4).tolist()
    return {"max_words": model.max_words, "span_weights": model.span_weights_.round(4).tolist(), "none_weights": none}


def longest_answer(rows: pd.DataFrame) -> int:
    """Return the words of the longest answer that stands in its context, at most MAX_WORDS."""
    standing = [answer for context, answer in zip(rows["context"], rows["answer"], strict=True) if answer and answer in context]
    return min(max((len(split_words(answer).forms) for answer in standing), default=1) or 1, MAX_WORDS)


def score_spans(saved: SavedModel, rows: Sequence[dict[str, Any]]) -> list[SpanScores]:
    """Return the spans of each row's context, up to the setting max_words and within a sentence, with their scores."""
    from slm_helpers.models.rows import run_rows

    reading = Reading(saved.tokenizer)
    pieces = reading.pieces(rows)
    inputs = {name: [piece.inputs[name] for piece in pieces] for name in pieces[0].inputs}
    scores = run_rows(saved.model, inputs, by="passage", batch_size=64)
    weights, none_weights = (None if part is None else np.array(part) for part in map(saved.settings.get, ("span_weights", "none_weights")))
    described = SpanFeatures(reading.rarity, saved.settings["max_words"])
    found, spans = [], []
    for row in rows:
        words = reading.text(row["context"])[0]
        first, last = described.spans(words)
        if weights is None:
            features, none = np.zeros(len(first)), 0.0
        else:
            features, none = described.scores(row["context"], row["question"], weights, none_weights)
        places = np.stack([words.places[first, 0], words.places[last, 1]], axis=1)
        found.append(SpanScores(places, np.full(len(first), -np.inf), features, none if saved.settings["no_answer"] else -np.inf))
        spans.append((first, last))
    for piece, piece_scores in zip(pieces, scores, strict=True):
        first, last = (part - piece.offset + 1 for part in spans[piece.row])  # place 0 stands for no answer
        inside = np.flatnonzero((first > 0) & (last <= len(piece.inputs["passage_ends"])))
        # Against "no answer" in the same piece, which makes pieces comparable.
        of_piece = piece_scores[0, first[inside]] + piece_scores[1, last[inside]] - piece_scores[:, 0].sum()
        kept = found[piece.row].network
        kept[inside] = np.maximum(kept[inside], of_piece)
    return found


def fit_shares(scores: Sequence[SpanScores], rows: Sequence[dict[str, Any]], *, start: tuple[float, float, float]) -> list[float]:
    """Return the shares of network and features and what to add for no answer, so that the right answers are likeliest.

    Args:
        scores: From `score_spans`, for rows that were not trained on.
        rows: With context and answer.
        start: SHARES or SHARES_ALONE; few rows stay near it.
    """
    from scipy.optimize import minimize

    parts = []
    for found, row in zip(scores, rows, strict=True):
        right = np.array([row["context"][a:b] == row["answer"] for a, b in found.places], dtype=bool) & bool(row["answer"])
        none = not row["answer"] and np.isfinite(found.none)
        if right.any() or (none and len(right)):
            parts.append((found, np.append(right, none)))

    def loss(shares: np.ndarray) -> float:
        penalty = float((_TRUST * (shares - start) ** 2).sum())
        return penalty - sum(float(np.logaddexp.reduce(log_probs(found, shares)[right])) for found, right in parts)

    bounds = [(0.0, 3.0), (0.0, 3.0) if start[1] else (0.0, 0.0), (-10.0, 10.0)]
    return minimize(loss, start, bounds=bounds, method="L-BFGS-B").x.round(4).tolist()


def log_probs(found: SpanScores, shares: Sequence[float]) -> np.ndarray:
    """Return the log-probability of each span and, last, of no answer."""
    none = shares[1] * found.none + shares[2] if np.isfinite(found.none) else -np.inf
    scores = np.append(shares[0] * found.network + shares[1] * found.features, none)
    return scores - np.logaddexp.reduce(scores)


def best_answers(saved: SavedModel, rows: Sequence[dict[str, Any]]) -> tuple[list[str], np.ndarray]:
    """Return the best span of each row's context or "" for no answer, and its probability."""
    answers, probs = [], []
    for start in range(0, len(rows), _CHUNK):
        chunk = rows[start : start + _CHUNK]
        for row, found in zip(chunk, score_spans(saved, chunk), strict=True):
            if not len(found.places):  # a passage without a word
                answers.append("")
                probs.append(0.0)
                continue
            best, prob = _choose(found, np.exp(log_probs(found, saved.settings["shares"])))
            answers.append("" if best < 0 else row["context"][slice(*found.places[best])])
            probs.append(prob)
    return answers, np.array(probs)


def _choose(found: SpanScores, probs: np.ndarray) -> tuple[int, float]:
    """Return the place of the best span, or -1 for no answer, and its probability.

    The likeliest span of many alike can be a poor bet: a span counts for its own probability and, in part, for its expected
    overlap (F1, by characters) with the others.
    """
    likeliest = np.argsort(-probs[:-1], kind="stable")[:_COMPARED]
    (starts, ends), chances = found.places[likeliest].T, probs[likeliest]
    shared = np.maximum(np.minimum(ends[:, None], ends) - np.maximum(starts[:, None], starts), 0)
    overlap = 2 * shared / ((ends - starts)[:, None] + (ends - starts))
    worth = (1 - _OVERLAP_COUNTS) * chances + _OVERLAP_COUNTS * overlap @ chances
    best = int(worth.argmax())
    return (-1, float(probs[-1])) if probs[-1] > worth[best] else (int(likeliest[best]), float(chances[best]))
