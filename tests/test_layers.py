import slm_helpers.layers
from slm_helpers.backend import keras
from slm_helpers.layers import FastGRU

import numpy as np
import pytest

BATCH, TIME, FEATURES, UNITS = 3, 9, 5, 6


def pair(**options):
    """A Keras GRU and a FastGRU with the same random weights, biases among them."""
    keras.utils.set_random_seed(1)
    plain, fast = keras.layers.GRU(UNITS, **options), FastGRU(UNITS, **options)
    for layer in (plain, fast):
        layer.build((None, TIME, FEATURES))
    rng = np.random.default_rng(0)
    weights = [rng.normal(0, 0.5, w.shape).astype("float32") for w in plain.get_weights()]
    plain.set_weights(weights)
    fast.set_weights(weights)
    return plain, fast


def inputs(time=TIME):
    return np.random.default_rng(2).normal(size=(BATCH, time, FEATURES)).astype("float32")


def numpy(value):
    return [keras.ops.convert_to_numpy(v) for v in (value if isinstance(value, list | tuple) else [value])]


@pytest.mark.parametrize("with_state", [False, True])
def test_outputs_and_final_state_equal_those_of_keras(with_state):
    plain, fast = pair(return_sequences=True, return_state=True)
    state = np.random.default_rng(3).normal(size=(BATCH, UNITS)).astype("float32") if with_state else None
    for ours, theirs in zip(numpy(fast(inputs(), initial_state=state)), numpy(plain(inputs(), initial_state=state)), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize("options", [{"return_sequences": True}, {}])
def test_one_update_of_every_weight_equals_that_of_keras(options):
    """Plain gradient descent at rate 1: the change of a weight is its gradient, whichever backend computes it."""
    changes = []
    for layer in pair(**options):
        model = keras.Sequential([keras.Input((TIME, FEATURES)), keras.layers.Dense(FEATURES, name="before"), layer])
        model.layers[0].set_weights([np.eye(FEATURES, dtype="float32"), np.zeros(FEATURES, "float32")])
        model.compile(keras.optimizers.SGD(1.0), "mse", jit_compile=False)
        before = model.get_weights()
        target = np.random.default_rng(4).normal(size=model.output_shape[1:]).astype("float32")
        model.train_on_batch(inputs(), np.broadcast_to(target, (BATCH, *target.shape)))
        changes.append([new - old for new, old in zip(model.get_weights(), before, strict=True)])
    for theirs, ours in zip(*changes, strict=True):
        assert np.abs(theirs).max() > 1e-4
        np.testing.assert_allclose(ours, theirs, atol=2e-6)


def test_a_mask_and_long_windows_go_through_keras(monkeypatch):
    plain, fast = pair(return_sequences=True)
    mask = np.arange(TIME)[None] < np.array([[TIME], [4], [1]])
    np.testing.assert_allclose(numpy(fast(inputs(), mask=mask))[0], numpy(plain(inputs(), mask=mask))[0], atol=1e-6)
    monkeypatch.setattr(slm_helpers.layers, "MAX_UNROLLED", 4)
    monkeypatch.setattr(slm_helpers.layers, "_unrolled_gru", None)  # must not be reached
    np.testing.assert_allclose(numpy(fast(inputs()))[0], numpy(plain(inputs()))[0], atol=1e-6)


def test_it_comes_back_from_its_config():
    _, fast = pair(return_sequences=True)
    copy = keras.layers.deserialize(keras.layers.serialize(fast))
    assert type(copy) is FastGRU and copy.units == UNITS
