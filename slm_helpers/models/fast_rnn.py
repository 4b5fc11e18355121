"""Recurrent layers and a loss with gradients of their own: the only TensorFlow of the package beside `training.distributed_worker`.

Keras' recurrent layers on TensorFlow add up the gradient of the recurrent weights from one small matrix product a time step.
`FastGRU` and `FastLSTM` keep the gradients at the gates of every step and make one large product of them at the end. Where all
windows have one length the loop over time is unrolled, and what lies between two products of a step is compiled into one pass over
the numbers; each length is compiled anew, for seconds. Where lengths vary, one loop serves them all. On an AMD Zen 3 a GRU's step
forward and back took 0.67 (unrolled) and 0.78 (loop) of the processor time of `keras.layers.GRU`, an LSTM's 0.69 of that of
`keras.layers.LSTM` (64 x 64 tokens, 256 to 512 features; `python -m tests.benchmarks.layer_speed`).

`mean_cross_entropy` scores the vocabulary for some hundred tokens at a time, so that the logits of a whole batch are never held: 0.89
of the time and 150 MB less than with all logits at once, for 8,192 tokens and as many words of the vocabulary.
The mathematics is unchanged; on other backends all of them are plain Keras.
"""

from typing import Any

from slm_helpers._backend import keras

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
        unrolled = self.unrolled and _has_few_steps(sequences)
        if not (_is_plain(self, sequences, mask) and (unrolled or training)):
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


@keras.saving.register_keras_serializable(package="slm_helpers")
class FastLSTM(keras.layers.LSTM):
    """Keras' LSTM, trained with its own gradient where that is faster.

    That is on the TensorFlow backend, without mask or inner dropout, for windows of a known length up to MAX_UNROLLED. In all
    other cases it is `keras.layers.LSTM`; arguments and weights are the same.
    """

    unrolled = True  # False: Keras' loop, for a model that meets many lengths

    def call(self, sequences: Any, initial_state: Any = None, mask: Any = None, training: bool = False) -> Any:
        """Return the outputs, shape (batch, time, units), and the final state and memory with `return_state`."""
        if not (self.unrolled and _has_few_steps(sequences) and _is_plain(self, sequences, mask)):
            return super().call(sequences, initial_state=initial_state, mask=mask, training=training)
        import tensorflow as tf

        dtype = tf.as_dtype(self.compute_dtype)
        sequences = tf.cast(sequences, dtype)
        zeros = tf.zeros([tf.shape(sequences)[0], self.units], dtype)
        states = [tf.ensure_shape(tf.cast(state, dtype), [None, self.units]) for state in initial_state or [zeros, zeros]]
        weights = [tf.cast(tf.convert_to_tensor(w), dtype) for w in (self.cell.kernel, self.cell.recurrent_kernel, self.cell.bias)]
        outputs, *states = _unrolled_lstm(sequences, *states, *weights)
        outputs = outputs if self.return_sequences else outputs[:, -1]
        return (outputs, *states) if self.return_state else outputs


def _has_few_steps(sequences: Any) -> bool:
    return isinstance(sequences.shape[1], int) and 1 <= sequences.shape[1] <= MAX_UNROLLED


def _is_plain(layer: Any, sequences: Any, mask: Any) -> bool:
    """Whether a GRU or LSTM is called in the way that the gradients below are made for."""
    cell = layer.cell
    plain = cell.use_bias and not (cell.dropout or cell.recurrent_dropout or layer.go_backwards or layer.stateful)
    usual = cell.activation is keras.activations.tanh and cell.recurrent_activation is keras.activations.sigmoid
    concrete = keras.backend.backend() == "tensorflow" and not isinstance(sequences, keras.KerasTensor)
    return concrete and mask is None and plain and usual and getattr(cell, "reset_after", True)


def _unrolled_gru(sequences, state, kernel, recurrent_kernel, bias):
    """Run a GRU over (batch, time, features) from `state`; returns outputs (batch, time, units) and the final state.

    Blocks of the weights stand in Keras' order: update gate z, reset gate r, candidate. What lies between two products is
    computed in float32, whatever the products are made in, and compiled into one pass over the numbers.
    """
    import tensorflow as tf

    num_steps, features, units, dtype = sequences.shape[1], sequences.shape[2], state.shape[1], sequences.dtype

    @tf.function(jit_compile=True)
    def forward(entering, recurrent, before, bias):
        entering, recurrent = tf.cast(entering, tf.float32), tf.cast(recurrent, tf.float32) + bias
        gate = tf.sigmoid(entering[:, : 2 * units] + recurrent[:, : 2 * units])
        update, reset, hidden = gate[:, :units], gate[:, units:], recurrent[:, 2 * units :]
        candidate = tf.tanh(entering[:, 2 * units :] + reset * hidden)
        state = candidate + update * (before - candidate)
        return state, tf.cast(state, dtype), gate, candidate, hidden

    @tf.function(jit_compile=True)
    def backward(d_state, d_product, d_output, before, gate, candidate, hidden):
        d_state = d_state + tf.cast(d_product, tf.float32) + tf.cast(d_output, tf.float32)
        update, reset = gate[:, :units], gate[:, units:]
        kept = d_state * update
        d_candidate = (d_state - kept) * (1 - candidate * candidate)
        d_gate = tf.concat([d_state * (before - candidate), d_candidate * hidden], axis=1) * gate * (1 - gate)
        return kept, tf.cast(tf.concat([d_gate, d_candidate * reset], axis=1), dtype), tf.cast(d_candidate, dtype)

    @tf.custom_gradient
    def run(sequences, state, kernel, recurrent_kernel, bias):
        by_time = tf.reshape(tf.transpose(sequences, [1, 0, 2]), [-1, features])
        entering = tf.unstack(tf.reshape(tf.nn.bias_add(by_time @ kernel, bias[0]), [num_steps, -1, 3 * units]))
        recurrent_bias = tf.cast(bias[1], tf.float32)
        exact, states, kept = [tf.cast(state, tf.float32)], [state], []
        for step in range(num_steps):
            new, rounded, *rest = forward(entering[step], states[-1] @ recurrent_kernel, exact[-1], recurrent_bias)
            exact.append(new)
            states.append(rounded)
            kept.append(rest)

        def gradient(d_outputs, d_final):
            d_steps = tf.unstack(d_outputs, axis=1)
            d_state, d_product = tf.cast(d_final, tf.float32), tf.zeros_like(d_final)
            d_recurrent, d_candidates = [None] * num_steps, [None] * num_steps
            turned_recurrent, turned_kernel = _turned(recurrent_kernel), _turned(kernel)
            for step in reversed(range(num_steps)):
                d_state, d_recurrent[step], d_candidates[step] = backward(d_state, d_product, d_steps[step], exact[step], *kept[step])
                d_product = d_recurrent[step] @ turned_recurrent
            d_all_recurrent = tf.concat(d_recurrent, axis=0)
            d_all_entering = tf.concat([d_all_recurrent[:, : 2 * units], tf.concat(d_candidates, axis=0)], axis=1)
            d_by_time = tf.reshape(d_all_entering @ turned_kernel, [num_steps, -1, features])
            return (
                tf.transpose(d_by_time, [1, 0, 2]),
                tf.cast(d_state, dtype) + d_product,
                tf.matmul(by_time, d_all_entering, transpose_a=True),
                tf.matmul(tf.concat(states[:-1], axis=0), d_all_recurrent, transpose_a=True),
                tf.stack([_column_sums(d_all_entering), _column_sums(d_all_recurrent)]),
            )

        return (tf.stack(states[1:], axis=1), states[-1]), gradient

    return run(sequences, state, kernel, recurrent_kernel, bias)


def _unrolled_lstm(sequences, state, memory, kernel, recurrent_kernel, bias):
    """Run an LSTM over (batch, time, features) from `state` and `memory`; returns outputs and both final ones.

    Blocks of the weights stand in Keras' order: input gate, forget gate, candidate, output gate. As in `_unrolled_gru`, all but
    the products is float32; so is the memory, which adds up small numbers over many steps.
    """
    import tensorflow as tf

    num_steps, features, units, dtype = sequences.shape[1], sequences.shape[2], state.shape[1], sequences.dtype

    @tf.function(jit_compile=True)
    def forward(entering, recurrent, before):
        total = tf.cast(entering, tf.float32) + tf.cast(recurrent, tf.float32)
        gate, output = tf.sigmoid(total[:, : 2 * units]), tf.sigmoid(total[:, 3 * units :])
        candidate = tf.tanh(total[:, 2 * units : 3 * units])
        memory = gate[:, units:] * before + gate[:, :units] * candidate
        squashed = tf.tanh(memory)
        return tf.cast(output * squashed, dtype), memory, gate, output, candidate, squashed

    @tf.function(jit_compile=True)
    def backward(d_state, d_output, d_memory, before, gate, output, candidate, squashed):
        d_squashed = (tf.cast(d_state, tf.float32) + tf.cast(d_output, tf.float32)) * output
        d_memory = d_memory + d_squashed * (1 - squashed * squashed)
        d_gate = tf.concat([d_memory * candidate, d_memory * before], axis=1) * gate * (1 - gate)
        d_candidate = d_memory * gate[:, :units] * (1 - candidate * candidate)
        d_total = tf.concat([d_gate, d_candidate, d_squashed * squashed * (1 - output)], axis=1)
        return tf.cast(d_total, dtype), d_memory * gate[:, units:]

    @tf.custom_gradient
    def run(sequences, state, memory, kernel, recurrent_kernel, bias):
        by_time = tf.reshape(tf.transpose(sequences, [1, 0, 2]), [-1, features])
        entering = tf.unstack(tf.reshape(tf.nn.bias_add(by_time @ kernel, bias), [num_steps, -1, 4 * units]))
        states, memories, kept = [state], [tf.cast(memory, tf.float32)], []
        for step in range(num_steps):
            new, memory, *rest = forward(entering[step], states[-1] @ recurrent_kernel, memories[-1])
            states.append(new)
            memories.append(memory)
            kept.append(rest)

        def gradient(d_outputs, d_final, d_memory):
            d_steps = tf.unstack(d_outputs, axis=1)
            d_state, d_memory = d_final, tf.cast(d_memory, tf.float32)
            d_totals = [None] * num_steps
            turned_recurrent, turned_kernel = _turned(recurrent_kernel), _turned(kernel)
            for step in reversed(range(num_steps)):
                d_totals[step], d_memory = backward(d_state, d_steps[step], d_memory, memories[step], *kept[step])
                d_state = d_totals[step] @ turned_recurrent
            d_all = tf.concat(d_totals, axis=0)
            return (
                tf.transpose(tf.reshape(d_all @ turned_kernel, [num_steps, -1, features]), [1, 0, 2]),
                d_state,
                tf.cast(d_memory, dtype),
                tf.matmul(by_time, d_all, transpose_a=True),
                tf.matmul(tf.concat(states[:-1], axis=0), d_all, transpose_a=True),
                _column_sums(d_all),
            )

        return (tf.stack(states[1:], axis=1), states[-1], tf.cast(memories[-1], dtype)), gradient

    return run(sequences, state, memory, kernel, recurrent_kernel, bias)


def _turned(matrix):
    """Transpose a matrix in memory, once for many products; TensorFlow would fold a plain transpose back into each of them."""
    import tensorflow as tf

    rows, columns = matrix.shape
    return tf.reshape(tf.transpose(tf.reshape(matrix, [1, rows, columns]), [2, 0, 1]), [columns, rows])


def _column_sums(matrix):
    """Sum over the rows, as a product: several times as fast as TensorFlow's sum over a first axis."""
    import tensorflow as tf

    return tf.matmul(tf.ones([1, tf.shape(matrix)[0]], matrix.dtype), matrix)[0]


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
            turned_recurrent = _turned(recurrent_kernel)

            def backward(done, d_state, d_states):
                step = num_steps - 1 - done
                d_state = d_state + d_steps.read(step)
                d_recurrent = tf.tile(d_state, [1, 3]) * to_recurrent.read(step)
                d_before = d_state * updates.read(step) + d_recurrent @ turned_recurrent
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
            d_by_time = tf.reshape(d_inputs @ _turned(kernel), [num_steps, -1, features])
            return (
                tf.transpose(d_by_time, [1, 0, 2]),
                d_state,
                tf.matmul(by_time, d_inputs, transpose_a=True),
                tf.matmul(tf.reshape(before, [-1, units]), d_recurrent, transpose_a=True),
                tf.stack([_column_sums(d_inputs), _column_sums(d_recurrent)]),
            )

        return (tf.ensure_shape(tf.transpose(states, [1, 0, 2]), [batch, time, units]), final), gradient

    return run(sequences, state, kernel, recurrent_kernel, bias)


def mean_cross_entropy(hidden: Any, targets: Any, weights: Any, matrix: Any, bias: Any, *, smoothing: float = 0.0) -> Any:
    """Return the mean cross-entropy in nats of softmax(hidden @ matrix.T + bias) against `targets`, as a float32 scalar.

    Args:
        hidden: Shape (num_tokens, features); its dtype is the one the products are made in.
        targets: Token ids, int32, shape (num_tokens,).
        weights: How much each token counts, float32, shape (num_tokens,); zeros leave padding out. Gets no gradient.
        matrix: Output weights, shape (vocab_size, features).
        bias: Shape (vocab_size,), or None.
        smoothing: Share of the target that is spread over the whole vocabulary alike (Szegedy et al. 2016, arXiv:1512.00567).
    """
    total = ops.maximum(ops.sum(weights), 1e-9)
    if keras.backend.backend() == "tensorflow" and hidden.shape[0] is not None:
        return _chunked_cross_entropy(hidden, targets, weights / total, matrix, bias, smoothing)
    logits = ops.cast(ops.matmul(hidden, ops.cast(ops.transpose(matrix), hidden.dtype)), "float32")
    logits = logits if bias is None else logits + bias
    losses = keras.losses.sparse_categorical_crossentropy(targets, logits, from_logits=True)
    if smoothing:
        losses = (1 - smoothing) * losses + smoothing * (ops.logsumexp(logits, axis=1) - ops.mean(logits, axis=1))
    return ops.sum(losses * weights) / total


def _chunked_cross_entropy(hidden, targets, weights, matrix, bias, smoothing):
    """Sum the weighted losses; the gradients come out of the same pass, while a chunk's scores are still at hand."""
    import tensorflow as tf

    matrix = tf.convert_to_tensor(matrix)
    num_tokens, vocab_size, dtype = hidden.shape[0], matrix.shape[0], hidden.dtype
    has_bias = bias is not None
    bias = tf.convert_to_tensor(bias) if has_bias else tf.zeros([0])

    @tf.custom_gradient
    def run(hidden, matrix, bias):
        output = tf.cast(matrix, dtype)
        loss, d_turned, d_bias, d_hidden = 0.0, tf.zeros([matrix.shape[1], vocab_size]), tf.zeros_like(bias), []
        for start in range(0, num_tokens, _ROWS):
            rows, wanted, weight = (part[start : start + _ROWS] for part in (hidden, targets, weights))
            places = tf.stack([tf.range(tf.shape(wanted)[0]), wanted], axis=1)
            # One chunk after the other: side by side they would crowd each other out of the cache.
            with tf.control_dependencies([d_turned]):
                scores = tf.cast(tf.matmul(rows, output, transpose_b=True), tf.float32)
            scores = scores + bias if has_bias else scores
            scores -= tf.reduce_max(scores, axis=1, keepdims=True)
            right = tf.gather_nd(scores, places)
            if smoothing:
                right = (1 - smoothing) * right + smoothing * tf.reduce_mean(scores, axis=1)
            with tf.control_dependencies([right]):  # so that the powers may take the place of the scores in memory
                powers = tf.exp(scores)
            sums = tf.reduce_sum(powers, axis=1)
            loss += tf.reduce_sum(weight * (tf.math.log(sums) - right))
            # The scores' gradient, but for a factor of each row: it is cheaper to multiply what is narrower.
            d_scores = tf.tensor_scatter_nd_sub(powers, places, (1 - smoothing) * sums)
            d_scores = tf.cast(d_scores - (smoothing / vocab_size) * sums[:, None] if smoothing else d_scores, dtype)
            share = tf.cast(weight / sums, dtype)[:, None]
            d_hidden.append((d_scores @ output) * share)
            d_turned += tf.cast(tf.matmul(rows * share, d_scores, transpose_a=True), tf.float32)
            if has_bias:
                d_bias += tf.cast(tf.matmul(share, d_scores, transpose_a=True)[0], tf.float32)
        d_hidden, d_matrix = tf.concat(d_hidden, axis=0), tf.transpose(d_turned)

        def gradient(upstream):
            return tf.cast(upstream, dtype) * d_hidden, upstream * d_matrix, upstream * d_bias

        return loss, gradient

    return run(hidden, matrix, bias)
