from slm_helpers._backend import keras
from slm_helpers.models import fast_rnn
from slm_helpers.models.fast_rnn import FastGRU, FastLSTM, mean_cross_entropy
from slm_helpers.models.layers import CausalBlock, TextPooling

import numpy as np
import pytest

BATCH, TIME, FEATURES, UNITS = 3, 9, 5, 6


def pair(cell="gru", **options):
    """Keras' layer and ours with the same random weights, biases among them."""
    keras.utils.set_random_seed(1)
    kinds = {"gru": (keras.layers.GRU, FastGRU), "lstm": (keras.layers.LSTM, FastLSTM)}[cell]
    plain, fast = (kind(UNITS, **options) for kind in kinds)
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


@pytest.mark.parametrize("cell", ["gru", "lstm"])
@pytest.mark.parametrize("with_state", [False, True])
def test_outputs_and_final_state_equal_those_of_keras(with_state, cell):
    plain, fast = pair(cell, return_sequences=True, return_state=True)
    state = None
    if with_state:
        states = np.random.default_rng(3).normal(size=({"gru": 1, "lstm": 2}[cell], BATCH, UNITS)).astype("float32")
        state = list(states) if cell == "lstm" else states[0]
    for ours, theirs in zip(numpy(fast(inputs(), initial_state=state)), numpy(plain(inputs(), initial_state=state)), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
@pytest.mark.parametrize("unrolled", [True, False])
@pytest.mark.parametrize("options", [{"return_sequences": True}, {}])
def test_one_update_of_every_weight_equals_that_of_keras(options, unrolled, cell):
    """Plain gradient descent at rate 1: the change of a weight is its gradient, whichever backend computes it."""
    changes = []
    for layer in pair(cell, **options):
        layer.unrolled = unrolled
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


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_a_mask_and_long_windows_go_through_keras(monkeypatch, cell):
    plain, fast = pair(cell, return_sequences=True)
    mask = np.arange(TIME)[None] < np.array([[TIME], [4], [1]])
    np.testing.assert_allclose(numpy(fast(inputs(), mask=mask))[0], numpy(plain(inputs(), mask=mask))[0], atol=1e-6)
    monkeypatch.setattr(fast_rnn, "MAX_UNROLLED", 4)
    monkeypatch.setattr(fast_rnn, f"_unrolled_{cell}", None)  # must not be reached
    np.testing.assert_allclose(numpy(fast(inputs()))[0], numpy(plain(inputs()))[0], atol=1e-6)


def test_long_windows_and_unknown_lengths_go_through_one_loop_in_training(monkeypatch):
    plain, fast = pair(return_sequences=True, return_state=True)
    monkeypatch.setattr(fast_rnn, "MAX_UNROLLED", 4)
    monkeypatch.setattr(fast_rnn, "_unrolled_gru", None)  # must not be reached
    state = np.random.default_rng(3).normal(size=(BATCH, UNITS)).astype("float32")
    for ours, theirs in zip(
        numpy(fast(inputs(), initial_state=state, training=True)), numpy(plain(inputs(), initial_state=state)), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    _, fast = pair(return_sequences=True)
    model = keras.Sequential([keras.Input((None, FEATURES)), fast])
    model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=False)
    losses = [float(model.train_on_batch(inputs(time), np.zeros((BATCH, time, UNITS), "float32"))) for time in (9, 5, 7, 9)]
    assert losses[-1] < losses[0]


def test_pooling_takes_mean_maximum_and_last_of_the_true_length():
    features = np.array([[[1.0, -5.0], [3.0, -1.0], [9.0, 9.0]], [[-2.0, 4.0], [7.0, 7.0], [9.0, 9.0]]], "float32")
    token_ids = np.array([[5, 6, 0], [5, 0, 0]], "int32")
    pooled = numpy(TextPooling()([features, token_ids]))[0]
    np.testing.assert_allclose(pooled, [[2.0, -3.0, 3.0, -1.0, 3.0, -1.0], [-2.0, 4.0, -2.0, 4.0, -2.0, 4.0]], atol=1e-6)


def test_pooling_of_nothing_but_padding_is_finite():
    pooled = numpy(TextPooling()([np.ones((1, 3, 2), "float32"), np.zeros((1, 3), "int32")]))[0]
    assert np.isfinite(pooled).all()


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_it_comes_back_from_its_config(cell):
    _, fast = pair(cell, return_sequences=True)
    copy = keras.layers.deserialize(keras.layers.serialize(fast))
    assert type(copy) is type(fast) and copy.units == UNITS


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="elsewhere it is Keras' layer")
@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_the_gradient_of_the_final_states_is_that_of_keras(cell):
    """A loss on the states handed out, and weights that the states handed in lead to: a window that goes on from another."""
    import tensorflow as tf

    found = []
    for layer in pair(cell, return_sequences=True, return_state=True):
        start = [tf.constant(np.random.default_rng(i).normal(size=(BATCH, UNITS)), tf.float32) for i in range({"gru": 1, "lstm": 2}[cell])]
        with tf.GradientTape() as tape:
            tape.watch(start)
            _, *states = layer(inputs(), initial_state=start if len(start) > 1 else start[0], training=True)
            loss = sum(tf.reduce_sum((i + 1) * state**2) for i, state in enumerate(states))
        found.append([value.numpy() for value in tape.gradient(loss, [*start, *(w.value for w in layer.trainable_weights)])])
    for theirs, ours in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5, rtol=1e-4)


class Head(keras.layers.Layer):
    """A matrix, a bias or none, and the loss of their scores: plain or our own."""

    def __init__(self, own: bool, with_bias: bool, smoothing: float):
        super().__init__()
        self.own, self.with_bias, self.smoothing = own, with_bias, smoothing

    def build(self, input_shape):
        rng = np.random.default_rng(7)

        def normal(shape, dtype):
            return rng.normal(size=shape).astype(dtype)

        self.features = self.add_weight(shape=(TOKENS, FEATURES), initializer=normal, name="h")
        self.matrix = self.add_weight(shape=(VOCAB, FEATURES), initializer=normal, name="m")
        if self.with_bias:
            self.bias = self.add_weight(shape=(VOCAB,), initializer=lambda *a, **k: 40 * normal(*a, **k), name="b")

    def call(self, arguments):
        targets, weights = arguments
        features = keras.ops.convert_to_tensor(self.features)
        if self.own:
            bias = self.bias if self.with_bias else None
            return mean_cross_entropy(features, targets, weights, self.matrix, bias, smoothing=self.smoothing)
        logits = keras.ops.matmul(features, keras.ops.transpose(self.matrix))
        logits = logits + self.bias if self.with_bias else logits
        wanted = keras.ops.one_hot(targets, VOCAB) * (1 - self.smoothing) + self.smoothing / VOCAB
        losses = keras.losses.categorical_crossentropy(wanted, logits, from_logits=True)
        return keras.ops.sum(losses * weights) / keras.ops.sum(weights)


class Loss(keras.Model):
    def __init__(self, own: bool, with_bias: bool, smoothing: float):
        super().__init__()
        self.head = Head(own, with_bias, smoothing)

    def call(self, arguments):
        return self.head(arguments)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return 3 * y_pred  # so that the gradient from above is not 1


VOCAB, TOKENS = 11, 23


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("rows", [512, 7])  # one chunk; three full ones and a rest of two
def test_cross_entropy_and_its_gradients_equal_the_plain_ones(monkeypatch, rows, with_bias, smoothing):
    monkeypatch.setattr(fast_rnn, "_ROWS", rows)
    rng = np.random.default_rng(8)
    targets, weights = rng.integers(0, VOCAB, TOKENS).astype("int32"), rng.integers(0, 3, TOKENS).astype("float32")
    found = []
    for own in (False, True):
        model = Loss(own, with_bias, smoothing)
        model.compile(keras.optimizers.SGD(1.0), jit_compile=False)
        loss = model.train_on_batch([targets, weights])
        found.append([np.asarray(loss), *model.get_weights()])
    for theirs, ours in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_no_weight_at_all_gives_no_loss_instead_of_nan():
    zeros = np.zeros((4, FEATURES), "float32")
    loss = mean_cross_entropy(
        zeros, np.zeros(4, "int32"), np.zeros(4, "float32"), np.zeros((VOCAB, FEATURES), "float32"), np.zeros(VOCAB, "float32")
    )
    assert float(loss) == 0.0


@pytest.mark.parametrize("place", [0, 3, 8])
def test_a_causal_block_never_looks_ahead(place):
    keras.utils.set_random_seed(1)
    block = CausalBlock(2)
    x = np.random.default_rng(2).normal(size=(2, TIME, 6)).astype("float32")
    changed = x.copy()
    changed[:, place] = changed[:, place, ::-1]
    before, after = numpy(block(x))[0], numpy(block(changed))[0]
    np.testing.assert_array_equal(before[:, :place], after[:, :place])
    assert (np.abs(before[:, place:] - after[:, place:]).max(axis=(0, 2)) > 1e-6).all()


def test_a_causal_block_equals_attention_written_out():
    """One head at the last position, by hand."""
    keras.utils.set_random_seed(1)
    block = CausalBlock(1)
    x = np.random.default_rng(2).normal(size=(1, 4, 6)).astype("float32")
    found = numpy(block(x))[0][0, -1]
    products = {name: numpy(weight)[0] for name, weight in block.products.items()}

    def norm(v):
        return (v - v.mean(-1, keepdims=True)) / np.sqrt(v.var(-1, keepdims=True) + 1e-5)

    queries, keys, values = np.split(norm(x[0]) @ products["qkv"], 3, axis=-1)
    scores = queries[-1] @ keys.T / np.sqrt(6)
    shares = np.exp(scores) / np.exp(scores).sum()
    y = x[0, -1] + shares @ values @ products["joined"]
    wide = numpy(keras.ops.gelu((norm(y) @ products["wide"])[None]))[0][0]
    np.testing.assert_allclose(found, y + wide @ products["narrow"], atol=1e-4)
