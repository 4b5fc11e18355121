"""The two parts of a language model that take nearly all the time of a training step, with gradients of their own.

Keras' GRU on TensorFlow adds up the gradient of the recurrent weights from one small matrix product a time step. `FastGRU`
keeps the gradients at the gates of every step and makes one large product of them at the end, and its loop over time is laid
out in full, which spares TensorFlow's bookkeeping of a loop. `mean_cross_entropy` scores the vocabulary for some hundred
tokens at a time, so that the scores stay in the processor's cache and are never held for the whole batch. The mathematics is
unchanged in both; on other backends they are plain Keras.
"""

from typing import Any

from slm_helpers.backend import keras

ops = keras.ops

_ROWS = 512  # tokens scored at a time
MAX_UNROLLED = 160  # steps; longer windows would take long to compile and go through Keras' own loop


@keras.saving.register_keras_serializable(package="slm_helpers")
class FastGRU(keras.layers.GRU):
    """Keras' GRU (reset gate after the product), trained with its own gradient where that is faster.

    That is on the TensorFlow backend, for windows of a known length up to MAX_UNROLLED, without mask or inner dropout. In all
    other cases it is `keras.layers.GRU`; arguments and weights are the same.
    """

    def call(self, sequences: Any, initial_state: Any = None, mask: Any = None, training: bool = False) -> Any:
        """Return the outputs, shape (batch, time, units), and the final state with `return_state`."""
        if not self._can_unroll(sequences, mask):
            return super().call(sequences, initial_state=initial_state, mask=mask, training=training)
        import tensorflow as tf

        dtype = tf.as_dtype(self.compute_dtype)
        sequences = tf.cast(sequences, dtype)
        state = initial_state[0] if isinstance(initial_state, list | tuple) else initial_state
        state = tf.zeros([tf.shape(sequences)[0], self.units], dtype) if state is None else tf.cast(state, dtype)
        weights = [tf.cast(tf.convert_to_tensor(w), dtype) for w in (self.cell.kernel, self.cell.recurrent_kernel, self.cell.bias)]
        outputs, state = _unrolled_gru(sequences, tf.ensure_shape(state, [None, self.units]), *weights)
        outputs = outputs if self.return_sequences else outputs[:, -1]
        return (outputs, state) if self.return_state else outputs

    def _can_unroll(self, sequences: Any, mask: Any) -> bool:
        cell = self.cell
        plain = cell.reset_after and cell.use_bias and not (cell.dropout or cell.recurrent_dropout or self.go_backwards or self.stateful)
        usual = cell.activation is keras.activations.tanh and cell.recurrent_activation is keras.activations.sigmoid
        steps = sequences.shape[1]
        known = isinstance(steps, int) and 1 <= steps <= MAX_UNROLLED and not isinstance(sequences, keras.KerasTensor)
        return keras.backend.backend() == "tensorflow" and mask is None and plain and usual and known


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
    if keras.backend.backend() == "tensorflow":
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
