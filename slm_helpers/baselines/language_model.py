"""Kneser-Ney n-gram models, and compression."""

import lzma
from collections.abc import Sequence

from slm_helpers._checks import check_positive

import numpy as np


class KneserNeyModel:
    """Interpolated Kneser-Ney n-gram model over token ids, counted with sorted arrays instead of dictionaries.

    The probability of a token after a context interpolates from the longest context down to the uniform distribution. Counts
    are raw at the highest order and continuation counts (in how many different contexts?) below; one discount per order,
    n1 / (n1 + 2 n2), is taken from each count and given to the shorter context. (nltk.lm is too slow for millions of tokens, and
    kenlm needs a compiler.)

    Reference:
        Ney, Essen and Kneser (1994); Chen and Goodman (1999), "An empirical study of smoothing techniques for language modeling".
    """

    def __init__(self, order: int, vocab_size: int):
        """Prepare an empty model.

        Args:
            order: Tokens in the longest n-gram, context and predicted token together.
            vocab_size: Number of distinct token ids.
        """
        check_positive(order=order, vocab_size=vocab_size)
        self.order = order
        self.vocab_size = vocab_size

    def fit(self, token_ids: np.ndarray) -> "KneserNeyModel":
        """Count the n-grams of one stream of token ids, shape (num_tokens,)."""
        token_ids = np.asarray(token_ids)
        if token_ids.ndim != 1 or len(token_ids) <= self.order:
            raise ValueError(f"token_ids has shape {token_ids.shape}, but a flat array of more than {self.order} tokens is needed.")
        if token_ids.min() < 0 or token_ids.max() >= self.vocab_size:
            raise ValueError(f"token ids lie in {token_ids.min()}..{token_ids.max()}, but vocab_size is {self.vocab_size}.")
        hashes = self._hashes(token_ids)
        self._tables: list[dict[str, np.ndarray]] = []  # index k holds the n-grams of k + 1 tokens
        for k in range(1, self.order + 1):
            grams, where, counts = np.unique(hashes[k][k - 1 :], return_index=True, return_counts=True)
            if k < self.order:
                # How many different tokens stand before this n-gram: count it once per longer n-gram.
                _, first = np.unique(hashes[k + 1][k:], return_index=True)
                counts = _count_in(grams, hashes[k][k:][first])
            context = hashes[k - 1][k - 2 :][where] if k > 1 else np.zeros(len(grams), dtype="uint64")
            self._tables.append(self._table(grams, counts, context, token_ids[k - 1 :][where]))
        return self

    def log_probs(self, token_ids: np.ndarray) -> np.ndarray:
        """Return the natural-log probability of each token after the tokens before it, shape (num_tokens,)."""
        token_ids = np.asarray(token_ids)
        hashes = self._hashes(token_ids)
        probability = np.full(len(token_ids), 1.0 / self.vocab_size)
        for k in range(1, self.order + 1):
            grams = hashes[k][k - 1 :]
            context = np.zeros(len(grams), dtype="uint64") if k == 1 else hashes[k - 1][k - 2 : len(token_ids) - 1]
            probability[k - 1 :] = self._interpolate(k, grams, context, probability[k - 1 :])
        return np.log(probability)

    def next_probs(self, context_ids: Sequence[int]) -> np.ndarray:
        """Return the probability of every token after `context_ids` (its last order - 1 tokens count): shape (vocab_size,)."""
        context_ids = np.asarray(context_ids, dtype="int64")[-(self.order - 1) :] if self.order > 1 else np.zeros(0, dtype="int64")
        every = np.arange(self.vocab_size, dtype="uint64")
        probability = np.full(self.vocab_size, 1.0 / self.vocab_size)
        for k in range(1, min(self.order, len(context_ids) + 1) + 1):
            context = _code_of(context_ids[len(context_ids) - (k - 1) :])
            probability = self._interpolate(k, _mix(context, every), np.broadcast_to(context, every.shape), probability)
        return probability

    def generate(self, prompt_ids: Sequence[int], *, num_tokens: int, seed: int) -> np.ndarray:
        """Sample `num_tokens` token ids that continue `prompt_ids`."""
        rng = np.random.default_rng(seed)
        ids = list(prompt_ids)
        for _ in range(num_tokens):
            ids.append(self._draw(ids, rng))
        return np.array(ids[len(prompt_ids) :], dtype="int32")

    def _draw(self, context_ids: Sequence[int], rng: np.random.Generator) -> int:
        """Draw a token as `next_probs` has it, but without computing them all: go down the orders until one of them gives it.

        What an order has left after its discounts is its own share of the probability; the rest is the shorter context's.
        """
        for k in range(min(self.order, len(context_ids) + 1), 0, -1):
            table = self._tables[k - 1]
            context = _code_of(context_ids[len(context_ids) - (k - 1) :])[0]
            place = int(np.searchsorted(table["contexts"], context))
            if place == len(table["contexts"]) or table["contexts"][place] != context or not table["totals"][place]:
                continue  # never seen
            grams = table["by_context"][table["starts"][place] : table["starts"][place + 1]]
            sums = np.cumsum(np.maximum(table["counts"][grams] - table["discount"], 0.0))
            drawn = rng.random() * table["totals"][place]
            if drawn < sums[-1]:
                return int(table["tokens"][grams[np.searchsorted(sums, drawn, side="right")]])
        return int(rng.integers(self.vocab_size))

    def _hashes(self, token_ids: np.ndarray) -> list[np.ndarray]:
        """Return, for each length k, a 64-bit code of the k tokens that end at each position (index 0: the empty run)."""
        codes = [np.zeros(len(token_ids), dtype="uint64")]
        for _ in range(self.order):
            before = np.concatenate([np.zeros(1, dtype="uint64"), codes[-1][:-1]])
            codes.append(_mix(before, token_ids))
        return codes

    def _table(self, grams: np.ndarray, counts: np.ndarray, context: np.ndarray, tokens: np.ndarray) -> dict[str, np.ndarray]:
        ones, twos = (counts == 1).sum(), (counts == 2).sum()
        # With next to no singletons (a tiny vocabulary, much text) the estimate degenerates; keep some mass for the unseen.
        discount = float(np.clip(ones / max(1, ones + 2 * twos), 0.1, 0.95))
        contexts, group = np.unique(context, return_inverse=True)
        return {
            "grams": grams,
            "counts": counts,
            "contexts": contexts,
            "totals": np.bincount(group, weights=counts),
            "kinds": np.bincount(group, weights=counts > 0),
            "discount": np.array(discount),
            "tokens": tokens.astype("int32"),  # the last one of each gram
            "by_context": np.argsort(group, kind="stable").astype("int32"),  # grams of one context stand side by side
            "starts": np.concatenate([[0], np.cumsum(np.bincount(group))]),
        }

    def _interpolate(self, k: int, grams: np.ndarray, context: np.ndarray, shorter: np.ndarray) -> np.ndarray:
        table = self._tables[k - 1]
        discount = float(table["discount"])
        counts = _look_up(table["grams"], table["counts"], grams)
        totals = _look_up(table["contexts"], table["totals"], context)
        kinds = _look_up(table["contexts"], table["kinds"], context)
        seen = totals > 0
        safe = np.where(seen, totals, 1.0)
        mixed = (np.maximum(counts - discount, 0.0) + discount * kinds * shorter) / safe
        return np.where(seen, mixed, shorter)  # an unseen context says nothing: keep the shorter one's word


def xz_bits_per_byte(text: str, *, primer: str = "") -> float:
    """Return the bits per byte that xz (LZMA) needs for `text` when it has read `primer` before.

    The cost of `text` is the size of both together minus the size of the primer alone. The dictionary is 64 MB.
    """
    if not text:
        raise ValueError("The text is empty: there is nothing to compress.")
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": 1 << 26}]

    def size(data: str) -> int:
        return len(lzma.compress(data.encode(), format=lzma.FORMAT_RAW, filters=filters))

    return 8 * (size(primer + text) - (size(primer) if primer else 0)) / len(text.encode())


def _mix(before: np.ndarray, token_ids: np.ndarray) -> np.ndarray:
    """Extend 64-bit codes by one token each (a multiply-and-shift hash; collisions are about one in 10^19 pairs)."""
    with np.errstate(over="ignore"):
        mixed = (before * np.uint64(0x9E3779B97F4A7C15)) ^ (token_ids.astype("uint64") + np.uint64(1)) * np.uint64(0xC2B2AE3D27D4EB4F)
        mixed = (mixed ^ (mixed >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
        return mixed ^ (mixed >> np.uint64(32))


def _code_of(token_ids: Sequence[int]) -> np.ndarray:
    """Return the 64-bit code of one run of tokens, shape (1,)."""
    code = np.zeros(1, dtype="uint64")
    for token in token_ids:
        code = _mix(code, np.array([token]))
    return code


def _count_in(sorted_keys: np.ndarray, values: np.ndarray) -> np.ndarray:
    places = np.searchsorted(sorted_keys, values)
    return np.bincount(places, minlength=len(sorted_keys))


def _look_up(sorted_keys: np.ndarray, values: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Return the value of each queries key, 0 where it is not among the keys."""
    places = np.minimum(np.searchsorted(sorted_keys, queries), len(sorted_keys) - 1)
    return np.where(sorted_keys[places] == queries, values[places], 0).astype("float64")
