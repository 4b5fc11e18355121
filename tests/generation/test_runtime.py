"""The NumPy form of a model computes what the Keras model computes, or is refused."""

from slm_helpers.generation.runtime import Runtime, open_runtime
from slm_helpers.models.classifiers import build_text_classifier
from slm_helpers.models.language_model import build_language_model, build_transformer_language_model

import keras
import numpy as np
import pytest

VOCAB_SIZE = 11


def randomized(model: keras.Model, *, scale: float = 0.5, seed: int = 0) -> keras.Model:
    rng = np.random.default_rng(seed)
    model.set_weights([rng.normal(0, scale, w.shape) for w in model.get_weights()])
    return model


def small_model(cell: str = "gru", **settings) -> keras.Model:
    return randomized(build_language_model(VOCAB_SIZE, cell=cell, **{"embedding_dim": 6, "units": 9, "dropout": 0.3} | settings))


def logits_of(model: keras.Model, token_ids: np.ndarray) -> np.ndarray:
    return keras.ops.convert_to_numpy(model(token_ids))


def some_ids(*shape: int) -> np.ndarray:
    return np.random.default_rng(3).integers(0, VOCAB_SIZE, shape).astype("int32")


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
@pytest.mark.parametrize(("num_layers", "tie_embeddings", "units"), [(1, True, 6), (2, True, 9), (2, False, 9)])
def test_logits_are_those_of_the_full_model(cell, num_layers, tie_embeddings, units):
    model = small_model(cell, num_layers=num_layers, tie_embeddings=tie_embeddings, units=units)
    ids = some_ids(3, 8)
    expected = logits_of(model, ids)
    runtime = open_runtime(model)
    assert runtime.vocab_size == VOCAB_SIZE

    features, whole_states = runtime.read(ids, runtime.zero_states(3))
    np.testing.assert_allclose(runtime.logits(features.reshape(24, -1)).reshape(expected.shape), expected, atol=1e-5)

    states = runtime.zero_states(3)
    assert [s.shape for s in states] == [(3, units)] * len(states) and not any(s.any() for s in states)
    first, states = runtime.read(ids[:, :5], states)
    np.testing.assert_allclose(first, features[:, :5], atol=1e-6)
    for step in range(5, 8):
        one, states = runtime.step(ids[:, step], states)
        np.testing.assert_allclose(one, features[:, step], atol=1e-6)
    for carried, whole in zip(states, whole_states, strict=True):
        np.testing.assert_allclose(carried, whole, atol=1e-6)


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_reading_leaves_the_given_states_as_they_are(cell):
    runtime = open_runtime(small_model(cell))
    _, states = runtime.read(some_ids(2, 4), runtime.zero_states(2))
    before = [state.copy() for state in states]
    runtime.step(some_ids(2), states)
    np.testing.assert_array_equal(states, before)


def test_logits_are_written_where_asked():
    runtime = open_runtime(small_model(tie_embeddings=False))
    features, _ = runtime.step(some_ids(4), runtime.zero_states(4))
    room = np.empty((4, VOCAB_SIZE), dtype="float32")
    assert runtime.logits(features, room) is room
    np.testing.assert_array_equal(room, runtime.logits(features))


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_large_weights_saturate_the_gates_without_overflow(cell):
    model = randomized(small_model(cell), scale=200.0)
    runtime = open_runtime(model)
    ids = some_ids(2, 5)
    with np.errstate(over="raise", invalid="raise"):
        features, _ = runtime.read(ids, runtime.zero_states(2))
        found = runtime.logits(features.reshape(10, -1)).reshape(2, 5, -1)
    expected = logits_of(model, ids)
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def test_the_weights_are_those_at_the_time_of_opening():
    model = small_model()
    ids = some_ids(1, 3)
    old, runtime = logits_of(model, ids), open_runtime(model)
    randomized(model, seed=1)
    for opened, expected in ((runtime, old), (open_runtime(model), logits_of(model, ids))):
        features, _ = opened.read(ids, opened.zero_states(1))
        np.testing.assert_allclose(opened.logits(features[0]), expected[0], atol=1e-5)
    assert not np.allclose(old, logits_of(model, ids))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: build_transformer_language_model(VOCAB_SIZE, size=8, num_layers=1, num_heads=2), "was not made by build_language_model"),
        (lambda: build_text_classifier(VOCAB_SIZE, num_classes=2, units=4), "was not made by build_language_model"),
        (lambda: keras.Sequential([keras.Input((4,)), keras.layers.Dense(4)]), "was not made by"),
        (lambda: quantised(small_model()), "was quantised"),
    ],
)
def test_a_model_without_numpy_form_is_refused(make, message):
    with pytest.raises(TypeError, match=message):
        open_runtime(make())


def quantised(model: keras.Model) -> keras.Model:
    model.quantize("int8")
    return model


@pytest.mark.parametrize(("path", "message"), [("gru_0/gru_cell/kernel", "kernel"), ("embedding/embeddings", "embedding")])
def test_missing_weights_are_named(path, message):
    model = small_model()
    weights = {weight.path: keras.ops.convert_to_numpy(weight) for weight in model.weights if weight.path != path}
    with pytest.raises(ValueError, match=message):
        Runtime({"vocab_size": VOCAB_SIZE, "units": 9, "embedding_dim": 6}, weights)
