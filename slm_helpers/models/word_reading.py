"""What networks over the words of a sentence share."""

from typing import Any

from slm_helpers._backend import keras
from slm_helpers._checks import check_choice, check_positive, check_share
from slm_helpers.models.fast_rnn import FastGRU
from slm_helpers.models.language_model import CELLS, any_length
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
    sizes = {"embedding_dim": embedding_dim, "units": units, "num_layers": num_layers, "head_units": head_units, "filters": filters}
    check_positive(vocab_size=vocab_size, **sizes)
    check_share(dropout=dropout, word_dropout=word_dropout)
    check_choice(CELLS, cell=cell)
    token_ids = keras.Input(shape=(None,), dtype="int32", name="token_ids")
    word_ends = keras.Input(shape=(None,), dtype="int32", name="word_ends")
    characters = keras.Input(shape=(None, MAX_CHARACTERS), dtype="int32", name="characters")
    # As in a language model with tied embeddings, so that both start from random weights of the same size.
    initializer = keras.initializers.RandomNormal(stddev=embedding_dim**-0.5)
    vectors = keras.layers.Embedding(int(vocab_size), int(embedding_dim), embeddings_initializer=initializer, name="embedding")(token_ids)
    vectors = keras.layers.Dropout(word_dropout, noise_shape=(None, None, 1), name="word_dropout")(vectors)
    x = vectors
    for i in range(num_layers):
        x = keras.layers.Dropout(dropout / 2, name=f"{cell}_{i - 1}_dropout" if i else "embedding_dropout")(x)
        x = any_length(CELLS[cell](int(units), return_sequences=True, name=f"{cell}_{i}"))(x)
    states = x
    words = [
        LastSubwordPooling(name="word_states")([states, word_ends]),
        WordMeanPooling(name="word_means")([vectors, word_ends]),
        CharCNN(NUM_CHARACTERS, filters=int(filters), name="char_cnn")(characters),
    ]
    x = keras.layers.Dropout(dropout, name="words_dropout")(keras.layers.Concatenate(name="words")(words))
    return [token_ids, word_ends, characters], states, bidirectional(x, word_ends, int(head_units))


def bidirectional(x: Any, ends: Any, units: int) -> Any:
    """Return the states of two GRUs over places, one from each side, side by side; `ends` is 0 where there is padding."""
    onwards = any_length(FastGRU(units, return_sequences=True, name="forward_gru"))(x)
    # No mask: it would drop to the slow path. The padding is left on the right, where it comes last in both directions.
    turned = ReverseSequence(name="reversed_words")([x, ends])
    back = any_length(FastGRU(units, return_sequences=True, name="backward_gru"))(turned)
    back = ReverseSequence(name="backward_states")([back, ends])
    return keras.layers.Concatenate(name="context")([onwards, back])
