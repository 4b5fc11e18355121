"""Drawing the next token: every rule against a plain loop over the tokens."""

from slm_helpers.generation.sampling import Sampler

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


@pytest.mark.parametrize("temperature", [0.5, 1.7])
@pytest.mark.parametrize(
    ("top_k", "top_p"), [(0, 1.0), (1, 1.0), (3, 1.0), (400, 1.0), (0, 0.6), (0, 0.97), (4, 0.5), (600, 0.9), (9999, 0.3)]
)
@pytest.mark.parametrize("vocab_size", [5, 130, 700])
def test_probabilities_are_those_of_a_plain_loop(vocab_size, top_k, top_p, temperature):
    rng = np.random.default_rng(vocab_size)
    logits = (rng.normal(size=(6, vocab_size)) * np.array([[0.1], [0.3], [1], [3], [10], [30]])).astype("float32")
    given = logits.copy()
    found = Sampler(temperature=temperature, top_k=top_k, top_p=top_p).probabilities(logits)
    expected = [plain_probabilities(row, temperature=temperature, top_k=top_k, top_p=top_p) for row in logits]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-7)
    assert not found[np.array(expected) == 0].any()
    np.testing.assert_array_equal(logits, given)  # unlike `sample` it leaves the scores as they are


@pytest.mark.parametrize("top_p", [1.0, 0.9])
@pytest.mark.parametrize("vocab_size", [5, 128, 300])
def test_tokens_are_drawn_in_proportion_to_their_probabilities(vocab_size, top_p):
    logits = np.random.default_rng(1).normal(0, 2, vocab_size).astype("float32")
    logits[[0, 3]] = -np.inf
    num_draws = 20_000
    random_numbers = (np.arange(num_draws) + 0.5) / num_draws  # evenly spread, so that each count is right up to one
    drawn = Sampler(top_p=top_p).sample(np.repeat(logits[None], num_draws, axis=0), random_numbers)
    assert drawn.dtype == np.int32
    assert (np.diff(drawn) >= 0).all()
    expected = num_draws * plain_probabilities(logits, top_p=top_p)
    np.testing.assert_allclose(np.bincount(drawn, minlength=vocab_size), expected, atol=1.1)


def test_the_ends_of_the_random_numbers_draw_no_impossible_token():
    logits = np.full((2, 400), -np.inf, dtype="float32")
    logits[:, [150, 151, 260]] = 0.0
    assert Sampler().sample(logits, np.array([0.0, 1 - 2.0**-53])).tolist() == [150, 260]


@pytest.mark.parametrize("temperature", [0.0, 1e-6])
def test_temperature_zero_takes_the_likeliest_token(temperature):
    logits = np.array([[1, 3, 2], [5, -1, 4]], dtype="float32")
    sampler = Sampler(temperature=temperature)
    np.testing.assert_array_equal(sampler.probabilities(logits), [[0, 1, 0], [1, 0, 0]])
    assert sampler.sample(logits.copy(), np.array([0.99, 0.99])).tolist() == [1, 0]


def test_a_low_temperature_does_not_overflow():
    logits = np.array([[1e4, -1e4, 0]], dtype="float32")
    with np.errstate(over="raise", invalid="raise"):
        np.testing.assert_array_equal(Sampler(temperature=2e-4).probabilities(logits), [[1, 0, 0]])


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
    ],
)
def test_a_bad_setting_is_named(settings, message):
    with pytest.raises(ValueError, match=message):
        Sampler(**settings)
