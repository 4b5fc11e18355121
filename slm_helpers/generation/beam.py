"""Beam search and greedy search over anything that scores the next token, in NumPy: no compiled loop."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Integral, Real

from slm_helpers._checks import check_positive
from slm_helpers._numerics import log_softmax

import numpy as np

MAX_BEAM_SIZE = 256
_MAX_CELLS = 2**26  # rows * beam * tokens that a search may hold
_LAST_RESORT = 1e4  # nats that a repeated n-gram costs: it is written only if there is nothing else

Arrays = list[np.ndarray]
# (token_ids, shape (rows,), states, fixed, num_best) -> the log-probabilities of the likeliest next tokens, best first, shape
# (rows, num_best) or fewer if the vocabulary is smaller; those tokens, the same shape; and the states. All states have `rows` first.
Expand = Callable[[np.ndarray, Arrays, Arrays, int], tuple[np.ndarray, np.ndarray, Arrays]]


@dataclass(frozen=True)
class Hypothesis:
    """One sequence found by `beam_search`."""

    token_ids: list[int]  # without the end token
    score: float  # log-probability over the length penalty; higher is better
    log_prob: float  # natural logarithm, of the end token too if it was written
    ended: bool  # whether the end token was written, or the sequence was cut at max_tokens


def expand_logits(step: Callable[[np.ndarray, Arrays], tuple[np.ndarray, Arrays]], suppress_token_ids: Sequence[int] = ()) -> Expand:
    """Return what a search calls, made of a step (token_ids, states) -> (logits, states); suppressed tokens are never written."""
    suppressed = np.array(sorted({int(token) for token in suppress_token_ids}), dtype=int)

    def expand(token_ids: np.ndarray, states: Arrays, fixed: Arrays, num_best: int) -> tuple[np.ndarray, np.ndarray, Arrays]:
        logits, states = step(token_ids, [*states, *fixed])
        log_probs = log_softmax(np.asarray(logits, dtype="float32"))
        log_probs[:, suppressed] = -np.inf
        if num_best < log_probs.shape[1]:
            best = np.sort(np.argpartition(-log_probs, num_best, axis=1)[:, :num_best], axis=1)
        else:
            best = np.tile(np.arange(log_probs.shape[1]), (len(log_probs), 1))
        best = np.take_along_axis(best, np.argsort(-np.take_along_axis(log_probs, best, axis=1), axis=1, kind="stable"), axis=1)
        return np.take_along_axis(log_probs, best, axis=1), best, states[: len(states) - len(fixed)]

    return expand


def beam_search(
    expand: Expand,
    first_ids: np.ndarray,
    states: Sequence[np.ndarray],
    *,
    fixed: Sequence[np.ndarray] = (),
    end_id: int,
    beam_size: int = 4,
    max_tokens: int = 100,
    length_penalty: float = 0.6,
    no_repeat_ngram: int = 0,
) -> list[list[Hypothesis]]:
    """Find probable sequences: follow the `beam_size` most probable beginnings at each step instead of one.

    A sequence Y scores log P(Y) / lp(Y) with lp(Y) = ((5 + |Y|) / 6) ** length_penalty, where |Y| counts its tokens, the end token
    among them. Finished sequences are held apart from the live ones, and a row is done when none of these can pass the
    worst of those any more. A beam of 1 with length_penalty=0 follows the most probable token each time and returns the most probable
    end on that way, which may come before the one that greedy choice finds.

    Args:
        expand: Gives the likeliest next tokens, see `Expand`; `expand_logits` makes one of a step that gives logits.
        first_ids: The token to begin after, int32, shape (batch,).
        states: The states before that token, first axis batch; each comes back with the same shape.
        fixed: What each step reads besides and never changes, e.g. an encoder's outputs; first axis batch.
        end_id: The token that ends a sequence.
        beam_size: Beginnings followed per row, at most MAX_BEAM_SIZE.
        max_tokens: Where a sequence is cut.
        length_penalty: 0 compares plain log-probabilities, which favours short sequences; 1 nearly the mean per token.
        no_repeat_ngram: Write no n-gram of this many tokens twice in a sequence, as long as there is another way on; 0 is off.

    Returns:
        For each row its sequences, best first: `beam_size` of them, or fewer if there are not so many.

    Raises:
        ValueError: If a size is not positive, `length_penalty` is negative, or the shapes of `first_ids` and `states` disagree.

    Reference:
        Wu et al. (2016), "Google's Neural Machine Translation System ...", arXiv:1609.08144 (equation 14, without coverage).
    """
    check_positive(beam_size=beam_size)
    if not isinstance(no_repeat_ngram, Integral) or no_repeat_ngram < 0:
        raise ValueError(f"no_repeat_ngram is {no_repeat_ngram!r}, but must be a whole number of 0 or more. Use 0 for off.")
    if not isinstance(length_penalty, Real) or not 0 <= length_penalty < float("inf"):
        raise ValueError(f"length_penalty is {length_penalty!r}, but must be 0 or more. Use 0 for plain log-probabilities.")
    if beam_size > MAX_BEAM_SIZE:
        raise ValueError(f"beam_size is {beam_size:,}, but at most {MAX_BEAM_SIZE} sequences are searched at once. 4 to 10 are usual.")
    first_ids = _checked(first_ids, [*states, *fixed], max_tokens, beam_size)
    beam = _Beam(len(first_ids), int(beam_size), int(max_tokens), end_id=int(end_id), length_penalty=float(length_penalty))
    last = np.repeat(first_ids, beam_size)
    states, fixed = ([np.repeat(array, beam_size, axis=0) for array in arrays] for arrays in (states, fixed))
    num_best = (4 if no_repeat_ngram else 2) * int(beam_size)
    while len(beam.rows):
        log_probs, token_ids, states = expand(last, states, fixed, num_best)
        parents, drawn, totals = beam.candidates(log_probs, token_ids, num_best, no_repeat_ngram)
        last, kept = beam.extend(parents, drawn, totals)
        states = [state[kept] for state in states]
        going = beam.drop_finished()
        if not going.all():
            rows = np.repeat(going, beam_size)
            last, states, fixed = last[rows], [state[rows] for state in states], [array[rows] for array in fixed]
    return beam.found


def greedy_search(
    expand: Expand,
    first_ids: np.ndarray,
    states: Sequence[np.ndarray],
    *,
    fixed: Sequence[np.ndarray] = (),
    end_id: int,
    max_tokens: int = 100,
) -> list[Hypothesis]:
    """Follow the most probable token each time, for many rows side by side; ends when the last row has.

    Arguments and errors are those of `beam_search`. Returns one sequence a row, whose score is its log-probability per token.
    """
    last = _checked(first_ids, [*states, *fixed], max_tokens, 1)
    rows, written, sums = np.arange(len(last)), [[] for _ in last], np.zeros(len(last))
    states, fixed = list(states), list(fixed)
    for _ in range(max_tokens):
        log_probs, token_ids, states = expand(last, states, fixed, 1)
        last = token_ids[:, 0].astype("int32")
        sums[rows] += log_probs[:, 0]
        for row, token in zip(rows, last.tolist(), strict=True):
            written[row].append(token)
        going = last != end_id
        if not going.all():
            rows, last = rows[going], last[going]
            states, fixed = ([array[going] for array in arrays] for arrays in (states, fixed))
        if not len(rows):
            break
    return [_hypothesis(total / len(tokens), total, tokens, end_id) for total, tokens in zip(sums, written, strict=True)]


def _checked(first_ids: np.ndarray, states: Arrays, max_tokens: int, beam_size: int) -> np.ndarray:
    check_positive(max_tokens=max_tokens)
    if len(first_ids) * beam_size * max_tokens > _MAX_CELLS:
        raise ValueError(f"max_tokens is {max_tokens:,}, which is too many for a search over {len(first_ids)} rows. Give fewer.")
    first_ids = np.asarray(first_ids, dtype="int32")
    if first_ids.ndim != 1 or any(len(state) != len(first_ids) for state in states):
        raise ValueError(
            f"first_ids has shape {first_ids.shape} and the states {[np.shape(s) for s in states]}, but all need the same first axis: "
            "one row per sequence to find."
        )
    return first_ids


def _hypothesis(score: float, log_prob: float, tokens: list[int], end_id: int) -> Hypothesis:
    ended = tokens[-1] == end_id
    return Hypothesis(tokens[:-1] if ended else tokens, float(score), float(log_prob), ended)


class _Beam:
    """For each row that is still searched, two sets of `size` sequences: those that grow, and the best of those that have ended."""

    def __init__(self, num_rows: int, size: int, max_tokens: int, *, end_id: int, length_penalty: float):
        self.size, self.max_tokens, self.end_id, self.length_penalty = size, max_tokens, end_id, length_penalty
        self.found: list[list[Hypothesis]] = [[] for _ in range(num_rows)]
        self.rows, self._length = np.arange(num_rows), 0  # those still searched, and the tokens that each of their sequences has
        # All places hold the same empty sequence, so only the first one counts.
        self.live = np.where(np.arange(size) == 0, np.zeros((num_rows, 1)), -np.inf)
        self.tokens = np.zeros((num_rows, size, max_tokens), dtype="int32")
        self.ended: tuple[np.ndarray, ...] = (  # scores, log-probabilities, lengths, tokens
            *(np.full((num_rows, size), -np.inf) for _ in range(2)),
            np.zeros((num_rows, size), dtype=int),
            self.tokens.copy(),
        )

    def candidates(self, log_probs: np.ndarray, token_ids: np.ndarray, num_best: int, no_repeat_ngram: int) -> tuple[np.ndarray, ...]:
        """Return the best ways to go on, (rows, num_best): the place of the sequence, the token, the log-probability so far.

        A sequence can end in one way only, so twice the beam leaves enough that go on; some of them may be repeats.
        """
        width = log_probs.shape[1]
        totals = (self.live[:, :, None] + log_probs.reshape(len(self.live), self.size, width)).reshape(len(self.live), -1)
        places = np.argsort(-totals, axis=1, kind="stable")[:, :num_best]
        parents, drawn, totals = places // width, _take(token_ids.reshape(totals.shape), places), _take(totals, places)
        if no_repeat_ngram:
            totals = totals - _LAST_RESORT * self._repeats(parents, drawn, no_repeat_ngram)
            order = np.argsort(-totals, axis=1, kind="stable")
            parents, drawn, totals = (_take(part, order) for part in (parents, drawn, totals))
        return parents, drawn, totals

    def extend(self, parents: np.ndarray, drawn: np.ndarray, totals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Put a token behind the sequences; returns the last tokens and the states to keep, (rows * size,) each."""
        candidates = _take(self.tokens, parents)
        candidates[:, :, self._length] = drawn
        self._length += 1
        ends = drawn == self.end_id
        self._end(np.where(ends, totals / self._penalty(self._length), -np.inf), totals, candidates)
        alive = np.where(ends, -np.inf, totals)
        best = np.argsort(-alive, axis=1, kind="stable")[:, : self.size]
        self.live, self.tokens = _take(alive, best), _take(candidates, best)
        kept = np.arange(len(best))[:, None] * self.size + _take(parents, best)
        return _take(drawn, best).reshape(-1).astype("int32"), kept.reshape(-1)

    def drop_finished(self) -> np.ndarray:
        """Note what is found of rows that nothing can change any more; returns which others there are."""
        upper_bound = self.live.max(axis=1) / self._penalty(self.max_tokens)  # the best that a live sequence can still become
        going = (upper_bound > self.ended[0].min(axis=1)) & (self._length < self.max_tokens)
        if not going.all():
            # What grew up to the limit is cut there. Where a row is done before, this is the upper bound: too low to enter.
            cut = self.live / self._penalty(self.max_tokens)
            self._end(np.where(going[:, None], -np.inf, cut), self.live, self.tokens)
            for row in np.flatnonzero(~going):
                parts = zip(*(part[row] for part in self.ended), strict=True)
                self.found[self.rows[row]] = [
                    _hypothesis(score, log_prob, tokens[:size].tolist(), self.end_id)
                    for score, log_prob, size, tokens in parts
                    if np.isfinite(score)
                ]
            self.rows, self.live, self.tokens = self.rows[going], self.live[going], self.tokens[going]
            self.ended = tuple(part[going] for part in self.ended)
        return going

    def _end(self, scores: np.ndarray, log_probs: np.ndarray, tokens: np.ndarray) -> None:
        """Keep the best of the sequences that had ended and of these."""
        new = (scores, log_probs, np.full(scores.shape, self._length), tokens)
        joined = [np.concatenate(parts, axis=1) for parts in zip(self.ended, new, strict=True)]
        best = np.argsort(-joined[0], axis=1, kind="stable")[:, : self.size]
        self.ended = tuple(_take(part, best) for part in joined)

    def _penalty(self, length: int) -> float:
        return ((5 + length) / 6) ** self.length_penalty

    def _repeats(self, parents: np.ndarray, drawn: np.ndarray, size: int) -> np.ndarray:
        """Return whether the n-gram that a token would end stands in its sequence before."""
        if self._length < size:
            return np.zeros(drawn.shape, dtype=bool)
        written = np.concatenate([_take(self.tokens[:, :, : self._length], parents), drawn[:, :, None]], axis=2)
        ngrams = np.lib.stride_tricks.sliding_window_view(written, size, axis=2)
        return (ngrams[:, :, :-1] == ngrams[:, :, -1:]).all(axis=-1).any(axis=-1)


def _take(values: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return values[row, places[row, k]] for values (rows, n, ...) and places (rows, k)."""
    return values[np.arange(len(values))[:, None], places]
