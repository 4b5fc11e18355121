"""BLEU and chrF of translations, counted by sacrebleu, with bootstrap intervals.

Reference:
    Papineni et al. (2002), "BLEU: a Method for Automatic Evaluation of Machine Translation"; Popović (2015), "chrF: character
    n-gram F-score for automatic MT evaluation"; Post (2018), "A Call for Clarity in Reporting BLEU Scores", arXiv:1804.08771;
    Koehn (2004), "Statistical Significance Tests for Machine Translation Evaluation" (bootstrap, paired too).
"""

from collections.abc import Sequence
from functools import partial

from slm_helpers._checks import check_choice
from slm_helpers.metrics.intervals import bootstrap_table

import numpy as np
import pandas as pd

METRICS = ("bleu", "chrf")
_TOKENIZERS = {"zh": "zh", "ja": "char"}  # of BLEU, for languages that write no spaces; "13a" for all others
_MAX_ORDER = {"bleu": 4, "chrf": 6}  # longest n-gram, of tokens and of characters


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
        rows.append(
            bootstrap_table([metric], lambda sums, m=metric: [score_of_counts(sums, metric=m)], counts, num_samples=num_samples, seed=seed)
        )
    return pd.concat(rows, ignore_index=True)


def paired_gain(
    targets: Sequence[str | Sequence[str]],
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

    def gain(sums: np.ndarray) -> list[float]:
        return [float(np.subtract(*(score_of_counts(half, metric=metric) for half in np.split(sums, 2))))]

    table = bootstrap_table([metric], gain, np.concatenate(counts, axis=1), num_samples=num_samples, seed=seed)
    return tuple(table.loc[0, ["value", "ci_low", "ci_high"]].astype(float))


def translation_counts(
    targets: Sequence[str | Sequence[str]], predictions: Sequence[str], *, metric: str = "bleu", languages: Sequence[str] | None = None
) -> np.ndarray:
    """Return what the metric counts of each sentence: int64, shape (num_sentences, num_counts). Sums of rows make a score.

    The counts are, of BLEU: tokens of prediction and reference, then matched and all n-grams of the prediction of 1 to 4 tokens;
    of chrF: n-grams of the prediction, of the reference, and matched ones, for each length of 1 to 6 characters.

    Raises:
        ValueError: If there are not as many predictions as targets, or none.
    """
    check_choice(METRICS, metric=metric)
    if len(targets) != len(predictions) or not len(targets):
        raise ValueError(f"There are {len(targets)} targets and {len(predictions)} predictions, but each target needs one prediction.")
    references = [[target] if isinstance(target, str) else list(target) for target in targets]
    if metric == "chrf":
        return np.array([_chrf_counts(*pair) for pair in zip(predictions, references, strict=True)], dtype="int64")
    tokenizers = ["13a"] * len(references) if languages is None else [_TOKENIZERS.get(language, "13a") for language in languages]
    scorers = {name: _bleu(name) for name in set(tokenizers)}
    rows = zip(tokenizers, predictions, references, strict=True)
    return np.array([_bleu_counts(scorers[name], prediction, right) for name, prediction, right in rows], dtype="int64")


def score_of_counts(sums: np.ndarray, *, metric: str = "bleu") -> float:
    """Return the score, 0-100, of summed rows of `translation_counts`."""
    check_choice(METRICS, metric=metric)
    if metric == "chrf":
        return _chrf(np.asarray(sums, dtype="float64"))
    from sacrebleu.metrics import BLEU

    sys_len, ref_len, *counts = (int(count) for count in sums)
    order = _MAX_ORDER["bleu"]
    scored = BLEU.compute_bleu(counts[:order], counts[order:], sys_len, ref_len, smooth_method="exp")  # the default of corpus_score
    return float(scored.score)


def _bleu(tokenizer: str):
    from sacrebleu.metrics import BLEU  # a third of a second

    return BLEU(tokenize=tokenizer, effective_order=True)  # of single sentences; the counts are the same without


def _bleu_counts(scorer, prediction: str, references: list[str]) -> list[int]:
    score = scorer.sentence_score(prediction, references)
    return [score.sys_len, score.ref_len, *score.counts, *score.totals]


def _chrf_counts(prediction: str, references: list[str]) -> np.ndarray:
    """Return the counts with the reference whose chrF is highest, the first of equals, as sacrebleu does it."""
    from sacrebleu.metrics.helpers import extract_all_char_ngrams

    grams = partial(extract_all_char_ngrams, max_order=_MAX_ORDER["chrf"], include_whitespace=False)
    ours, best, best_score = grams(prediction), None, -1.0
    for theirs in map(grams, references):
        # N-grams of a length that the reference lacks do not count.
        counts = np.array([(a.total() if b else 0, b.total(), (a & b).total()) for a, b in zip(ours, theirs, strict=True)]).ravel()
        if (score := _chrf(counts)) > best_score:
            best, best_score = counts, score
    return best


def _chrf(counts: np.ndarray) -> float:
    """Return chrF with beta 2: the F-score of precision and recall averaged over the n-gram lengths that both sides have."""
    predicted, reference, matched = counts.reshape(-1, 3).T
    both = (predicted > 0) & (reference > 0)
    if not matched[both].sum():
        return 0.0
    precision, recall = (matched[both] / predicted[both]).mean(), (matched[both] / reference[both]).mean()
    return float(100 * 5 * precision * recall / (4 * precision + recall))
