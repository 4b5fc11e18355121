"""Logits processors: what changes the logits of the next token before it is drawn.

A processor is called with the logits, float32, shape (rows, vocab_size), which it changes in place; the token ids written so far, shape
(rows, time), without the prompt; and the numbers of the rows, shape (rows,), for sequences that have ended are no longer among them.

Reference:
    Keskar et al. (2019), "CTRL: A Conditional Transformer Language Model ...", arXiv:1909.05858 (repetition penalty).
"""

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral, Real

import numpy as np

LogitsProcessor = Callable[[np.ndarray, np.ndarray, np.ndarray], None]


@dataclass(frozen=True)
class RepetitionPenalty:
    """Make tokens just written less likely: their logits are divided by the penalty if positive, else multiplied."""

    penalty: float = 1.2  # 1: none
    window: int = 64  # tokens that count as just written

    def __post_init__(self) -> None:
        """Check every setting where it enters."""
        if not isinstance(self.penalty, Real) or not 1 <= self.penalty < float("inf"):
            raise ValueError(f"repetition_penalty is {self.penalty!r}, but must be 1 or more. Use 1 for none, 1.2 for a mild one.")
        if not isinstance(self.window, Integral) or self.window < 1:
            raise ValueError(f"repetition_window is {self.window!r}, but must be a whole number of at least 1.")

    def __call__(self, logits: np.ndarray, token_ids: np.ndarray, rows: np.ndarray) -> None:
        """Change the logits in place."""
        recent = token_ids[:, -self.window :]
        if recent.shape[1]:
            values = np.take_along_axis(logits, recent, axis=1)
            np.put_along_axis(logits, recent, np.where(values > 0, values / self.penalty, values * self.penalty), axis=1)


@dataclass(frozen=True)
class NoRepeatNgrams:
    """Rule out each token that would complete an n-gram a second time, unless nothing else is left."""

    size: int  # tokens of the n-gram; 0: off

    def __post_init__(self) -> None:
        """Check the size where it enters."""
        if not isinstance(self.size, Integral) or self.size < 0:
            raise ValueError(f"no_repeat_ngram is {self.size!r}, but must be a whole number of 0 or more. Use 0 for no such rule.")

    def __call__(self, logits: np.ndarray, token_ids: np.ndarray, rows: np.ndarray) -> None:
        """Change the logits in place."""
        if not 0 < self.size <= token_ids.shape[1]:
            return
        ngrams = np.lib.stride_tricks.sliding_window_view(token_ids, self.size, axis=1)
        same = (ngrams[:, :, :-1] == token_ids[:, None, token_ids.shape[1] - self.size + 1 :]).all(axis=-1)
        repeating, positions = np.nonzero(same)
        tokens = ngrams[repeating, positions, -1]
        before = logits[repeating, tokens]
        logits[repeating, tokens] = -np.inf
        stuck = np.isneginf(logits.max(axis=-1))[repeating]  # nothing is left in this row: then it may repeat
        logits[repeating[stuck], tokens[stuck]] = before[stuck]


def repetition_processors(*, repetition_penalty: float, repetition_window: int, no_repeat_ngram: int) -> list[LogitsProcessor]:
    """Return the processors that these settings ask for; none at their defaults (1, any, 0)."""
    penalty, ngrams = RepetitionPenalty(repetition_penalty, repetition_window), NoRepeatNgrams(no_repeat_ngram)
    return [*([penalty] if repetition_penalty != 1 else []), *([ngrams] if no_repeat_ngram else [])]
