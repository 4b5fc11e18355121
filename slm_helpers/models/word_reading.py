"""What networks over the words of a sentence share."""

from typing import Any

from slm_helpers._backend import keras
from slm_helpers.models.fast_rnn import FastGRU
from slm_helpers.models.language_model import any_length, backbone_layers
from slm_helpers.models.layers import CharCNN, LastSubwordPooling, ReverseSequence, WordMeanPooling
from slm_helpers.text.tagging import MAX_CHARACTERS, NUM_CHARACTERS


def encode_words(
    vocab_size: int,
    *,
    cell: str,
    embedding_dim: int,
    units: int,
    num_layers: int,
    head_units: int,
    filters: int,
    dropout: float,
    word_dropout: float,
) -> tuple[list, Any, Any]:
    """Return the inputs token_ids, word_ends and characters, the language model's state at each token, (batch, time, units), and what
    is known of each word, (batch, words, 2 * head_units).
    """
    token_ids = keras.Input(shape=(None,), dtype="int32", name="token_ids")
    word_ends = keras.Input(shape=(None,), dtype="int32", name="word_ends")
    characters = keras.Input(shape=(None, MAX_CHARACTERS), dtype="int32", name="characters")
    embedding, recurrent = backbone_layers(vocab_size, cell=cell, embedding_dim=embedding_dim, units=units, num_layers=num_layers)
    vectors = embedding(token_ids)
    vectors = keras.layers.Dropout(word_dropout, noise_shape=(None, None, 1), name="word_dropout")(vectors)
    x = vectors
    for i, layer in enumerate(recurrent):
        x = layer(keras.layers.Dropout(dropout / 2, name=f"{cell}_{i - 1}_dropout" if i else "embedding_dropout")(x))
    states = x
    words = [
        LastSubwordPooling(name="word_states")([states, word_ends]),
        WordMeanPooling(name="word_means")([vectors, word_ends]),
        CharCNN(NUM_CHARACTERS, filters=filters, name="char_cnn")(characters),
    ]
    x = keras.layers.Dropout(dropout, name="words_dropout")(keras.layers.Concatenate(name="words")(words))
    context = keras.layers.Concatenate(name="context")(bidirectional(x, word_ends, head_units))
    return [token_ids, word_ends, characters], states, context


def bidirectional(x: Any, ends: Any, units: int, *, prefix: str = "") -> list[Any]:
    """Return the states of two GRUs, one from each side, both in the order of the text; `ends` is 0 where there is padding."""
    forward = any_length(FastGRU(units, return_sequences=True, name=f"{prefix}forward_gru"))(x)
    # No mask: it would drop to the slow path. The padding is left on the right, where it comes last in both directions.
    reversed_x = ReverseSequence(name=f"{prefix}reversed")([x, ends])
    backward = any_length(FastGRU(units, return_sequences=True, name=f"{prefix}backward_gru"))(reversed_x)
    return [forward, ReverseSequence(name=f"{prefix}backward_states")([backward, ends])]
