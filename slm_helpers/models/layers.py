"""Layers of Keras operations, for any backend: pooling, words of a sentence, hashed n-grams, attention, copying."""

from typing import Any

from slm_helpers._backend import keras

ops = keras.ops


# Of layers that compute in float32 whatever the precision of a training step: heads, and what sums up many numbers.
FLOAT32 = keras.DTypePolicy("float32")


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
        position = ops.cast(ops.arange(ops.shape(token_ids)[1]), "float32")[None, :, None]
        last = ops.sum(features * ops.cast(ops.equal(position, length - 1), "float32"), axis=1)
        return ops.concatenate([mean, highest, last], axis=-1)

    def compute_output_shape(self, input_shape: list) -> tuple:
        """Return (batch, 3 * size)."""
        return (input_shape[0][0], 3 * input_shape[0][-1])


@keras.saving.register_keras_serializable(package="slm_helpers")
class HashedLinear(keras.layers.Layer):
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
class LastSubwordPooling(keras.layers.Layer):
    """[features, word_ends] -> the features at the last token of each word: (batch, time, size), (batch, words) -> (batch, words, size).

    `word_ends` holds positions on the time axis; 0 (no word ends there) is padding and stands on the right.
    """

    def call(self, arguments: list) -> Any:
        """Return the features of the words."""
        return _take_positions(arguments[0], ops.cast(arguments[1], "int32"))

    def compute_output_shape(self, input_shape: list) -> tuple:
        """Return (batch, words, size)."""
        return (*input_shape[1], input_shape[0][-1])


@keras.saving.register_keras_serializable(package="slm_helpers")
class WordMeanPooling(keras.layers.Layer):
    """[features, word_ends] -> the mean of the features over the tokens of each word; shapes as in `LastSubwordPooling`, 0 for padding.

    A word begins after the end of the one before it, the first one at position 1.
    """

    def call(self, arguments: list) -> Any:
        """Return the mean features."""
        features, ends = arguments[0], ops.cast(arguments[1], "int32")[:, :, None]
        before = ops.concatenate([ops.zeros_like(ends[:, :1]), ends[:, :-1]], axis=1)
        position = ops.arange(ops.shape(features)[1], dtype="int32")[None, None, :]
        # As a product with a matrix of weights: words of any number of tokens in one step.
        weights = ops.cast((position > before) & (position <= ends), "float32") / ops.cast(ops.maximum(ends - before, 1), "float32")
        return ops.matmul(ops.cast(weights, features.dtype), features)

    def compute_output_shape(self, input_shape: list) -> tuple:
        """Return (batch, words, size)."""
        return (*input_shape[1], input_shape[0][-1])


@keras.saving.register_keras_serializable(package="slm_helpers")
class ReverseSequence(keras.layers.Layer):
    """[features, word_ends] -> the features in reverse order within the true number of words; padding stays on the right.

    What a recurrent layer needs to read from right to left without a mask: `go_backwards` would begin in the padding.
    """

    def call(self, arguments: list) -> Any:
        """Return (batch, words, size)."""
        ends = ops.cast(arguments[1], "int32")
        length = ops.sum(ops.cast(ends != 0, "int32"), axis=1, keepdims=True)
        position = ops.arange(ops.shape(ends)[1], dtype="int32")[None, :]
        return _take_positions(arguments[0], ops.where(position < length, length - 1 - position, position))

    def compute_output_shape(self, input_shape: list) -> tuple:
        """Return (batch, words, size)."""
        return tuple(input_shape[0])


@keras.saving.register_keras_serializable(package="slm_helpers")
class CharCNN(keras.layers.Layer):
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
        self.vectors = self.add_weight(shape=(self.num_characters, self.size), initializer=small, name="embedding")
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


def _take_positions(features: Any, positions: Any) -> Any:
    """Return features[i, positions[i, j]] for all i and j: (batch, time, size) and (batch, words) -> (batch, words, size)."""
    batch, time, size = ops.shape(features)[0], ops.shape(features)[1], features.shape[-1]
    rows = ops.reshape(ops.arange(batch, dtype="int32")[:, None] * time + positions, (-1,))
    return ops.reshape(ops.take(ops.reshape(features, (-1, size)), rows, axis=0), (-1, ops.shape(positions)[1], size))


@keras.saving.register_keras_serializable(package="slm_helpers")
class AlignedQuestionAttention(keras.layers.Layer):
    """[passage, question, question_ends] -> what each word of the passage finds in the question: the mean there, and the best match.

    Each word of the passage, shape (batch, words, size), attends to the words of the question, (batch, question_words, size), by
    the cosine of their features times a learned scale; positions where `question_ends` is 0 are padding and are left out.
    Returns the attended features and the highest cosine, side by side: (batch, words, size + 1).

    Reference:
        Chen et al. (2017), "Reading Wikipedia to Answer Open-Domain Questions", arXiv:1704.00051 (aligned question embedding).
    """

    def build(self, input_shape: list) -> None:
        """Make the scale."""
        self.scale = self.add_weight(shape=(), initializer=keras.initializers.Constant(5.0), name="scale")

    def call(self, arguments: list) -> Any:
        """Return the attended features and the highest cosine."""
        passage, question, ends = arguments
        padding = ops.cast(ops.equal(ops.cast(ends, "int32"), 0), "float32")[:, None, :]
        cosine = ops.cast(ops.matmul(_unit_length(passage), ops.transpose(_unit_length(question), (0, 2, 1))), "float32")
        weights = ops.softmax(cosine * ops.cast(self.scale, "float32") - 1e9 * padding)
        highest = ops.max(cosine - 4 * padding, axis=-1, keepdims=True)  # a cosine is -1 at least
        return ops.concatenate([ops.matmul(ops.cast(weights, question.dtype), question), ops.cast(highest, question.dtype)], axis=-1)

    def compute_output_shape(self, input_shape: list) -> tuple:
        """Return (batch, words, size + 1)."""
        return (*input_shape[0][:-1], input_shape[0][-1] + 1)


@keras.saving.register_keras_serializable(package="slm_helpers")
class LastState(keras.layers.Layer):
    """[states, token_ids] -> the state behind the last token of each row, (batch, size), past padding (0) on the right."""

    def call(self, arguments: list) -> Any:
        """Return the states."""
        states, token_ids = arguments
        length = ops.sum(ops.cast(ops.not_equal(ops.cast(token_ids, "int32"), 0), "int32"), axis=1, keepdims=True)
        return ops.squeeze(_take_positions(states, ops.maximum(length - 1, 0)), axis=1)

    def compute_output_shape(self, input_shape: list) -> tuple:
        """Return (batch, size)."""
        return (input_shape[0][0], input_shape[0][-1])


@keras.saving.register_keras_serializable(package="slm_helpers")
class PointerGenerator(keras.layers.Layer):
    """[logits, weights, gate, source_ids] -> log-probabilities of writing a token: drawn from the vocabulary, or copied from the source.

    The vocabulary's probabilities, softmax of logits, (batch, time, vocab_size), and those of the source's tokens, the sums of the
    weights of attention, (batch, time, source_time), of the positions where a token stands, are mixed: sigmoid(gate), with a gate of shape
    (batch, time, 1), is the chance that a token is copied. No weights of its own; float32.

    Reference:
        See, Liu and Manning (2017), "Get To The Point: Summarization with Pointer-Generator Networks", arXiv:1704.04368.
    """

    def call(self, arguments: list) -> Any:
        """Return the log-probabilities, float32, shape (batch, time, vocab_size)."""
        logits, weights, gate = (ops.cast(part, "float32") for part in arguments[:3])
        batch, time, vocab_size = ops.shape(weights)[0], ops.shape(weights)[1], logits.shape[-1]
        # Summed where they belong: as a product with the source's tokens, each a row of the vocabulary, it takes a gigabyte in a beam.
        rows = ops.reshape(ops.arange(batch * time, dtype="int32"), (batch, time, 1)) * vocab_size
        positions = ops.reshape(rows + ops.cast(arguments[3], "int32")[:, None, :], (-1,))
        copied = ops.segment_sum(ops.reshape(weights, (-1,)), positions, num_segments=batch * time * vocab_size)
        copied = ops.reshape(copied, (batch, time, vocab_size))
        drawn = ops.log_softmax(logits) - ops.softplus(gate)
        return ops.logaddexp(drawn, ops.log(copied + 1e-9) - ops.softplus(-gate))

    def compute_output_shape(self, input_shape: list) -> tuple:
        """Return (batch, time, vocab_size)."""
        return tuple(input_shape[0])


@keras.saving.register_keras_serializable(package="slm_helpers")
class SpanLogits(keras.layers.Layer):
    """[scores, none, word_ends] -> scores of every start and every end, position 0 for none at all: float32, (batch, 2, 1 + words).

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
class IntentSlotLogits(keras.layers.Layer):
    """[tags, intent, word_ends] -> one table of scores a command: float32, (batch, positions, num_tags + num_intents).

    Tags have shape (batch, positions, num_tags), the intent (batch, num_intents). The last position whose `word_ends` is not 0 stands
    for the whole command: only there do intents score, and only elsewhere tags; the others get -1e9.
    """

    def call(self, arguments: list) -> Any:
        """Return the scores."""
        tags, intent, ends = ops.cast(arguments[0], "float32"), ops.cast(arguments[1], "float32"), ops.cast(arguments[2], "int32")
        length = ops.sum(ops.cast(ends != 0, "int32"), axis=1, keepdims=True)
        whole = ops.cast(ops.equal(ops.arange(ops.shape(ends)[1], dtype="int32")[None, :], length - 1), "float32")[:, :, None]
        return ops.concatenate([tags * (1 - whole) - 1e9 * whole, intent[:, None, :] * whole - 1e9 * (1 - whole)], axis=-1)

    def compute_output_shape(self, input_shape: list) -> tuple:
        """Return (batch, positions, num_tags + num_intents)."""
        return (*input_shape[0][:-1], input_shape[0][-1] + input_shape[1][-1])


def _unit_length(features: Any) -> Any:
    """Scale vectors to length 1; the sum of squares is taken in float32."""
    squares = ops.sum(ops.square(ops.cast(features, "float32")), axis=-1, keepdims=True)
    return features * ops.cast(ops.rsqrt(squares + 1e-6), features.dtype)


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
        weights = ops.cast(ops.softmax(scores - 1e9 * ops.cast(later, "float32")), x.dtype)
        read = ops.reshape(ops.transpose(weights @ values, (0, 2, 1, 3)), (batch, time, size))
        x = x + ops.cast(self.drop(read @ products["joined"], training=training), x.dtype)
        inner = ops.gelu(ops.cast(self.norms[1](x), x.dtype) @ products["wide"]) @ products["narrow"]
        return x + ops.cast(self.drop(inner, training=training), x.dtype)

    def get_config(self) -> dict:
        """Return the arguments."""
        return super().get_config() | {"num_heads": self.num_heads, "dropout": self.dropout}


@keras.saving.register_keras_serializable(package="slm_helpers")
class AddPositions(keras.layers.Layer):
    """Add a learned vector for each position in the window, up to `max_length` positions."""

    def __init__(self, max_length: int, **kwargs: Any):
        """Make room for windows of up to `max_length` tokens."""
        super().__init__(**kwargs)
        self.max_length = max_length

    def build(self, input_shape: tuple) -> None:
        """Make the vectors for inputs of shape (batch, time, features)."""
        shape = (self.max_length, input_shape[-1])
        self.positions = self.add_weight(shape=shape, initializer=keras.initializers.RandomNormal(stddev=0.02), name="positions_embedding")

    def call(self, x: Any) -> Any:
        """Return (batch, time, features)."""
        return x + ops.cast(self.positions, x.dtype)[None, : ops.shape(x)[1]]

    def get_config(self) -> dict:
        """Return the arguments."""
        return super().get_config() | {"max_length": self.max_length}
