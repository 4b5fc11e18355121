"""Rules for drawing the next token from the scores of a language model."""

from dataclasses import dataclass
from numbers import Integral, Real

import numpy as np

_BLOCK = 128  # tokens whose weights are summed first when one is drawn
_RANKED = 256  # likeliest tokens that are put in order for top_p, before all are
_GREEDY_BELOW = 1e-4  # a lower temperature is as good as 0, and dividing by it would overflow


@dataclass(frozen=True, kw_only=True)
class SamplingRule:
    """What may be drawn and how likely it is.

    First the scores of tokens that would repeat are lowered, then temperature, then `top_k` and `top_p`, both judged by the
    probabilities at that temperature.

    Reference:
        Holtzman et al. (2020), "The Curious Case of Neural Text Degeneration", arXiv:1904.09751 (top-p).
        Keskar et al. (2019), "CTRL: A Conditional Transformer Language Model ...", arXiv:1909.05858 (repetition penalty).
    """

    temperature: float = 1.0  # divides the scores; 0 takes the likeliest token
    top_k: int = 0  # draw among this many likeliest tokens; 0: all
    top_p: float = 1.0  # draw among the fewest likeliest tokens that hold this share of the probability
    repetition_penalty: float = 1.0  # scores of tokens just written are divided by it if positive, else multiplied; 1: off
    repetition_window: int = 64  # tokens that count as just written
    no_repeat_ngram: int = 0  # no run of this many tokens is written twice; 0: off

    def __post_init__(self) -> None:
        """Check every setting where it enters."""
        if not isinstance(self.temperature, Real) or not 0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature is {self.temperature!r}, but must be 0 or more. Use 0 for greedy choice.")
        if not isinstance(self.top_p, Real) or not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p!r}, but must lie in (0, 1]. Use 1 for all tokens.")
        penalty = self.repetition_penalty
        if not isinstance(penalty, Real) or not 1 <= penalty < float("inf"):
            raise ValueError(f"repetition_penalty is {penalty!r}, but must be 1 or more. Use 1 for none, 1.2 for a mild one.")
        for name, off in (("top_k", "all tokens"), ("no_repeat_ngram", "no such rule")):
            value = getattr(self, name)
            if not isinstance(value, Integral) or value < 0:
                raise ValueError(f"{name} is {value!r}, but must be a whole number of 0 or more. Use 0 for {off}.")
        if not isinstance(self.repetition_window, Integral) or self.repetition_window < 1:
            raise ValueError(f"repetition_window is {self.repetition_window!r}, but must be a whole number of at least 1.")

    @property
    def looks_back(self) -> bool:
        """Whether the rule needs to know what was written."""
        return self.repetition_penalty != 1 or self.no_repeat_ngram > 0

    def probabilities(self, logits: np.ndarray, written: np.ndarray | None = None) -> np.ndarray:
        """Return with which probability each token is drawn: logits and result of shape (batch, vocab_size).

        Args:
            logits: Scores; -inf for tokens that are never drawn.
            written: Token ids written so far, shape (batch, time); needed if the rule looks back.
        """
        weights = self._weights(np.array(logits, dtype="float32"), written)
        return weights / weights.sum(axis=-1, keepdims=True)

    def draw(self, logits: np.ndarray, uniforms: np.ndarray, written: np.ndarray | None = None) -> np.ndarray:
        """Draw one token id per row: int32, shape (batch,).

        Args:
            logits: Scores, float32, shape (batch, vocab_size); overwritten.
            uniforms: Random numbers in [0, 1), shape (batch,). The token is the first at which the cumulated probabilities exceed
                them, so equal numbers draw equal tokens.
            written: As above.
        """
        if self.temperature < _GREEDY_BELOW:
            self._hold_back(logits, written)
            return logits.argmax(axis=-1).astype("int32")
        weights = self._weights(logits, written)
        # Cumulating the whole vocabulary would take longer than the model's own step: first find the block, then the token in it.
        vocab_size = weights.shape[1]
        if vocab_size % _BLOCK:
            blocks = np.add.reduceat(weights, np.arange(0, vocab_size, _BLOCK), axis=1)
        else:  # the same as a product, several times as fast
            blocks = (weights.reshape(-1, _BLOCK) @ np.ones(_BLOCK, dtype="float32")).reshape(len(weights), -1)
        block, rest = _invert(blocks.astype("float64"), uniforms)
        places = block[:, None] * _BLOCK + np.arange(_BLOCK)
        inside = weights[np.arange(len(weights))[:, None], np.minimum(places, vocab_size - 1)].astype("float64")
        inside[places >= vocab_size] = 0
        token, _ = _invert(inside, rest)
        return (block * _BLOCK + token).astype("int32")

    def _weights(self, logits: np.ndarray, written: np.ndarray | None) -> np.ndarray:
        """Turn scores into weights in place; each row's highest weight is 1."""
        self._hold_back(logits, written)
        logits -= logits.max(axis=-1, keepdims=True)
        if self.temperature < _GREEDY_BELOW:
            chosen = logits.argmax(axis=-1)
            logits[:] = 0
            logits[np.arange(len(logits)), chosen] = 1
            return logits
        if self.temperature != 1:
            logits *= 1 / self.temperature
        weights = np.exp(logits, out=logits)
        if self.top_k or self.top_p < 1:
            weights[weights < _lowest_kept(weights, self.top_k, self.top_p)] = 0
        return weights

    def _hold_back(self, logits: np.ndarray, written: np.ndarray | None) -> None:
        if not self.looks_back:
            return
        if written is None:
            raise ValueError("This rule looks back at what was written, so `written` is needed: token ids, shape (batch, time).")
        if not written.shape[1]:
            return
        if self.repetition_penalty != 1:
            recent = written[:, -self.repetition_window :]
            found = np.take_along_axis(logits, recent, axis=1)
            np.put_along_axis(logits, recent, np.where(found > 0, found / self.repetition_penalty, found * self.repetition_penalty), axis=1)
        if 0 < self.no_repeat_ngram <= written.shape[1]:
            _forbid_repeated(logits, written, self.no_repeat_ngram)


def _forbid_repeated(logits: np.ndarray, written: np.ndarray, size: int) -> None:
    """Rule out, in place, each token that would complete a run of `size` tokens which stands in `written` already."""
    runs = np.lib.stride_tricks.sliding_window_view(written, size, axis=1)
    same = (runs[:, :, :-1] == written[:, None, written.shape[1] - size + 1 :]).all(axis=-1)
    rows, places = np.nonzero(same)
    tokens = runs[rows, places, -1]
    before = logits[rows, tokens]
    logits[rows, tokens] = -np.inf
    stuck = np.isneginf(logits.max(axis=-1))[rows]  # nothing is left in this row: then it may repeat
    logits[rows[stuck], tokens[stuck]] = before[stuck]


def _lowest_kept(weights: np.ndarray, top_k: int, top_p: float) -> np.ndarray:
    """Return the lowest weight, shape (batch, 1), among the top_k and the fewest that hold top_p of the sum; never none."""
    vocab_size = weights.shape[1]
    enough = top_p * weights.sum(axis=-1, dtype="float64", keepdims=True)
    # Ordering some is much cheaper than ordering all, and mostly they do.
    for num_ranked in (min(top_k or _RANKED, vocab_size), vocab_size):
        highest = np.partition(weights, vocab_size - num_ranked, axis=-1)[:, vocab_size - num_ranked :]
        ranked = np.sort(highest, axis=-1)[:, ::-1]
        cumulated = ranked.cumsum(axis=-1, dtype="float64")
        if num_ranked == top_k or (cumulated[:, -1:] >= enough).all():
            break
    kept = cumulated - ranked < enough  # the mass before each token
    kept[:, 0] = True
    return np.where(kept, ranked, np.inf).min(axis=-1, keepdims=True)


def _invert(weights: np.ndarray, uniforms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return where the cumulated weights of each row first exceed uniform * total, and how far inside that place, in [0, 1)."""
    cumulated = weights.cumsum(axis=-1)
    threshold = uniforms * (1 - 1e-12) * cumulated[:, -1]  # stays below the total after rounding
    place = (cumulated <= threshold[:, None]).sum(axis=-1)
    rows = np.arange(len(place))
    inside = 1 - (cumulated[rows, place] - threshold) / weights[rows, place]
    return place, np.minimum(np.maximum(inside, 0), 1 - 1e-9)
