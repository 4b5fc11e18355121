"""BLEU and chrF of translations, counted by sacrebleu, with bootstrap intervals.

Reference:
    Papineni et al. (2002), "BLEU: a Method for Automatic Evaluation of Machine Translation"; Popović (2015), "chrF: character
    n-gram F-score for automatic MT evaluation"; Post (2018), "A Call for Clarity in Reporting BLEU Scores", arXiv:1804.08771;
    Koehn (2004), "Statistical Significance Tests for Machine Translation Evaluation" (bootstrap, paired too).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

METRICS = ("bleu", "chrf")
_TOKENS = {"zh": "zh", "ja": "char"}  # how BLEU cuts a language that writes no spaces; all others as "13a"
_CHUNK = 100  # resamples drawn at a time


def translation_table(
    targets: Sequence[str | Sequence[str]],
    predictions: Sequence[str],
    *,
    languages: Sequence[str] | None = None,
    num_samples: int = 1000,
    seed: int = 42,
) -> pd.DataFrame:
    """Return bleu and chrf, 0-100, over all sentences together with 95 % intervals: columns metric, value, ci_low, ci_high.

    Args:
        targets: One right translation of each sentence, or several in a list.
        predictions: What was translated.
        languages: Of each target: Chinese is cut into characters for BLEU.
        num_samples: Resamples of sentences.
        seed: Of the resampling.
    """
    rows = []
    for metric in METRICS:
        counts = translation_counts(targets, predictions, metric=metric, languages=languages)
        scores = [score for (score,) in _resampled([counts], metric, num_samples, seed)]
        rows.append((metric, score_of_counts(counts.sum(axis=0), metric=metric), *np.quantile(scores, [0.025, 0.975])))
    return pd.DataFrame(rows, columns=["metric", "value", "ci_low", "ci_high"])


def paired_gain(
    targets: Sequence[str],
    ours: Sequence[str],
    theirs: Sequence[str],
    *,
    metric: str = "bleu",
    languages: Sequence[str] | None = None,
    num_samples: int = 1000,
    seed: int = 42,
) -> tuple[float, float, float]:
    """Return how far `ours` scores above `theirs` on the same sentences, with its 95 % interval: both are resampled together."""
    counts = [translation_counts(targets, each, metric=metric, languages=languages) for each in (ours, theirs)]
    gain = np.subtract(*(score_of_counts(each.sum(axis=0), metric=metric) for each in counts))
    drawn = [one - other for one, other in _resampled(counts, metric, num_samples, seed)]
    return float(gain), *(float(bound) for bound in np.quantile(drawn, [0.025, 0.975]))


def translation_counts(
    targets: Sequence[str | Sequence[str]], predictions: Sequence[str], *, metric: str = "bleu", languages: Sequence[str] | None = None
) -> np.ndarray:
    """Return what the metric counts of each sentence: int64, shape (num_sentences, counts). Sums of rows make a score.

    Raises:
        ValueError: If there are not as many predictions as targets, or none.
    """
    if len(targets) != len(predictions) or not len(targets):
        raise ValueError(f"There are {len(targets)} targets and {len(predictions)} predictions, but each target needs one prediction.")
    kinds = [""] * len(targets) if metric == "chrf" or languages is None else [_TOKENS.get(language, "") for language in languages]
    rows: list[Any] = [None] * len(targets)
    for kind in dict.fromkeys(kinds):
        picked = [row for row, other in enumerate(kinds) if other == kind]
        # sacrebleu's own way to its bootstrap; it has no public name.
        lists = [[targets[row]] if isinstance(targets[row], str) else targets[row] for row in picked]
        # Where a sentence has fewer right translations than another, its first is named again, which counts as once.
        references = [[(right[place : place + 1] or right[:1])[0] for right in lists] for place in range(max(map(len, lists)))]
        found = _scorer(metric, kind)._extract_corpus_statistics([predictions[row] for row in picked], references)
        for row, counts in zip(picked, found, strict=True):
            rows[row] = counts
    return np.array(rows, dtype="int64")


def score_of_counts(sums: np.ndarray, *, metric: str = "bleu") -> float:
    """Return the score, 0-100, of summed rows of `translation_counts`."""
    return float(_scorer(metric)._compute_score_from_stats([int(count) for count in sums]).score)


def _resampled(counts: list[np.ndarray], metric: str, num_samples: int, seed: int):
    """Yield the scores of all systems on the same resampled sentences, `num_samples` times."""
    rng, num_rows = np.random.default_rng(seed), len(counts[0])
    for start in range(0, num_samples, _CHUNK):
        drawn = rng.multinomial(num_rows, np.full(num_rows, 1 / num_rows), size=min(_CHUNK, num_samples - start))
        for sums in zip(*(drawn @ each for each in counts), strict=True):
            yield tuple(score_of_counts(each, metric=metric) for each in sums)


def _scorer(metric: str, tokens: str = ""):
    from sacrebleu.metrics import BLEU, CHRF  # a third of a second

    if metric not in METRICS:
        raise ValueError(f"metric is {metric!r}, but must be one of {', '.join(METRICS)}.")
    return CHRF() if metric == "chrf" else BLEU(tokenize=tokens or "13a", force=True)
