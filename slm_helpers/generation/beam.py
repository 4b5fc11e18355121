"""Beam search and greedy search over any single-step model, each as one compiled loop."""

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real

from slm_helpers._backend import keras
from slm_helpers._checks import check_positive

import numpy as np

ops = keras.ops

MAX_BEAM_SIZE = 256
_MAX_CELLS = 2**26  # rows * beam * tokens that a search may hold
_LAST_RESORT = 1e4  # nats that a repeated n-gram costs: it is written only if there is nothing else
_LENGTH_STEP = 64  # the loop has room for a multiple of this many tokens, so that near lengths share one compiled program


@dataclass(frozen=True)
class Hypothesis:
    """One sequence found by `beam_search`."""

    token_ids: list[int]  # without the end token
    score: float  # log-probability over the length penalty; higher is better
    log_prob: float  # natural logarithm, of the end token too if it was written
    ended: bool  # whether the end token was written, or the sequence was cut at max_tokens


def beam_search(
    step: keras.Model,
    first_ids: np.ndarray,
    states: Sequence[np.ndarray],
    *,
    end_id: int,
    beam_size: int = 4,
    max_tokens: int = 100,
    length_penalty: float = 0.6,
    suppress_token_ids: Sequence[int] = (),
    no_repeat_ngram: int = 0,
) -> list[list[Hypothesis]]:
    """Find probable sequences: follow the `beam_size` most probable beginnings at each step instead of one.

    A sequence Y scores log P(Y) / lp(Y) with lp(Y) = ((5 + |Y|) / 6) ** length_penalty, where |Y| counts its tokens, the end token
    among them. Finished sequences are held apart from the live ones, and a row is done when none of these can pass the
    worst of those any more. A beam of 1 with length_penalty=0 follows the most probable token each time and returns the most probable
    end on that way, which may come before the one that greedy choice finds.

    Args:
        step: [token_ids, *states] -> [logits, *states] with shapes (batch,), (batch, ...) and (batch, vocab_size), e.g. from
            `make_stateful_model(model, single_token=True)`, or a decoder that hands its encoder's outputs on as one more state.
        first_ids: The token to begin after, int32, shape (batch,).
        states: The states before that token, first axis batch; each comes back with the same shape.
        end_id: The token that ends a sequence.
        beam_size: Beginnings followed per row, at most MAX_BEAM_SIZE.
        max_tokens: Where a sequence is cut.
        length_penalty: 0 compares plain log-probabilities, which favours short sequences; 1 nearly the mean per token.
        suppress_token_ids: Token ids that are not written, e.g. padding; with `end_id` among them every sequence has `max_tokens` tokens.
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
    penalties = np.full(len(first_ids), length_penalty, "float32")
    options = {"beam_size": int(beam_size), "no_repeat_ngram": int(no_repeat_ngram)}
    found = _run_loop(_BeamLoop, step, first_ids, states, end_id, max_tokens, suppress_token_ids, [penalties], **options)
    return [[_hypothesis(*place, end_id) for place in zip(*row, strict=True) if np.isfinite(place[0])] for row in zip(*found, strict=True)]


def greedy_search(
    step: keras.Model,
    first_ids: np.ndarray,
    states: Sequence[np.ndarray],
    *,
    end_id: int,
    max_tokens: int = 100,
    suppress_token_ids: Sequence[int] = (),
) -> list[Hypothesis]:
    """Follow the most probable token each time, for many rows side by side; ends when the last row has.

    Arguments and errors are those of `beam_search`. Returns one sequence a row, whose score is its log-probability per token.
    """
    found = _run_loop(_GreedyLoop, step, first_ids, states, end_id, max_tokens, suppress_token_ids)
    return [_hypothesis(log_prob / length, log_prob, length, tokens, end_id) for log_prob, length, tokens in zip(*found, strict=True)]


def _run_loop(
    kind: type,
    step: keras.Model,
    first_ids: np.ndarray,
    states: Sequence[np.ndarray],
    end_id: int,
    max_tokens: int,
    suppress_token_ids: Sequence[int],
    settings_of_rows: Sequence[np.ndarray] = (),
    **options: int,
) -> list[np.ndarray]:
    """Run a loop over the rows, compiled once per setting and cached on the model, so that it goes when the model goes."""
    check_positive(max_tokens=max_tokens)
    if len(first_ids) * options.get("beam_size", 1) * max_tokens > _MAX_CELLS:
        raise ValueError(f"max_tokens is {max_tokens:,}, which is too many for a search over {len(first_ids)} rows. Give fewer.")
    first_ids = np.asarray(first_ids, dtype="int32")
    if first_ids.ndim != 1 or any(len(state) != len(first_ids) for state in states):
        raise ValueError(
            f"first_ids has shape {first_ids.shape} and the states {[np.shape(s) for s in states]}, but all need the same first axis: "
            "one row per sequence to find."
        )
    suppressed = tuple(sorted({int(token) for token in suppress_token_ids}))
    max_length = -(-max_tokens // _LENGTH_STEP) * _LENGTH_STEP
    settings = {"end_id": int(end_id), "max_length": max_length, "suppressed": suppressed} | options
    loops = vars(step).setdefault("_search_loops", {})
    key = (kind, *settings.items())
    if key not in loops:
        loops[key] = kind(step, **settings)
        # A source of any length comes in as a state: XLA would compile the loop anew for each.
        if keras.backend.backend() == "tensorflow" and any(None in state.shape[1:] for state in step.inputs[1:]):
            loops[key].jit_compile = False
    limits = np.full(len(first_ids), max_tokens, "int32")
    return [np.asarray(value) for value in loops[key].predict_on_batch([first_ids, limits, *settings_of_rows, *states])]


def _hypothesis(score: float, log_prob: float, length: int, tokens: np.ndarray, end_id: int) -> Hypothesis:
    token_ids = tokens[:length].tolist()
    ended = token_ids[-1] == end_id
    return Hypothesis(token_ids[:-1] if ended else token_ids, float(score), float(log_prob), ended)


class _BeamLoop(keras.Model):
    """[first ids, limit, length penalty, *states] -> [scores, log-probabilities, lengths, tokens], each (batch, beam, ...).

    Each row has two sets of `beam_size` sequences: those that grow, and the best of those that have ended.
    """

    def __init__(
        self, step: keras.Model, *, end_id: int, beam_size: int, max_length: int, suppressed: tuple[int, ...], no_repeat_ngram: int
    ):
        super().__init__(name="beam_loop")
        self.step, self.end_id, self.beam_size, self.max_length, self.no_repeat_ngram = step, end_id, beam_size, max_length, no_repeat_ngram
        self.suppressed = np.isin(np.arange(step.outputs[0].shape[-1]), suppressed)

    def call(self, arguments: list) -> list:
        first_ids, limit, length_penalty, *states = arguments
        limit, length_penalty = ops.cast(limit, "int32")[0], length_penalty[0]

        def penalty(length):
            return ((5.0 + ops.cast(length, "float32")) / 6.0) ** length_penalty

        def unfinished(i, last, live, tokens, scores, *rest):
            upper_bound = ops.max(live, axis=1) / penalty(limit)  # the best that a live sequence can still become
            return ops.logical_and(i < limit, ops.any(upper_bound > ops.min(scores, axis=1)))

        def extend(i, last, live, tokens, scores, log_probs, lengths, ended, *states):
            logits, *states = self.step([last, *states])
            parents, drawn, values = self._extend(logits, live)
            candidates = _rows(tokens, parents) + drawn[:, :, None] * ops.cast(ops.arange(self.max_length) == i, "int32")
            if self.no_repeat_ngram:
                values = values - _LAST_RESORT * ops.cast(self._repeats(candidates, i), "float32")
                values, order = ops.top_k(values, values.shape[1])
                parents, drawn, candidates = (_rows(part, order) for part in (parents, drawn, candidates))
            ends = drawn == self.end_id
            new = (ops.where(ends, values / penalty(i + 1), -np.inf), values, ops.zeros_like(drawn) + i + 1, candidates)
            done = _best(self.beam_size, (scores, log_probs, lengths, ended), new)
            live, best = ops.top_k(ops.where(ends, -np.inf, values), self.beam_size)
            tokens, last, parents = (_rows(part, best) for part in (candidates, drawn, parents))
            states = [_reorder(state, parents) for state in states]
            return (i + 1, ops.reshape(last, (-1,)), live, tokens, *done, *states)

        i, live, tokens, *done = self._start(first_ids)
        last = ops.repeat(ops.cast(first_ids, "int32"), self.beam_size, axis=0)
        states = [ops.repeat(state, self.beam_size, axis=0) for state in states]
        i, last, live, tokens, *done = ops.while_loop(unfinished, extend, (i, last, live, tokens, *done, *states))
        # What grew up to the limit is cut there. Where the loop stopped before, this is the upper bound above: too low to enter.
        cut = (live / penalty(limit), live, ops.zeros_like(done[2]) + i, tokens)
        return list(_best(self.beam_size, tuple(done[:4]), cut))

    def _start(self, first_ids) -> tuple:
        shape = (ops.shape(first_ids)[0], self.beam_size)
        nothing = ops.full(shape, -np.inf, dtype="float32")
        zeros = ops.zeros(shape, dtype="int32")
        tokens = ops.zeros((*shape, self.max_length), dtype="int32")
        # All places hold the same empty sequence, so only the first one counts.
        live = ops.where(ops.arange(self.beam_size)[None] + zeros == 0, 0.0, nothing)
        return ops.zeros((), dtype="int32"), live, tokens, nothing, nothing, zeros, tokens

    def _extend(self, logits, live) -> tuple:
        """Return the best ways to go on, (batch, 2 * beam): the place of the sequence, the token, and the log-probability so far."""
        log_probs = ops.where(self.suppressed[None], -np.inf, ops.log_softmax(ops.cast(logits, "float32"), axis=-1))
        vocab_size = len(self.suppressed)
        totals = live[:, :, None] + ops.reshape(log_probs, (-1, self.beam_size, vocab_size))
        # A sequence can end in one way only, so twice the beam leaves enough that go on; some of them may be repeats.
        num_best = min(4 if self.no_repeat_ngram else 2, vocab_size) * self.beam_size
        values, places = ops.top_k(ops.reshape(totals, (-1, self.beam_size * vocab_size)), num_best)
        places = ops.cast(places, "int32")
        return places // vocab_size, places % vocab_size, values

    def _repeats(self, tokens, i):
        """Return whether the n-gram that ends at position i stands in a sequence (batch, n, max_length) before."""
        size = min(self.no_repeat_ngram, self.max_length)
        starts = self.max_length - size + 1
        same = ops.arange(starts) < i - size + 1
        for k in range(size):
            last = ops.take(tokens, ops.maximum(i - size + 1 + k, 0), axis=2)
            same = ops.logical_and(same, ops.equal(tokens[:, :, k : starts + k], last[:, :, None]))
        return ops.any(same, axis=2)


class _GreedyLoop(keras.Model):
    """[first ids, limit, *states] -> [log-probabilities, lengths, tokens], each with a row a sequence."""

    def __init__(self, step: keras.Model, *, end_id: int, max_length: int, suppressed: tuple[int, ...]):
        super().__init__(name="greedy_loop")
        self.step, self.end_id, self.max_length = step, end_id, max_length
        self.suppressed = np.isin(np.arange(step.outputs[0].shape[-1]), suppressed)

    def call(self, arguments: list) -> list:
        first_ids, limit, *states = arguments
        first_ids, limit = ops.cast(first_ids, "int32"), ops.cast(limit, "int32")[0]

        def unfinished(i, last, log_probs, lengths, *rest):
            return ops.logical_and(i < limit, ops.any(lengths == i))

        def extend(i, last, log_probs, lengths, tokens, *states):
            logits, *states = self.step([last, *states])
            logits = ops.cast(logits, "float32")
            allowed = ops.where(self.suppressed[None], -np.inf, logits)
            drawn = ops.cast(ops.argmax(allowed, axis=-1), "int32")
            live = lengths == i  # a row that has ended keeps its length
            gain = ops.max(allowed, axis=-1) - ops.logsumexp(logits, axis=-1)
            tokens = tokens + ops.where(live, drawn, 0)[:, None] * ops.cast(ops.arange(self.max_length) == i, "int32")[None]
            # One more than its tokens would be the length of a row that goes on; behind the end token it stands still.
            lengths = ops.where(ops.logical_and(live, drawn != self.end_id), i + 1, lengths)
            return (i + 1, drawn, log_probs + ops.where(live, gain, 0.0), lengths, tokens, *states)

        zeros = ops.zeros_like(first_ids)
        tokens = ops.zeros((ops.shape(first_ids)[0], self.max_length), dtype="int32")
        start = (ops.zeros((), dtype="int32"), first_ids, ops.cast(zeros, "float32"), zeros, tokens)
        i, _, log_probs, lengths, tokens, *_ = ops.while_loop(unfinished, extend, (*start, *states))
        return [log_probs, ops.minimum(lengths + 1, i), tokens]


def _best(num: int, *groups: tuple) -> tuple:
    """Join groups of arrays (batch, n, ...) and keep the `num` places a row with the highest values in the first array, best first."""
    joined = [ops.concatenate(parts, axis=1) for parts in zip(*groups, strict=True)]
    highest, places = ops.top_k(joined[0], num)
    return (highest, *(_rows(part, places) for part in joined[1:]))


def _rows(values, places):
    """Return values[row, places[row, k]] for values (batch, n, ...) and places (batch, k)."""
    starts = ops.arange(ops.shape(values)[0])[:, None] * values.shape[1]
    return ops.take(ops.reshape(values, (-1, *values.shape[2:])), starts + ops.cast(places, "int32"), axis=0)


def _reorder(state, parents):
    """Give each sequence the state of the one it grew from: state (batch * beam, ...), parents (batch, beam)."""
    starts = ops.arange(ops.shape(parents)[0])[:, None] * parents.shape[1]
    return ops.take(state, ops.reshape(starts + parents, (-1,)), axis=0)
