"""Draw the next token from the logits of a language model: temperature, top-k, top-p."""

from dataclasses import dataclass
from numbers import Integral, Real

import numpy as np

_BLOCK = 128  # tokens whose weights are summed first when one is drawn
_RANKED = 256  # most probable tokens that are put in order for top_p, before all are
_GREEDY_BELOW = 1e-4  # a lower temperature is as good as 0, and dividing by it would overflow


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """Which tokens may be drawn and how likely each is: temperature, then `top_k` and `top_p`, judged at that temperature.

    Reference:
        Holtzman et al. (2020), "The Curious Case of Neural Text Degeneration", arXiv:1904.09751 (top-p).
    """

    temperature: float = 1.0  # divides the logits; 0 takes the most probable token
    top_k: int = 0  # draw among this many most probable tokens; 0: all
    top_p: float = 1.0  # draw among the fewest most probable tokens that hold this share of the probability

    def __post_init__(self) -> None:
        """Check every setting where it enters."""
        if not isinstance(self.temperature, Real) or not 0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature is {self.temperature!r}, but must be 0 or more. Use 0 for greedy choice.")
        if not isinstance(self.top_p, Real) or not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p!r}, but must lie in (0, 1]. Use 1 for all tokens.")
        if not isinstance(self.top_k, Integral) or self.top_k < 0:
            raise ValueError(f"top_k is {self.top_k!r}, but must be a whole number of 0 or more. Use 0 for all tokens.")

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Return with which probability each token is drawn: logits (-inf: never) and result of shape (batch, vocab_size)."""
        weights = self._weights(np.array(logits, dtype="float32"))
        return weights / weights.sum(axis=-1, keepdims=True)

    def sample(self, logits: np.ndarray, random_numbers: np.ndarray) -> np.ndarray:
        """Draw one token id per row: int32, shape (batch,).

        Args:
            logits: float32, shape (batch, vocab_size); overwritten.
            random_numbers: In [0, 1), shape (batch,). The token is the first at which the cumulated probabilities exceed them, so
                equal numbers draw equal tokens.
        """
        if self.temperature < _GREEDY_BELOW:
            return logits.argmax(axis=-1).astype("int32")
        weights = self._weights(logits)
        # Cumulating the whole vocabulary would take longer than the model's own step: first find the block, then the token in it.
        vocab_size = weights.shape[1]
        if vocab_size % _BLOCK:
            blocks = np.add.reduceat(weights, np.arange(0, vocab_size, _BLOCK), axis=1)
        else:  # the same as a product, several times as fast
            blocks = (weights.reshape(-1, _BLOCK) @ np.ones(_BLOCK, dtype="float32")).reshape(len(weights), -1)
        block, rest = _invert(blocks.astype("float64"), random_numbers)
        positions = block[:, None] * _BLOCK + np.arange(_BLOCK)
        inside = weights[np.arange(len(weights))[:, None], np.minimum(positions, vocab_size - 1)].astype("float64")
        inside[positions >= vocab_size] = 0
        token, _ = _invert(inside, rest)
        return (block * _BLOCK + token).astype("int32")

    def _weights(self, logits: np.ndarray) -> np.ndarray:
        """Turn logits into weights in place; each row's highest weight is 1."""
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
            weights[weights < _lowest_drawn(weights, self.top_k, self.top_p)] = 0
        return weights


def _lowest_drawn(weights: np.ndarray, top_k: int, top_p: float) -> np.ndarray:
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
    drawn = cumulated - ranked < enough  # the mass before each token
    drawn[:, 0] = True
    return np.where(drawn, ranked, np.inf).min(axis=-1, keepdims=True)


def _invert(weights: np.ndarray, random_numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return where the cumulated weights of each row first exceed random number * total, and how far inside that position, in [0, 1)."""
    cumulated = weights.cumsum(axis=-1)
    threshold = random_numbers * (1 - 1e-12) * cumulated[:, -1]  # stays below the total after rounding
    position = (cumulated <= threshold[:, None]).sum(axis=-1)
    rows = np.arange(len(position))
    inside = 1 - (cumulated[rows, position] - threshold) / weights[rows, position]
    return position, np.minimum(np.maximum(inside, 0), 1 - 1e-9)
