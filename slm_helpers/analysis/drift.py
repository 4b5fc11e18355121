"""Has a second collection drifted from the first? A classifier that tries to tell them apart, and the n-grams that moved.

Reference:
    Lopez-Paz and Oquab (2017), "Revisiting Classifier Two-Sample Tests", arXiv:1610.06545.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from slm_helpers.analysis.word_table import count_ngrams, count_words, typical_ngrams
from slm_helpers.metrics.ranking import auc, auc_interval
from slm_helpers.text.words import CJK

import numpy as np
import pandas as pd

MOST_TEXTS = 5000  # of each collection
_CLEAR, _STRONG = 0.55, 0.75  # of the AUC


@dataclass(frozen=True)
class Drift:
    """How far two collections can be told apart.

    Attributes:
        auc: How often the classifier gives a text of the second a higher score than one of the first, on texts it has not seen; 0.5: the
            two are alike to it. With a 95 % interval, ci_low to ci_high.
        num_tested: Texts it was tested on.
        verdict: In words.
        moved: N-grams typical of the second ("more") and of the first ("fewer"): columns direction, ngram, z, share (in the second),
            before (in the first).
        shifts: Columns measure, first, second: words a text, share of texts in the main language ...
        copies: Texts of the second that stand in the first too, as they are or nearly.
    """

    auc: float
    ci_low: float
    ci_high: float
    num_tested: int
    verdict: str
    moved: pd.DataFrame
    shifts: pd.DataFrame
    copies: int


def separability(first: Sequence[str], second: Sequence[str], groups: np.ndarray, *, seed: int = 42) -> tuple[float, float, float, int]:
    """Train a linear classifier on half of two collections to tell them apart; return its AUC on the other half, interval, and size.

    Args:
        first: Texts.
        second: Texts.
        groups: Of all texts, those of the first before those of the second: copies share a group and stay in one half.
        seed: Of the choice of texts and of the halves.

    Returns:
        AUC, lower and upper end of its 95 % interval (whole groups are drawn), texts tested; NaN and 0 for fewer than 10 texts.
    """
    from slm_helpers.baselines.classification import TfidfClassifier

    rng = np.random.default_rng(seed)
    picked = [np.sort(rng.permutation(len(texts))[:MOST_TEXTS]) for texts in (first, second)]
    texts = [first[i] for i in picked[0]] + [second[i] for i in picked[1]]
    label = np.repeat([0, 1], [len(picked[0]), len(picked[1])])
    group = np.unique(np.concatenate([groups[: len(first)][picked[0]], groups[len(first) :][picked[1]]]), return_inverse=True)[1]
    trained = (rng.permutation(group.max() + 1) % 2 == 0)[group]
    if min(len(np.unique(label[part])) for part in (trained, ~trained)) < 2 or len(label) < 10:
        return float("nan"), float("nan"), float("nan"), 0
    analyzer = "char" if _writes_no_spaces(texts) else "word"
    model = TfidfClassifier(kind="logreg", analyzer=analyzer, C=10.0, seed=seed)
    model.fit([text for text, chosen in zip(texts, trained, strict=True) if chosen], label[trained].astype(str).tolist())
    scores = model.predict_proba([text for text, chosen in zip(texts, trained, strict=True) if not chosen])[:, 1]
    value = auc(label[~trained], scores)
    low, high = auc_interval(label[~trained], scores, group[~trained], seed=seed)
    return value, low, high, int((~trained).sum())


def moved_ngrams(first: Sequence[str], second: Sequence[str], *, num: int = 20, min_texts: int = 5) -> pd.DataFrame:
    """Return n-grams that are more, or less, frequent in the second collection: columns direction, ngram, z, share, before."""
    groups = np.repeat([0, 1], [len(first), len(second)])
    found = count_ngrams(count_words([*first, *second]), groups, 2, longest=2, min_texts=min_texts)
    table = typical_ngrams(found, ["fewer", "more"], np.bincount(groups, minlength=2), num=num)
    fewer = table["group"] == "fewer"
    table.loc[fewer, ["share", "elsewhere"]] = table.loc[fewer, ["elsewhere", "share"]].to_numpy()
    return table.rename(columns={"group": "direction", "elsewhere": "before"}).sort_values(
        ["direction", "z"], ascending=[False, False], kind="stable", ignore_index=True
    )


def _writes_no_spaces(texts: Sequence[str]) -> bool:
    beginnings = "".join(text[:50] for text in texts[:200] + texts[-200:])
    return len(re.findall(f"[{CJK}]", beginnings)) > 0.2 * len(beginnings)


def drift_verdict(auc: float, low: float, high: float, num_tested: int) -> str:
    """Return what the AUC says, with its interval."""
    if not num_tested:
        return "Too few texts to say whether the second file has drifted."
    told = f"AUC {auc:.2f} [{low:.2f}, {high:.2f}] on {num_tested:,} unseen texts"
    if low <= 0.5:
        return f"No drift was found: a classifier cannot clearly tell the files apart ({told})."
    if auc < _CLEAR:
        return f"The files differ a little ({told})."
    if auc < _STRONG:
        return f"The second file has drifted: a classifier tells many of its texts from those of the first ({told})."
    return f"The second file is another kind of text: a classifier tells most of its texts from those of the first ({told})."
