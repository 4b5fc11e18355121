"""The GRU of NumPy against numerical gradients and Keras, and its clipped gradients against those of single rows."""

from slm_helpers.training.private_gru import (
    clipped_gradients,
    continuation_losses,
    fit_rows,
    language_losses,
    new_language_model,
    read_language_rows,
)

import numpy as np
import pytest

SIZES = {"embedding_dim": 4, "units": 5}


@pytest.fixture
def weights():
    rng = np.random.default_rng(0)
    weights = new_language_model(11, **SIZES, seed=1)
    return {name: (values + 0.1 * rng.normal(size=values.shape)).astype("float64") for name, values in weights.items()}


@pytest.fixture
def rows():
    rows = np.random.default_rng(1).integers(1, 11, (3, 7))
    rows[2, 5:] = 0  # padded
    return rows


def shapes(weights):
    return {name: values.shape for name, values in weights.items()}


@pytest.mark.parametrize("name", ["embedding", "kernel", "bias", "recurrent", "recurrent_bias", "output", "output_bias"])
def test_gradients_are_the_slopes_of_the_loss(weights, rows, name):
    gradients, _ = clipped_gradients(read_language_rows(weights, rows)[1], np.inf, shapes(weights))
    place = np.unravel_index(np.abs(gradients[name]).argmax(), gradients[name].shape)
    sides = []
    for step in (1e-4, -1e-4):
        moved = weights | {name: weights[name].copy()}
        moved[name][place] += step
        sides.append(language_losses(moved, rows).sum())
    assert gradients[name][place] == pytest.approx((sides[0] - sides[1]) / 2e-4, rel=2e-2)


def test_clipping_a_batch_is_clipping_its_rows(weights, rows):
    clip = 1.0
    together, norms = clipped_gradients(read_language_rows(weights, rows)[1], clip, shapes(weights))
    total = {name: np.zeros(values.shape) for name, values in weights.items()}
    for row, norm in zip(rows, norms, strict=True):
        alone, _ = clipped_gradients(read_language_rows(weights, row[None])[1], np.inf, shapes(weights))
        length = np.sqrt(sum((gradient**2).sum() for gradient in alone.values()))
        assert length == pytest.approx(norm, rel=1e-4) and norm > clip
        for name in total:
            total[name] += alone[name] * clip / length
    for name in total:
        np.testing.assert_allclose(together[name], total[name], atol=1e-4)


def test_padding_changes_nothing(weights, rows):
    longer = np.pad(rows, ((0, 0), (0, 4)))
    np.testing.assert_allclose(language_losses(weights, longer), language_losses(weights, rows), rtol=1e-6)
    (short, short_norms), (long, long_norms) = (
        clipped_gradients(read_language_rows(weights, each)[1], 0.5, shapes(weights)) for each in (rows, longer)
    )
    np.testing.assert_allclose(short_norms, long_norms, rtol=1e-5)
    np.testing.assert_allclose(short["recurrent"], long["recurrent"], atol=1e-6)


def test_the_gates_are_those_of_keras(weights, rows):
    from slm_helpers._backend import keras

    layer = keras.layers.GRU(5, return_sequences=True)
    vectors = weights["embedding"][rows[:2, :-1]].astype("float32")
    layer.build(vectors.shape)
    layer.set_weights([weights["kernel"], weights["recurrent"], np.concatenate([weights["bias"], weights["recurrent_bias"]])])
    logits = keras.ops.convert_to_numpy(layer(vectors)) @ weights["output"] + weights["output_bias"]
    log_probs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    expected = -np.take_along_axis(log_probs, rows[:2, 1:, None], axis=2).sum(axis=(1, 2))
    np.testing.assert_allclose(language_losses(weights, rows[:2]), expected, rtol=1e-4)


def test_losses_of_continuations_are_those_of_whole_rows(weights):
    symbols = np.array([3, 4, 5])
    losses = continuation_losses(weights, np.array([1, 2]), symbols, 3)
    whole = np.array([[1, 2, a, b, c] for a in symbols for b in symbols for c in symbols])
    prompt = language_losses(weights, np.array([[1, 2]]))[0]
    np.testing.assert_allclose(losses, language_losses(weights, whole) - prompt, rtol=1e-5)


def test_training_learns_a_row_and_noise_keeps_it_from_being_learned():
    rows = np.tile([[1, 2, 3, 4, 5, 6]], (40, 1))
    start = new_language_model(11, embedding_dim=8, units=12)
    settings = {"sample_rate": 0.5, "num_steps": 60, "learning_rate": 2e-2}
    before = language_losses(start, rows[:1])[0]
    learned = fit_rows(start, rows, **settings)
    noisy = fit_rows(start, rows[:1], noise_multiplier=20.0, clip_norm=1.0, **settings)
    assert language_losses(learned, rows[:1])[0] < 0.2 * before < 0.5 * language_losses(noisy, rows[:1])[0]
    np.testing.assert_array_equal(start["output"], new_language_model(11, embedding_dim=8, units=12)["output"])


def test_noise_without_clipping_is_refused():
    with pytest.raises(ValueError, match="clip_norm"):
        fit_rows(new_language_model(5, **SIZES), np.ones((2, 3), int), sample_rate=0.5, num_steps=1, noise_multiplier=1.0)


def test_weights_seen_on_the_way_stay_as_they_were():
    rows, kept = np.tile([[1, 2, 3, 4]], (8, 1)), {}
    start = new_language_model(6, **SIZES)
    last = fit_rows(start, rows, sample_rate=1.0, num_steps=3, on_step=kept.__setitem__)
    assert sorted(kept) == [1, 2, 3]
    np.testing.assert_array_equal(kept[3]["output"], last["output"])
    assert not np.allclose(kept[1]["output"], last["output"])
