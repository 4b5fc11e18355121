"""The two parts of a language model that take nearly all the time of a training step, with gradients of their own; and pooling.

Keras' GRU on TensorFlow adds up the gradient of the recurrent weights from one small matrix product a time step. `FastGRU`
keeps the gradients at the gates of every step and makes one large product of them at the end. Its loop over time is laid out
in full where all windows have one length: a step is 2 to 3 % faster, but each length is compiled anew, for seconds. Where
lengths vary, one loop serves them all. `mean_cross_entropy` scores the vocabulary for some hundred tokens at a time, so that
the scores stay in the processor's cache and are never held for the whole batch. The mathematics is unchanged in both; on
other backends they are plain Keras.
"""

from typing import Any

from slm_helpers.backend import keras

ops = keras.ops

_ROWS = 512  # tokens scored at a time
MAX_UNROLLED = 160  # steps; longer windows would take long to compile


@keras.saving.register_keras_serializable(package="slm_helpers")
class FastGRU(keras.layers.GRU):
    """Keras' GRU (reset gate after the product), trained with its own gradient where that is faster.

    That is on the TensorFlow backend, without mask or inner dropout: windows of a known length up to MAX_UNROLLED, and in
    training any others. In all other cases it is `keras.layers.GRU`; arguments and weights are the same.
    """

    unrolled = True  # False: one loop for all lengths, for a model that meets many of them

    def call(self, sequences: Any, initial_state: Any = None, mask: Any = None, training: bool = False) -> Any:
        """Return the outputs, shape (batch, time, units), and the final state with `return_state`."""
        steps = sequences.shape[1]
        unrolled = self.unrolled and isinstance(steps, int) and 1 <= steps <= MAX_UNROLLED
        if not (self._is_plain(sequences, mask) and (unrolled or training)):
            return super().call(sequences, initial_state=initial_state, mask=mask, training=training)
        import tensorflow as tf

        dtype = tf.as_dtype(self.compute_dtype)
        sequences = tf.cast(sequences, dtype)
        state = initial_state[0] if isinstance(initial_state, list | tuple) else initial_state
        state = tf.zeros([tf.shape(sequences)[0], self.units], dtype) if state is None else tf.cast(state, dtype)
        weights = [tf.cast(tf.convert_to_tensor(w), dtype) for w in (self.cell.kernel, self.cell.recurrent_kernel, self.cell.bias)]
        run = _unrolled_gru if unrolled else _looped_gru
        outputs, state = run(sequences, tf.ensure_shape(state, [None, self.units]), *weights)
        outputs = outputs if self.return_sequences else outputs[:, -1]
        return (outputs, state) if self.return_state else outputs

    def _is_plain(self, sequences: Any, mask: Any) -> bool:
        cell = self.cell
        plain = cell.reset_after and cell.use_bias and not (cell.dropout or cell.recurrent_dropout or self.go_backwards or self.stateful)
        usual = cell.activation is keras.activations.tanh and cell.recurrent_activation is keras.activations.sigmoid
        concrete = keras.backend.backend() == "tensorflow" and not isinstance(sequences, keras.KerasTensor)
        return concrete and mask is None and plain and usual


@keras.saving.register_keras_serializable(package="slm_helpers")
class TextPooling(keras.layers.Layer):
    """[features, token_ids] -> mean, maximum and last of the features over the true length, side by side in float32.

    Shapes (batch, time, size) and (batch, time) become (batch, 3 * size). Token id 0 is padding and stands on the right; what a
    recurrent layer makes of it is left out here, so that the layer itself needs no mask.

    Reference:
        Howard and Ruder (2018), "Universal Language Model Fine-tuning for Text Classification", arXiv:1801.06146 ("concat pooling").
    """

    def call(self, arguments: list) -> Any:
        """Return the pooled features."""
        features, token_ids = ops.cast(arguments[0], "float32"), ops.cast(arguments[1], "int32")
        real = ops.cast(token_ids != 0, "float32")[:, :, None]
        length = ops.maximum(ops.sum(real, axis=1, keepdims=True), 1.0)
        mean = ops.sum(features * real, axis=1) / length[:, 0]
        highest = ops.max(features - 1e9 * (1 - real), axis=1)
        place = ops.cast(ops.arange(ops.shape(token_ids)[1]), "float32")[None, :, None]
        last = ops.sum(features * ops.cast(ops.equal(place, length - 1), "float32"), axis=1)
        return ops.concatenate([mean, highest, last], axis=-1)

    def compute_output_shape(self, input_shape: list) -> tuple:
        """Return (batch, 3 * size)."""
        return (input_shape[0][0], 3 * input_shape[0][-1])


def _unrolled_gru(sequences, state, kernel, recurrent_kernel, bias):
    """Run a GRU over (batch, time, features) from `state`; returns outputs (batch, time, units) and the final state.

    Blocks of the weights stand in Keras' order: update gate z, reset gate r, candidate.
    """
    import tensorflow as tf

    num_steps, features, units = sequences.shape[1], sequences.shape[2], state.shape[1]

    @tf.custom_gradient
    def run(sequences, state, kernel, recurrent_kernel, bias):
        by_time = tf.reshape(tf.transpose(sequences, [1, 0, 2]), [-1, features])
        inputs = tf.unstack(tf.reshape(by_time @ kernel + bias[0], [num_steps, -1, 3 * units]))
        states, gates, candidates, hidden = [state], [], [], []
        for step in range(num_steps):
            recurrent = states[-1] @ recurrent_kernel + bias[1]
            gate = tf.sigmoid(inputs[step][:, : 2 * units] + recurrent[:, : 2 * units])
            update, reset = tf.split(gate, 2, axis=1)
            hidden.append(recurrent[:, 2 * units :])
            candidate = tf.tanh(inputs[step][:, 2 * units :] + reset * hidden[-1])
            states.append(candidate + update * (states[-1] - candidate))
            gates.append(gate)
            candidates.append(candidate)

        def gradient(d_outputs, d_final):
            d_steps = tf.unstack(d_outputs, axis=1)
            d_state = d_final
            d_inputs, d_recurrent = [None] * num_steps, [None] * num_steps
            for step in reversed(range(num_steps)):
                d_state = d_state + d_steps[step]
                gate, candidate = gates[step], candidates[step]
                update, reset = tf.split(gate, 2, axis=1)
                kept = d_state * update
                d_candidate = (d_state - kept) * (1 - candidate * candidate)
                d_gate = tf.concat([d_state * (states[step] - candidate), d_candidate * hidden[step]], axis=1) * gate * (1 - gate)
                d_inputs[step] = tf.concat([d_gate, d_candidate], axis=1)
                d_recurrent[step] = tf.concat([d_gate, d_candidate * reset], axis=1)
                d_state = kept + tf.matmul(d_recurrent[step], recurrent_kernel, transpose_b=True)
            d_all_inputs, d_all_recurrent = tf.concat(d_inputs, axis=0), tf.concat(d_recurrent, axis=0)
            d_by_time = tf.reshape(tf.matmul(d_all_inputs, kernel, transpose_b=True), [num_steps, -1, features])
            return (
                tf.transpose(d_by_time, [1, 0, 2]),
                d_state,
                tf.matmul(by_time, d_all_inputs, transpose_a=True),
                tf.matmul(tf.concat(states[:-1], axis=0), d_all_recurrent, transpose_a=True),
                tf.stack([tf.reduce_sum(d_all_inputs, axis=0), tf.reduce_sum(d_all_recurrent, axis=0)]),
            )

        return (tf.stack(states[1:], axis=1), states[-1]), gradient

    return run(sequences, state, kernel, recurrent_kernel, bias)


def _looped_gru(sequences, state, kernel, recurrent_kernel, bias):
    """Do what `_unrolled_gru` does with two loops of TensorFlow, for any number of steps."""
    import tensorflow as tf

    batch, time, features = sequences.shape
    units, dtype = state.shape[1], sequences.dtype

    def per_step(values, num_steps):
        return tf.TensorArray(dtype, size=num_steps).unstack(values)

    @tf.custom_gradient
    def run(sequences, state, kernel, recurrent_kernel, bias):
        num_steps = tf.shape(sequences)[1]
        by_time = tf.reshape(tf.transpose(sequences, [1, 0, 2]), [-1, features])
        inputs = per_step(tf.reshape(by_time @ kernel + bias[0], [num_steps, -1, 3 * units]), num_steps)

        def forward(step, state, *kept):
            x, recurrent = inputs.read(step), state @ recurrent_kernel + bias[1]
            gate = tf.sigmoid(x[:, : 2 * units] + recurrent[:, : 2 * units])
            update, reset = tf.split(gate, 2, axis=1)
            hidden = recurrent[:, 2 * units :]
            candidate = tf.tanh(x[:, 2 * units :] + reset * hidden)
            state = candidate + update * (state - candidate)
            values = (state, update, reset, candidate, hidden)
            return (step + 1, state, *(array.write(step, value) for array, value in zip(kept, values, strict=True)))

        empty = [tf.TensorArray(dtype, size=num_steps, element_shape=[None, units]) for _ in range(5)]
        # One step after the other: the next one needs this one's state, so nothing is gained by starting it early.
        _, final, *kept = tf.while_loop(
            lambda step, *_: step < num_steps, forward, (0, state, *empty), maximum_iterations=num_steps, parallel_iterations=1
        )
        states, update, reset, candidate, hidden = (array.stack() for array in kept)
        before = tf.concat([state[None], states[:-1]], axis=0)

        def gradient(d_outputs, d_final):
            # What the gradient at a step's state is multiplied with, for all steps at once.
            to_candidate = (1 - update) * (1 - candidate * candidate)
            to_update = (before - candidate) * update * (1 - update)
            to_reset = to_candidate * hidden * reset * (1 - reset)
            to_recurrent = per_step(tf.concat([to_update, to_reset, to_candidate * reset], axis=2), num_steps)
            updates, d_steps = per_step(update, num_steps), per_step(tf.transpose(d_outputs, [1, 0, 2]), num_steps)

            def backward(done, d_state, d_states):
                step = num_steps - 1 - done
                d_state = d_state + d_steps.read(step)
                d_recurrent = tf.tile(d_state, [1, 3]) * to_recurrent.read(step)
                d_before = d_state * updates.read(step) + tf.matmul(d_recurrent, recurrent_kernel, transpose_b=True)
                return done + 1, d_before, d_states.write(step, d_state)

            empty = tf.TensorArray(dtype, size=num_steps, element_shape=[None, units])
            _, d_state, d_states = tf.while_loop(
                lambda done, *_: done < num_steps, backward, (0, d_final, empty), maximum_iterations=num_steps, parallel_iterations=1
            )
            d_states = d_states.stack()
            d_gates = tf.concat([d_states * to_update, d_states * to_reset], axis=2)
            d_candidate = d_states * to_candidate
            d_inputs = tf.reshape(tf.concat([d_gates, d_candidate], axis=2), [-1, 3 * units])
            d_recurrent = tf.reshape(tf.concat([d_gates, d_candidate * reset], axis=2), [-1, 3 * units])
            d_by_time = tf.reshape(tf.matmul(d_inputs, kernel, transpose_b=True), [num_steps, -1, features])
            return (
                tf.transpose(d_by_time, [1, 0, 2]),
                d_state,
                tf.matmul(by_time, d_inputs, transpose_a=True),
                tf.matmul(tf.reshape(before, [-1, units]), d_recurrent, transpose_a=True),
                tf.stack([tf.reduce_sum(d_inputs, axis=0), tf.reduce_sum(d_recurrent, axis=0)]),
            )

        return (tf.ensure_shape(tf.transpose(states, [1, 0, 2]), [batch, time, units]), final), gradient

    return run(sequences, state, kernel, recurrent_kernel, bias)


def mean_cross_entropy(hidden: Any, targets: Any, weights: Any, matrix: Any, bias: Any) -> Any:
    """Return the mean cross-entropy in nats of softmax(hidden @ matrix.T + bias) against `targets`, as a float32 scalar.

    Args:
        hidden: Shape (num_tokens, features); its dtype is the one the products are made in.
        targets: Token ids, int32, shape (num_tokens,).
        weights: How much each token counts, float32, shape (num_tokens,); zeros leave padding out. Gets no gradient.
        matrix: Output weights, shape (vocab_size, features).
        bias: Shape (vocab_size,).
    """
    total = ops.maximum(ops.sum(weights), 1e-9)
    if keras.backend.backend() == "tensorflow" and hidden.shape[0] is not None:
        return _chunked_cross_entropy(hidden, targets, weights / total, matrix, bias)
    logits = ops.cast(ops.matmul(hidden, ops.cast(ops.transpose(matrix), hidden.dtype)), "float32") + bias
    losses = keras.losses.sparse_categorical_crossentropy(targets, logits, from_logits=True)
    return ops.sum(losses * weights) / total


def _chunked_cross_entropy(hidden, targets, weights, matrix, bias):
    """Sum the weighted losses; the gradients come out of the same pass, while a chunk's scores are still at hand."""
    import tensorflow as tf

    matrix, bias = tf.convert_to_tensor(matrix), tf.convert_to_tensor(bias)
    num_tokens, vocab_size = hidden.shape[0], matrix.shape[0]

    @tf.custom_gradient
    def run(hidden, matrix, bias):
        output = tf.cast(matrix, hidden.dtype)
        loss, d_matrix, d_bias, d_hidden = 0.0, tf.zeros_like(matrix), tf.zeros_like(bias), []
        for start in range(0, num_tokens, _ROWS):
            rows, wanted, weight = (part[start : start + _ROWS] for part in (hidden, targets, weights))
            # One chunk after the other: side by side they would crowd each other out of the cache.
            with tf.control_dependencies([d_matrix]):
                scores = tf.cast(tf.matmul(rows, output, transpose_b=True), tf.float32) + bias
            scores -= tf.reduce_max(scores, axis=1, keepdims=True)
            powers = tf.exp(scores)
            sums = tf.reduce_sum(powers, axis=1)
            loss += tf.reduce_sum(weight * (tf.math.log(sums) - tf.gather(scores, wanted, batch_dims=1)))
            d_scores = powers * (weight / sums)[:, None]
            d_bias += tf.reduce_sum(d_scores, axis=0)
            d_scores = tf.cast(d_scores, hidden.dtype)
            # The wanted token's share is taken off afterwards, by row: no second pass over the scores.
            less = tf.cast(weight, hidden.dtype)[:, None]
            d_hidden.append(tf.matmul(d_scores, output) - less * tf.gather(output, wanted))
            d_matrix += tf.cast(tf.matmul(d_scores, rows, transpose_a=True), tf.float32)
        d_matrix -= tf.math.unsorted_segment_sum(tf.cast(hidden, tf.float32) * weights[:, None], targets, vocab_size)
        d_bias -= tf.math.unsorted_segment_sum(weights, targets, vocab_size)
        d_hidden = tf.concat(d_hidden, axis=0)

        def gradient(upstream):
            return tf.cast(upstream, hidden.dtype) * d_hidden, upstream * d_matrix, upstream * d_bias

        return loss, gradient

    return run(hidden, matrix, bias)


@keras.saving.register_keras_serializable(package="slm_helpers")
class CausalBlock(keras.layers.Layer):
    """A Transformer block that looks backwards only: attention, then a network on each position, both added to their input.

    Reference:
        Vaswani et al. (2017), arXiv:1706.03762, with layer normalisation before each part as in GPT-2 (Radford et al. 2019).
    """

    def __init__(self, num_heads: int, *, dropout: float = 0.0, **kwargs: Any):
        """Take `num_heads` attention heads, which share the features evenly; the inner network is four times as wide."""
        super().__init__(**kwargs)
        self.num_heads, self.dropout = num_heads, dropout

    def build(self, input_shape: tuple) -> None:
        """Make the weights for inputs of shape (batch, time, features)."""
        size = input_shape[-1]
        self.norms = [keras.layers.LayerNormalization(epsilon=1e-5, name=f"norm_{i}") for i in range(2)]
        self.drop = keras.layers.Dropout(self.dropout)
        widths = {"qkv": (size, 3 * size), "joined": (size, size), "wide": (size, 4 * size), "narrow": (4 * size, size)}
        for norm in self.norms:
            norm.build(input_shape)
        self.products = {
            name: self.add_weight(shape=shape, initializer=keras.initializers.RandomNormal(stddev=0.02), name=name)
            for name, shape in widths.items()
        }

    def call(self, x: Any, training: bool = False) -> Any:
        """Return (batch, time, features)."""
        batch, time, size = ops.shape(x)[0], ops.shape(x)[1], x.shape[-1]
        products = {name: ops.cast(weight, x.dtype) for name, weight in self.products.items()}
        split = (batch, time, 3, self.num_heads, size // self.num_heads)
        projected = ops.reshape(ops.cast(self.norms[0](x), x.dtype) @ products["qkv"], split)
        queries, keys, values = ops.unstack(ops.transpose(projected, (2, 0, 3, 1, 4)), axis=0)
        scores = ops.cast(queries @ ops.transpose(keys, (0, 1, 3, 2)), "float32") * (size // self.num_heads) ** -0.5
        later = ops.arange(time)[None, :] > ops.arange(time)[:, None]
        shares = ops.cast(ops.softmax(scores - 1e9 * ops.cast(later, "float32")), x.dtype)
        read = ops.reshape(ops.transpose(shares @ values, (0, 2, 1, 3)), (batch, time, size))
        x = x + ops.cast(self.drop(read @ products["joined"], training=training), x.dtype)
        inner = ops.gelu(ops.cast(self.norms[1](x), x.dtype) @ products["wide"]) @ products["narrow"]
        return x + ops.cast(self.drop(inner, training=training), x.dtype)

    def get_config(self) -> dict:
        """Return the arguments."""
        return super().get_config() | {"num_heads": self.num_heads, "dropout": self.dropout}


@keras.saving.register_keras_serializable(package="slm_helpers")
class AddPositions(keras.layers.Layer):
    """Add a learned vector for each place in the window, up to `max_length` places."""

    def __init__(self, max_length: int, **kwargs: Any):
        """Make room for windows of up to `max_length` tokens."""
        super().__init__(**kwargs)
        self.max_length = max_length

    def build(self, input_shape: tuple) -> None:
        """Make the vectors for inputs of shape (batch, time, features)."""
        shape = (self.max_length, input_shape[-1])
        self.places = self.add_weight(shape=shape, initializer=keras.initializers.RandomNormal(stddev=0.02), name="positions_embedding")

    def call(self, x: Any) -> Any:
        """Return (batch, time, features)."""
        return x + ops.cast(self.places, x.dtype)[None, : ops.shape(x)[1]]

    def get_config(self) -> dict:
        """Return the arguments."""
        return super().get_config() | {"max_length": self.max_length}
