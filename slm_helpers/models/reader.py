"""The extractive question answering network."""

from slm_helpers._backend import keras
from slm_helpers.models.language_model import backbone_layers
from slm_helpers.models.layers import (
    FLOAT32,
    AlignedQuestionAttention,
    LastSubwordPooling,
    SpanLogits,
    TextPooling,
    WordMeanPooling,
)
from slm_helpers.models.registry import builder
from slm_helpers.models.word_reading import bidirectional


@builder
def build_span_extractor(
    vocab_size: int,
    *,
    num_features: int,
    cell: str = "gru",
    embedding_dim: int = 256,
    units: int = 512,
    num_layers: int = 1,
    head_units: int = 96,
    dropout: float = 0.4,
) -> keras.Model:
    """Build a recurrent reader on top of the layers of `build_language_model`: it finds the answer to a question in a passage.

    The language model's layers (same names and shapes, so that `load_backbone_weights` can copy them) read question and passage from left
    to right. A word is described by their state at its last token and by the mean of its tokens' vectors. Each word of the
    passage attends to the words of the question, by their plain vectors and by what a layer of its own makes of the
    description; with that and with features counted outside (is the word asked for?) two GRUs read the passage, one from each
    side. Every word is scored as first and as last word of the answer, and so is the choice that there is none.

    Args:
        vocab_size: Number of distinct token ids; id 0 is padding.
        num_features: Features of each word that are counted outside.
        cell: "rnn" (tanh), "gru" or "lstm".
        embedding_dim: Length of a token vector.
        units: Length of the recurrent state in each layer of the language model.
        num_layers: Number of these layers.
        head_units: Length of the state of each of the two GRUs over words, and of a word's description.
        dropout: Share of activations dropped after each layer, in [0, 1).

    Returns:
        An uncompiled model from five int32 arrays to float32 logits, shape (batch, 2, 1 + words): question and passage, shape
        (batch, time), token ids with a token before the first word; question_ends and passage_ends, shape (batch, words), the
        position of each word's last token; features, shape (batch, words, num_features), of the passage's words in hundredths. All
        are padded on the right with 0; how far does not change the logits. Place 0 of the last axis stands for no answer.

    Raises:
        ValueError: If a size is not a positive whole number, `dropout` lies outside [0, 1) or `cell` is not known.

    Example:
        >>> build_span_extractor(vocab_size=40, num_features=3, units=32).output_shape
        (None, 2, None)

    Reference:
        Chen et al. (2017), "Reading Wikipedia to Answer Open-Domain Questions", arXiv:1704.00051, on a language model's states as
        in Peters et al. (2018), arXiv:1802.05365.
    """
    question, question_ends, passage, passage_ends = (
        keras.Input(shape=(None,), dtype="int32", name=name) for name in ("question", "question_ends", "passage", "passage_ends")
    )
    features = keras.Input(shape=(None, num_features), dtype="int32", name="features")
    embedding, recurrent = backbone_layers(vocab_size, cell=cell, embedding_dim=embedding_dim, units=units, num_layers=num_layers)
    word_projection = keras.layers.Dense(head_units, activation="tanh", name="word_projection")

    def read(token_ids, ends, name: str):
        """Return of each word the mean of its vectors, and its description."""
        vectors = embedding(token_ids)
        x = keras.layers.Dropout(dropout, name=f"{name}_embedding_dropout")(vectors)
        for i, layer in enumerate(recurrent):
            x = layer(x if i == 0 else keras.layers.Dropout(dropout, name=f"{name}_{cell}_{i - 1}_dropout")(x))
        # What no head has changed yet, states and means, can be computed once for all passes: see `make_span_head`.
        states, means = LastSubwordPooling(name=f"{name}_states")([x, ends]), WordMeanPooling(name=f"{name}_means")([vectors, ends])
        described = [keras.layers.Dropout(dropout, name=f"{name}_{kind}_dropout")(x) for kind, x in (("states", states), ("means", means))]
        return means, word_projection(keras.layers.Concatenate(name=f"{name}_words")(described))

    question_means, question_words = read(question, question_ends, "question")
    passage_means, passage_words = read(passage, passage_ends, "passage")
    asked = AlignedQuestionAttention(name="question_attention")([passage_words, question_words, question_ends])
    alike = AlignedQuestionAttention(name="embedding_attention")([passage_means, question_means, question_ends])
    counted = keras.layers.Rescaling(0.01, name="scaled_features")(features)
    x = keras.layers.Concatenate(name="matched")([passage_words, asked, alike])
    x = keras.layers.Concatenate(name="matched_and_features")([keras.layers.Dropout(dropout, name="matched_dropout")(x), counted])
    x = keras.layers.Dense(head_units, activation="relu", name="merged")(x)
    x = keras.layers.Concatenate(name="context")([x, *bidirectional(x, passage_ends, head_units)])
    x = keras.layers.Dropout(dropout, name="context_dropout")(x)
    pooled = TextPooling(dtype=FLOAT32, name="pooling_question")([question_words, question_ends])
    pooled = keras.layers.Dropout(dropout, dtype=FLOAT32, name="pooling_question_dropout")(pooled)
    # A word is scored by itself and by what it has in common with the question.
    gates = keras.layers.Dense(3 * head_units, dtype=FLOAT32, name="logits_question")(pooled)
    common = keras.layers.Multiply(dtype=FLOAT32, name="logits_common")(
        [x, keras.layers.Reshape((1, 3 * head_units), dtype=FLOAT32, name="logits_gates")(gates)]
    )
    scores = keras.layers.Dense(2, dtype=FLOAT32, name="logits_span")(
        keras.layers.Concatenate(dtype=FLOAT32, name="logits_words")([x, common])
    )
    whole = TextPooling(dtype=FLOAT32, name="pooling_passage")([x, passage_ends])
    none = keras.layers.Dense(2, dtype=FLOAT32, name="logits_no_answer")(
        keras.layers.Concatenate(dtype=FLOAT32, name="logits_whole")([whole, pooled])
    )
    logits = SpanLogits(dtype=FLOAT32, name="logits")([scores, none, passage_ends])
    return keras.Model([question, question_ends, passage, passage_ends, features], logits, name=f"{cell}_span_extractor")


def make_word_encoders(reader: keras.Model) -> list[keras.Model]:
    """Return two views of a span extractor: from [tokens, word_ends] of a text to the states of its words, and to their mean vectors."""
    inputs = reader.inputs[2:4]
    return [keras.Model(inputs, reader.get_layer(f"passage_{kind}").output, name=f"word_{kind}") for kind in ("states", "means")]


def make_span_head(reader: keras.Model) -> keras.Model:
    """Return a view of a `build_span_extractor` that begins where the layers of the language model end.

    Its inputs are the states and means of `make_word_encoders` and the positions of the words' ends, of the question and then of the
    passage, and the features. It shares the reader's weights: to train it is to train the reader with these layers frozen.
    """
    _, question_ends, _, passage_ends, features = reader.inputs
    described = {text: [reader.get_layer(f"{text}_{kind}").output for kind in ("states", "means")] for text in ("question", "passage")}
    inputs = [*described["question"], question_ends, *described["passage"], passage_ends, features]
    return keras.Model(inputs, reader.output, name="span_head")
