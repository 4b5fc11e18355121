"""Beam search against a plain one, and against the list of all sequences."""

from slm_helpers.generation.beam import beam_search, expand_logits

import keras
import numpy as np
import pytest

ops = keras.ops

PAD, UNK, END = 0, 1, 2
VOCAB_SIZE = 6
NEVER = (PAD, UNK)


def build_step(seed: int, *, end_bias: float = 0.0) -> keras.Model:
    """Return a random model with two states, as of a decoder: a memory, shape (batch, 2, 3), and a source that stays as it is."""
    token_ids = keras.Input(shape=(), dtype="int32")
    memory, source = keras.Input(shape=(2, 3)), keras.Input(shape=(4,))
    entered = ops.reshape(keras.layers.Embedding(VOCAB_SIZE, 6)(token_ids), (-1, 2, 3))
    new_memory = ops.tanh(entered + 0.9 * ops.flip(memory, axis=2))
    logits = keras.layers.Dense(VOCAB_SIZE)(ops.concatenate([ops.reshape(new_memory, (-1, 6)), source], axis=1))
    step = keras.Model([token_ids, memory, source], [logits, new_memory, source])
    rng = np.random.default_rng(seed)
    step.set_weights(
        [rng.normal(0, 1, w.shape) + end_bias * (w.shape == (VOCAB_SIZE,)) * (np.arange(w.shape[-1]) == END) for w in step.get_weights()]
    )
    return step


def search(step: keras.Model, first_ids, states, *, suppress_token_ids=NEVER, **options):
    """Search with a Keras step, whose last state stays as it is."""

    def run(token_ids, states):
        logits, memory, _ = (ops.convert_to_numpy(value) for value in step([token_ids, *states]))
        return logits, [memory, states[-1]]

    expand = expand_logits(run, suppress_token_ids)
    return beam_search(expand, first_ids, states[:-1], fixed=states[-1:], **{"end_id": END} | options)


def some_states(num_rows: int) -> list[np.ndarray]:
    rng = np.random.default_rng(9)
    return [rng.normal(size=(num_rows, *shape)).astype("float32") for shape in ((2, 3), (4,))]


def plain_beam(step, first_id, states, *, beam_size=None, max_tokens, length_penalty, never=NEVER):
    """Return (score, tokens with the end) best first, by lists and sorting; without `beam_size` nothing is ever dropped."""
    ended, growing = [], [([], 0.0)]
    last = np.array([first_id], dtype="int32")
    for length in range(1, max_tokens + 1):
        logits, *states = (ops.convert_to_numpy(value) for value in step([last, *states]))
        log_probs = logits - np.log(np.exp(logits.astype("float64")).sum(axis=1, keepdims=True))
        ways = [
            (total + log_probs[i, token], i, [*tokens, token])
            for i, (tokens, total) in enumerate(growing)
            for token in range(VOCAB_SIZE)
            if token not in never
        ]
        ways = sorted(ways, reverse=True)[: beam_size and 2 * beam_size]
        penalty = ((5 + length) / 6) ** length_penalty
        ended = sorted([*ended, *((total / penalty, tokens) for total, _, tokens in ways if tokens[-1] == END)], reverse=True)[:beam_size]
        ways = [way for way in ways if way[2][-1] != END][:beam_size]
        growing = [(tokens, total) for total, _, tokens in ways]
        last = np.array([tokens[-1] for tokens, _ in growing], dtype="int32")
        states = [state[[parent for _, parent, _ in ways]] for state in states]
    return sorted([*ended, *((total / penalty, tokens) for tokens, total in growing)], reverse=True)[:beam_size]


def check_against(found, expected):
    assert [[*h.token_ids, END] if h.ended else h.token_ids for h in found] == [tokens for _, tokens in expected]
    np.testing.assert_allclose([h.score for h in found], [score for score, _ in expected], atol=1e-5)


@pytest.fixture(scope="module")
def step():
    return build_step(0)


@pytest.mark.parametrize("length_penalty", [0.0, 0.6, 2.0])
@pytest.mark.parametrize("never", [NEVER, (*NEVER, END)])
def test_a_wide_beam_finds_the_best_of_all_sequences(step, length_penalty, never):
    first_ids, states = np.array([2, 4, 4], dtype="int32"), some_states(3)
    # Three tokens go on: 27 beginnings of length 3, none dropped by a beam of 40, and 81 whole sequences beside those that end.
    found = search(step, first_ids, states, beam_size=40, max_tokens=4, length_penalty=length_penalty, suppress_token_ids=never)
    for row in range(3):
        own = [state[row : row + 1] for state in states]
        every = plain_beam(step, first_ids[row], own, max_tokens=4, length_penalty=length_penalty, never=never)
        assert len(every) == 81 + (0 if END in never else 1 + 3 + 9 + 27)
        check_against(found[row], every[:40])
    assert {h.ended for h in found[0]} == ({False} if END in never else {True, False})


@pytest.mark.parametrize("beam_size", [1, 2, 5])
@pytest.mark.parametrize("end_bias", [0.0, 3.0])
@pytest.mark.parametrize("length_penalty", [0.0, 1.5])
def test_a_narrow_beam_is_that_of_plain_lists(beam_size, end_bias, length_penalty):
    # The plain search goes on to the limit; ours stops when nothing better can come, which must not change what it finds.
    step, states = build_step(5, end_bias=end_bias), some_states(4)
    settings = {"beam_size": beam_size, "max_tokens": 9, "length_penalty": length_penalty}
    found = search(step, np.array([2, 3, 4, 5]), states, **settings)
    for row in range(4):
        check_against(found[row], plain_beam(step, row + 2, [state[row : row + 1] for state in states], **settings))


def test_a_bad_beginning_may_still_win_by_its_length():
    probs = np.full((VOCAB_SIZE, VOCAB_SIZE), 1e-4)
    probs[3, [END, 4]] = 0.6, 0.4  # after 3 the end looks better at first ...
    probs[4, 4] = 1.0  # ... but after 4 comes 4 for certain
    expand = expand_logits(lambda token_ids, states: (np.log(probs)[token_ids], states), NEVER)
    found = beam_search(expand, [3], [], end_id=END, beam_size=1, max_tokens=7, length_penalty=2.0)
    assert found[0][0].token_ids == [4] * 7
    assert found[0][0].score == pytest.approx(np.log(0.4) / 4, abs=0.002)  # (5 + 7) / 6 squared; the end alone has log 0.6 / 1


def test_a_score_is_the_log_probability_over_the_length_penalty(step):
    for h in search(step, [3], some_states(1), beam_size=6, max_tokens=3, length_penalty=0.8)[0]:
        length = len(h.token_ids) + h.ended
        assert h.score == pytest.approx(h.log_prob / ((5 + length) / 6) ** 0.8, abs=1e-5)
        assert h.ended or length == 3


def test_fewer_sequences_than_the_beam_are_all_returned(step):
    found = search(step, [3], some_states(1), beam_size=10, max_tokens=1)[0]
    assert sorted((h.token_ids, h.ended) for h in found) == [([], True), ([3], False), ([4], False), ([5], False)]


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_run_of_tokens_is_not_written_twice(step, size):
    states, settings = some_states(2), {"max_tokens": 4, "length_penalty": 0.6}
    found = search(step, [3, 4], states, beam_size=40, no_repeat_ngram=size, **settings)

    def repeats(tokens):
        runs = [tuple(tokens[i : i + size]) for i in range(len(tokens) - size + 1)]
        return len(set(runs)) < len(runs)

    for row in range(2):
        every = plain_beam(step, 3 + row, [state[row : row + 1] for state in states], **settings)
        wanted = [(score, tokens) for score, tokens in every if not repeats(tokens)]
        assert len(wanted) < len(every)
        check_against(found[row][: len(wanted)], wanted[:40])


def test_a_run_is_repeated_where_nothing_else_is_left(step):
    never = (*NEVER, END, 5)
    (found,) = search(step, [3], some_states(1), beam_size=2, max_tokens=6, suppress_token_ids=never, no_repeat_ngram=1)
    assert found and all(len(h.token_ids) == 6 and {3, 4} == set(h.token_ids) for h in found)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"beam_size": 0}, "beam_size is 0"),
        ({"beam_size": 10**6}, "beam_size is 1,000,000, but at most 256"),
        ({"max_tokens": 10**9}, "max_tokens is 1,000,000,000, which is too many"),
        ({"max_tokens": -1}, "max_tokens is -1"),
        ({"length_penalty": -0.5}, "length_penalty is -0.5, but must be 0 or more"),
        ({"length_penalty": float("nan")}, "length_penalty is nan"),
        ({"no_repeat_ngram": -1}, "no_repeat_ngram is -1, but must be a whole number of 0 or more"),
        ({"first_ids": [[3]]}, r"first_ids has shape \(1, 1\)"),
        ({"first_ids": [3, 4]}, r"first_ids has shape \(2,\) and the states \[\(1, 2, 3\), \(1, 4\)\]"),
    ],
)
def test_a_bad_argument_is_named(step, changes, message):
    with pytest.raises(ValueError, match=message):
        search(step, **{"first_ids": [3], "states": some_states(1)} | changes)
