"""A GRU that trains faster on the CPU: the Keras layer with a gradient of its own, weights interchangeable.

Keras' GRU on TensorFlow adds up the gradient of the recurrent weights from one small matrix product a time step. Here the
backward pass keeps the gradients at the gates of every step and makes one large product of them at the end, and the loop over
time is laid out in full, which spares TensorFlow's bookkeeping of a loop. The mathematics is unchanged.
"""

from typing import Any

from slm_helpers.backend import keras

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
