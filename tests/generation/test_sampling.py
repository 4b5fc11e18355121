"""Drawing the next token: every rule against a plain loop over the tokens."""

from slm_helpers.generation.sampling import SamplingRule

import numpy as np
import pytest


def plain_probabilities(logits: np.ndarray, *, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0) -> np.ndarray:
    """Return what one row of scores, shape (vocab_size,), should become."""
    weights = np.exp((logits.astype("float64") - logits.max()) / temperature)
    probs = weights / weights.sum()
    kept, mass = [], 0.0
    for token in np.argsort(-probs)[: top_k or None]:
        if top_p < 1 and mass >= top_p:
            break
        kept.append(token)
        mass += probs[token]
    result = np.zeros_like(probs)
    result[kept] = probs[kept] / mass
    return result


def plainly_held_back(logits: np.ndarray, written: list[int], *, penalty: float, window: int, size: int) -> np.ndarray:
    """Return one row of scores after both rules against repetition."""
    logits = logits.copy()
    for token in set(written[-window:]):
        logits[token] = logits[token] / penalty if logits[token] > 0 else logits[token] * penalty
    runs = {tuple(written[i : i + size]) for i in range(len(written) - size + 1)}
    repeating = [t for t in range(len(logits)) if size and tuple([*written, t][-size:]) in runs]
    if not np.isneginf(np.delete(logits, repeating)).all():
        logits[repeating] = -np.inf
    return logits


@pytest.mark.parametrize("temperature", [0.5, 1.7])
@pytest.mark.parametrize(
    ("top_k", "top_p"), [(0, 1.0), (1, 1.0), (3, 1.0), (400, 1.0), (0, 0.6), (0, 0.97), (4, 0.5), (600, 0.9), (9999, 0.3)]
)
@pytest.mark.parametrize("vocab_size", [5, 130, 700])
def test_probabilities_are_those_of_a_plain_loop(vocab_size, top_k, top_p, temperature):
    rng = np.random.default_rng(vocab_size)
    logits = (rng.normal(size=(6, vocab_size)) * np.array([[0.1], [0.3], [1], [3], [10], [30]])).astype("float32")
    given = logits.copy()
    found = SamplingRule(temperature=temperature, top_k=top_k, top_p=top_p).probabilities(logits)
    expected = [plain_probabilities(row, temperature=temperature, top_k=top_k, top_p=top_p) for row in logits]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-7)
    assert not found[np.array(expected) == 0].any()
    np.testing.assert_array_equal(logits, given)  # unlike `draw` it leaves the scores as they are


@pytest.mark.parametrize("top_p", [1.0, 0.9])
@pytest.mark.parametrize("vocab_size", [5, 128, 300])
def test_tokens_are_drawn_in_proportion_to_their_probabilities(vocab_size, top_p):
    logits = np.random.default_rng(1).normal(0, 2, vocab_size).astype("float32")
    logits[[0, 3]] = -np.inf
    num_draws = 20_000
    uniforms = (np.arange(num_draws) + 0.5) / num_draws  # evenly spread, so that each count is right up to one
    drawn = SamplingRule(top_p=top_p).draw(np.repeat(logits[None], num_draws, axis=0), uniforms)
    assert drawn.dtype == np.int32
    assert (np.diff(drawn) >= 0).all()
    expected = num_draws * plain_probabilities(logits, top_p=top_p)
    np.testing.assert_allclose(np.bincount(drawn, minlength=vocab_size), expected, atol=1.1)


def test_the_ends_of_the_random_numbers_draw_no_impossible_token():
    logits = np.full((2, 400), -np.inf, dtype="float32")
    logits[:, [150, 151, 260]] = 0.0
    assert SamplingRule().draw(logits, np.array([0.0, 1 - 2.0**-53])).tolist() == [150, 260]


@pytest.mark.parametrize("temperature", [0.0, 1e-6])
def test_temperature_zero_takes_the_likeliest_token(temperature):
    logits = np.array([[1, 3, 2], [5, -1, 4]], dtype="float32")
    rule = SamplingRule(temperature=temperature)
    np.testing.assert_array_equal(rule.probabilities(logits), [[0, 1, 0], [1, 0, 0]])
    assert rule.draw(logits.copy(), np.array([0.99, 0.99])).tolist() == [1, 0]
    repeating = SamplingRule(temperature=temperature, repetition_penalty=2.0)
    assert repeating.draw(logits.copy(), np.array([0.0, 0.0]), np.array([[1], [0]])).tolist() == [2, 2]


def test_a_low_temperature_does_not_overflow():
    logits = np.array([[1e4, -1e4, 0]], dtype="float32")
    with np.errstate(over="raise", invalid="raise"):
        np.testing.assert_array_equal(SamplingRule(temperature=2e-4).probabilities(logits), [[1, 0, 0]])


@pytest.mark.parametrize("length", [0, 1, 2, 6])
@pytest.mark.parametrize(("penalty", "window", "size"), [(1.5, 64, 0), (1.5, 3, 0), (1.0, 64, 1), (1.0, 64, 2), (1.0, 64, 3), (1.3, 2, 2)])
def test_repeated_tokens_are_held_back_as_by_a_plain_loop(penalty, window, size, length):
    rng = np.random.default_rng(length)
    logits = rng.normal(size=(20, 4)).astype("float32")
    logits[:, 0] = -np.inf  # never drawn
    written = rng.integers(1, 4, (20, length))
    found = SamplingRule(repetition_penalty=penalty, repetition_window=window, no_repeat_ngram=size).probabilities(logits, written)
    plain = [
        plainly_held_back(row, tokens, penalty=penalty, window=window, size=size)
        for row, tokens in zip(logits, written.tolist(), strict=True)
    ]
    np.testing.assert_allclose(found, [plain_probabilities(row) for row in plain], atol=1e-6)
    if length == 6:
        assert not np.allclose(found, SamplingRule().probabilities(logits))
    if (length, size) == (6, 1):
        assert (found[:, 1:] > 0).all(axis=1).any()  # rows in which every token would repeat: then each may


def test_a_rule_that_looks_back_needs_what_was_written():
    with pytest.raises(ValueError, match=r"looks back .* `written` is needed"):
        SamplingRule(no_repeat_ngram=2).probabilities(np.zeros((1, 3)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": -0.1}, "temperature is -0.1, but must be 0 or more. Use 0 for greedy choice"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"temperature": float("inf")}, "temperature is inf"),
        ({"temperature": "hot"}, "temperature is 'hot'"),
        ({"top_k": -1}, "top_k is -1"),
        ({"top_k": 2.5}, "top_k is 2.5, but must be a whole number of 0 or more. Use 0 for all tokens"),
        ({"top_p": 0.0}, r"top_p is 0.0, but must lie in \(0, 1\]"),
        ({"top_p": 1.1}, "top_p is 1.1"),
        ({"top_p": float("nan")}, "top_p is nan"),
        ({"repetition_penalty": 0.5}, "repetition_penalty is 0.5, but must be 1 or more"),
        ({"repetition_penalty": float("nan")}, "repetition_penalty is nan"),
        ({"repetition_window": 0}, "repetition_window is 0, but must be a whole number of at least 1"),
        ({"no_repeat_ngram": -1}, "no_repeat_ngram is -1.*Use 0 for no such rule"),
    ],
)
def test_a_bad_setting_is_named(settings, message):
    with pytest.raises(ValueError, match=message):
        SamplingRule(**settings)
