"""The two parts of a language model that take nearly all the time of a training step, with gradients of their own; pooling; words.

Keras' recurrent layers on TensorFlow add up the gradient of the recurrent weights from one small matrix product a time step.
`FastGRU` and `FastLSTM` keep the gradients at the gates of every step and make one large product of them at the end. Their loop
over time is laid out in full where all windows have one length, and what lies between two products of a step is compiled into
one pass over the numbers: a step of training is a sixth faster than with a loop (GRU), but each length is compiled anew, for
seconds. Where lengths vary, one loop serves them all. `mean_cross_entropy` scores the vocabulary for some hundred tokens at a
time, so that the scores stay in the processor's cache and are never held for the whole batch. The mathematics is unchanged; on
other backends all of them are plain Keras.
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


@keras.saving.register_keras_serializable(package="slm_helpers")
class NgramScores(keras.layers.Layer):
    """Hashed n-grams -> what a linear model on them gives each class: ids (..., ngrams) -> float32 (..., num_classes).

    One row of a table a bucket: its scores for the classes, and the square of its weight, by which the sum over a text (or a
    word) is brought to unit length. Id 0 is padding. `slm_helpers.text.hashing.fit_ngram_table` fills the table.
    """

    def __init__(self, num_buckets: int, num_classes: int, **options: Any):
        super().__init__(**options)
        self.num_buckets, self.num_classes = num_buckets, num_classes

    def build(self, input_shape: tuple) -> None:
        """Make the table."""
        self.table = self.add_weight(shape=(self.num_buckets + 1, self.num_classes + 1), initializer="zeros", name="table")

    def call(self, ngrams: Any) -> Any:
        """Return the scores."""
        sums = ops.sum(ops.take(ops.cast(self.table, "float32"), ops.cast(ngrams, "int32"), axis=0), axis=-2)
        return sums[..., :-1] / ops.sqrt(ops.maximum(sums[..., -1:], 1e-6))

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """Return (..., num_classes)."""
        return (*input_shape[:-1], self.num_classes)

    def get_config(self) -> dict:
        """Return the arguments."""
        return super().get_config() | {"num_buckets": self.num_buckets, "num_classes": self.num_classes}


@keras.saving.register_keras_serializable(package="slm_helpers")
class WordStates(keras.layers.Layer):
    """[features, word_ends] -> the features at the last token of each word: (batch, time, size), (batch, words) -> (batch, words, size).

    `word_ends` holds places on the time axis; 0 (no word ends there) is padding and stands on the right.
    """

    def call(self, arguments: list) -> Any:
        """Return the features of the words."""
        return _take_places(arguments[0], ops.cast(arguments[1], "int32"))

    def compute_output_shape(self, input_shape: list) -> tuple:
        """Return (batch, words, size)."""
        return (*input_shape[1], input_shape[0][-1])


@keras.saving.register_keras_serializable(package="slm_helpers")
class WordMeans(keras.layers.Layer):
    """[features, word_ends] -> the mean of the features over the tokens of each word; shapes as in `WordStates`, 0 for padding.

    A word begins after the end of the one before it, the first one at place 1.
    """

    def call(self, arguments: list) -> Any:
        """Return the mean features."""
        features, ends = arguments[0], ops.cast(arguments[1], "int32")[:, :, None]
        before = ops.concatenate([ops.zeros_like(ends[:, :1]), ends[:, :-1]], axis=1)
        place = ops.arange(ops.shape(features)[1], dtype="int32")[None, None, :]
        # As a product with a matrix of shares: words of any number of tokens in one step.
        shares = ops.cast((place > before) & (place <= ends), "float32") / ops.cast(ops.maximum(ends - before, 1), "float32")
        return ops.matmul(ops.cast(shares, features.dtype), features)

    def compute_output_shape(self, input_shape: list) -> tuple:
        """Return (batch, words, size)."""
        return (*input_shape[1], input_shape[0][-1])


@keras.saving.register_keras_serializable(package="slm_helpers")
class ReverseWords(keras.layers.Layer):
    """[features, word_ends] -> the features in reverse order within the true number of words; padding stays on the right.

    What a recurrent layer needs to read from right to left without a mask: `go_backwards` would begin in the padding.
    """

    def call(self, arguments: list) -> Any:
        """Return (batch, words, size)."""
        ends = ops.cast(arguments[1], "int32")
        length = ops.sum(ops.cast(ends != 0, "int32"), axis=1, keepdims=True)
        place = ops.arange(ops.shape(ends)[1], dtype="int32")[None, :]
        return _take_places(arguments[0], ops.where(place < length, length - 1 - place, place))

    def compute_output_shape(self, input_shape: list) -> tuple:
        """Return (batch, words, size)."""
        return tuple(input_shape[0])


@keras.saving.register_keras_serializable(package="slm_helpers")
class WordSpelling(keras.layers.Layer):
    """The characters of each word -> features of its spelling: (batch, words, characters) -> (batch, words, filters).

    Vectors of three characters in a row pass through one product and ReLU, and the highest value over the word is kept: endings,
    capitals and digits wherever they stand. Id 0 is padding and changes nothing.

    Reference:
        Ma and Hovy (2016), "End-to-end Sequence Labeling via Bi-directional LSTM-CNNs-CRF", arXiv:1603.01354.
    """

    def __init__(self, num_characters: int, *, filters: int = 96, size: int = 32, **kwargs: Any):
        """Take ids below `num_characters`; `size` is the length of a character's vector."""
        super().__init__(**kwargs)
        self.num_characters, self.filters, self.size = num_characters, filters, size

    def build(self, input_shape: tuple) -> None:
        """Make the weights."""
        small = keras.initializers.RandomUniform(-0.5, 0.5)
        self.vectors = self.add_weight(shape=(self.num_characters, self.size), initializer=small, name="vectors")
        self.kernel = self.add_weight(shape=(3 * self.size, self.filters), initializer="glorot_uniform", name="kernel")
        self.bias = self.add_weight(shape=(self.filters,), initializer="zeros", name="bias")

    def call(self, characters: Any) -> Any:
        """Return (batch, words, filters)."""
        characters = ops.cast(characters, "int32")
        real = ops.cast(characters != 0, self.compute_dtype)[..., None]
        x = ops.take(ops.cast(self.vectors, self.compute_dtype), characters, axis=0) * real
        nothing = ops.zeros_like(x[:, :, :1])
        # A convolution, written as a product: several times as fast on a CPU for so few features.
        threes = ops.concatenate(
            [ops.concatenate([nothing, x[:, :, :-1]], axis=2), x, ops.concatenate([x[:, :, 1:], nothing], axis=2)], axis=-1
        )
        found = ops.relu(ops.matmul(threes, ops.cast(self.kernel, x.dtype)) + ops.cast(self.bias, x.dtype))
        return ops.max(found * real, axis=2)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """Return (batch, words, filters)."""
        return (*input_shape[:2], self.filters)

    def get_config(self) -> dict:
        """Return the arguments."""
        return super().get_config() | {"num_characters": self.num_characters, "filters": self.filters, "size": self.size}


def _take_places(features: Any, places: Any) -> Any:
    """Return features[i, places[i, j]] for all i and j: (batch, time, size) and (batch, words) -> (batch, words, size)."""
    batch, time, size = ops.shape(features)[0], ops.shape(features)[1], features.shape[-1]
    rows = ops.reshape(ops.arange(batch, dtype="int32")[:, None] * time + places, (-1,))
    return ops.reshape(ops.take(ops.reshape(features, (-1, size)), rows, axis=0), (-1, ops.shape(places)[1], size))


@keras.saving.register_keras_serializable(package="slm_helpers")
class TextMatch(keras.layers.Layer):
    """[passage, question, question_ends] -> what each word of the passage finds in the question: the mean there, and the likeliest match.

    Each word of the passage, shape (batch, words, size), attends to the words of the question, (batch, question_words, size), by
    the cosine of their features times a learned sharpness; places where `question_ends` is 0 are padding and are left out.
    Returns the attended features and the highest cosine, side by side: (batch, words, size + 1).

    Reference:
        Chen et al. (2017), "Reading Wikipedia to Answer Open-Domain Questions", arXiv:1704.00051 (aligned question embedding).
    """

    def build(self, input_shape: list) -> None:
        """Make the sharpness."""
        self.sharpness = self.add_weight(shape=(), initializer=keras.initializers.Constant(5.0), name="sharpness")

    def call(self, arguments: list) -> Any:
        """Return the attended features and the highest cosine."""
        passage, question, ends = arguments
        padding = ops.cast(ops.equal(ops.cast(ends, "int32"), 0), "float32")[:, None, :]
        cosine = ops.cast(ops.matmul(_unit_length(passage), ops.transpose(_unit_length(question), (0, 2, 1))), "float32")
        shares = ops.softmax(cosine * ops.cast(self.sharpness, "float32") - 1e9 * padding)
        highest = ops.max(cosine - 4 * padding, axis=-1, keepdims=True)  # a cosine is -1 at least
        return ops.concatenate([ops.matmul(ops.cast(shares, question.dtype), question), ops.cast(highest, question.dtype)], axis=-1)

    def compute_output_shape(self, input_shape: list) -> tuple:
        """Return (batch, words, size + 1)."""
        return (*input_shape[0][:-1], input_shape[0][-1] + 1)


@keras.saving.register_keras_serializable(package="slm_helpers")
class SourceAttention(keras.layers.Layer):
    """[states, memory, source_ids] -> what each state reads from a source, and the shares it reads it in; no weights of its own.

    Each state, shape (batch, time, size), is compared with each place of the memory, (batch, source_time, size), by their dot
    product; the shares, float32, (batch, time, source_time), sum to 1 over the places where source_ids is not 0 (padding), and
    what is read, (batch, time, size), is the mean of the memory in these shares. All states are compared in one product.

    Reference:
        Luong et al. (2015), "Effective Approaches to Attention-based Neural Machine Translation", arXiv:1508.04025 (score "dot").
    """

    def call(self, arguments: list) -> Any:
        """Return what was read and the shares."""
        states, memory, source_ids = arguments
        padding = ops.cast(ops.equal(ops.cast(source_ids, "int32"), 0), "float32")[:, None, :]
        scores = ops.cast(ops.matmul(states, ops.transpose(memory, (0, 2, 1))), "float32")
        shares = ops.softmax(scores - 1e9 * padding)
        return ops.matmul(ops.cast(shares, memory.dtype), memory), shares

    def compute_output_shape(self, input_shape: list) -> tuple:
        """Return (batch, time, size) and (batch, time, source_time)."""
        states, memory, _ = input_shape
        return (*states[:2], memory[-1]), (*states[:2], memory[1])


@keras.saving.register_keras_serializable(package="slm_helpers")
class StateAtEnd(keras.layers.Layer):
    """[states, token_ids] -> the state behind the last token of each row, (batch, size), past padding (0) on the right."""

    def call(self, arguments: list) -> Any:
        """Return the states."""
        states, token_ids = arguments
        length = ops.sum(ops.cast(ops.not_equal(ops.cast(token_ids, "int32"), 0), "int32"), axis=1, keepdims=True)
        return ops.squeeze(_take_places(states, ops.maximum(length - 1, 0)), axis=1)

    def compute_output_shape(self, input_shape: list) -> tuple:
        """Return (batch, size)."""
        return (input_shape[0][0], input_shape[0][-1])


@keras.saving.register_keras_serializable(package="slm_helpers")
class CopyScores(keras.layers.Layer):
    """[logits, shares, gate, source_ids] -> log-probabilities of writing a token: drawn from the vocabulary, or copied from the source.

    The vocabulary's probabilities, softmax of logits, (batch, time, vocab_size), and those of the source's tokens, the sums of the
    shares of attention, (batch, time, source_time), of the places where a token stands, are mixed: sigmoid(gate), with a gate of shape
    (batch, time, 1), is the chance that a token is copied. No weights of its own; float32.

    Reference:
        See, Liu and Manning (2017), "Get To The Point: Summarization with Pointer-Generator Networks", arXiv:1704.04368.
    """

    def call(self, arguments: list) -> Any:
        """Return the log-probabilities, float32, shape (batch, time, vocab_size)."""
        logits, shares, gate = (ops.cast(part, "float32") for part in arguments[:3])
        batch, time, vocab_size = ops.shape(shares)[0], ops.shape(shares)[1], logits.shape[-1]
        # Summed where they belong: as a product with the source's tokens, each a row of the vocabulary, it takes a gigabyte in a beam.
        rows = ops.reshape(ops.arange(batch * time, dtype="int32"), (batch, time, 1)) * vocab_size
        places = ops.reshape(rows + ops.cast(arguments[3], "int32")[:, None, :], (-1,))
        copied = ops.segment_sum(ops.reshape(shares, (-1,)), places, num_segments=batch * time * vocab_size)
        copied = ops.reshape(copied, (batch, time, vocab_size))
        drawn = ops.log_softmax(logits) - ops.softplus(gate)
        return ops.logaddexp(drawn, ops.log(copied + 1e-9) - ops.softplus(-gate))

    def compute_output_shape(self, input_shape: list) -> tuple:
        """Return (batch, time, vocab_size)."""
        return tuple(input_shape[0])


@keras.saving.register_keras_serializable(package="slm_helpers")
class ChoiceOfPlaces(keras.layers.Layer):
    """[scores, none, word_ends] -> scores of every start and every end, place 0 for none at all: float32, (batch, 2, 1 + words).

    `scores` of start and end have shape (batch, words, 2), those of none (batch, 2). Padding (word_ends 0) gets -1e9.
    """

    def call(self, arguments: list) -> Any:
        """Return the scores."""
        scores, none, ends = arguments
        padding = ops.cast(ops.equal(ops.cast(ends, "int32"), 0), "float32")[:, :, None]
        scores = ops.cast(scores, "float32") * (1 - padding) - 1e9 * padding
        return ops.transpose(ops.concatenate([ops.cast(none, "float32")[:, None, :], scores], axis=1), (0, 2, 1))

    def compute_output_shape(self, input_shape: list) -> tuple:
        """Return (batch, 2, 1 + words)."""
        words = input_shape[0][1]
        return (input_shape[0][0], 2, None if words is None else words + 1)


@keras.saving.register_keras_serializable(package="slm_helpers")
class FrameScores(keras.layers.Layer):
    """[tags, intent, word_ends] -> one table of scores a command: float32, (batch, places, num_tags + num_intents).

    Tags have shape (batch, places, num_tags), the intent (batch, num_intents). The last place whose `word_ends` is not 0 stands
    for the whole command: only there do intents score, and only elsewhere tags; the others get -1e9.
    """

    def call(self, arguments: list) -> Any:
        """Return the scores."""
        tags, intent, ends = ops.cast(arguments[0], "float32"), ops.cast(arguments[1], "float32"), ops.cast(arguments[2], "int32")
        length = ops.sum(ops.cast(ends != 0, "int32"), axis=1, keepdims=True)
        whole = ops.cast(ops.equal(ops.arange(ops.shape(ends)[1], dtype="int32")[None, :], length - 1), "float32")[:, :, None]
        return ops.concatenate([tags * (1 - whole) - 1e9 * whole, intent[:, None, :] * whole - 1e9 * (1 - whole)], axis=-1)

    def compute_output_shape(self, input_shape: list) -> tuple:
        """Return (batch, places, num_tags + num_intents)."""
        return (*input_shape[0][:-1], input_shape[0][-1] + input_shape[1][-1])


def _unit_length(features: Any) -> Any:
    """Scale vectors to length 1; the sum of squares is taken in float32."""
    squares = ops.sum(ops.square(ops.cast(features, "float32")), axis=-1, keepdims=True)
    return features * ops.cast(ops.rsqrt(squares + 1e-6), features.dtype)


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
