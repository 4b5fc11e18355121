"""Language models, and the views of them that training and generation need."""

from typing import Any

from slm_helpers._backend import keras
from slm_helpers._checks import check_positive
from slm_helpers.models.fast_rnn import FastGRU, FastLSTM
from slm_helpers.models.layers import FLOAT32, AddPositions, CausalBlock
from slm_helpers.models.registry import builder

import numpy as np

ops = keras.ops


CELLS = {"rnn": keras.layers.SimpleRNN, "gru": FastGRU, "lstm": FastLSTM}  # by CELL_NAMES


_RECURRENT = (keras.layers.SimpleRNN, keras.layers.GRU, keras.layers.LSTM)  # those of CELLS among them


@builder
def build_language_model(
    vocab_size: int,
    *,
    cell: str = "gru",
    embedding_dim: int = 256,
    units: int = 512,
    num_layers: int = 1,
    dropout: float = 0.0,
    tie_embeddings: bool = True,
) -> keras.Model:
    """Build a recurrent language model: at each position it scores every possible next token.

    Embedding, `num_layers` recurrent layers, and an output layer. With tied embeddings the output layer reuses the embedding
    matrix (after a linear projection from `units` to `embedding_dim` where they differ), which saves
    vocab_size x embedding_dim weights. The GRU is Keras' variant: h_t = z * h_(t-1) + (1 - z) * candidate, with the reset gate
    applied after the matrix product.

    Args:
        vocab_size: Number of distinct token ids.
        cell: "rnn" (tanh), "gru" or "lstm".
        embedding_dim: Length of a token vector.
        units: Length of the recurrent state in each layer.
        num_layers: Number of stacked recurrent layers.
        dropout: Share of activations dropped after the embedding and after each layer, in [0, 1).
        tie_embeddings: Reuse the embedding matrix as the output matrix.

    Returns:
        An uncompiled model from int32 token ids, shape (batch, time), to float32 logits, shape (batch, time, vocab_size).
        No mask is used: pad on the right and weight the loss.

    Raises:
        ValueError: If a size is not a positive whole number, `dropout` lies outside [0, 1) or `cell` is not known.

    Example:
        >>> build_language_model(vocab_size=40, units=32).output_shape
        (None, None, 40)

    Reference:
        Mikolov et al. (2010), "Recurrent neural network based language model"; Cho et al. (2014), arXiv:1406.1078;
        Press and Wolf (2017), "Using the Output Embedding to Improve Language Models", arXiv:1608.05859.
    """
    # Tied vectors serve as output weights too, so they start at the scale of those.
    initializer = keras.initializers.RandomNormal(stddev=embedding_dim**-0.5 if tie_embeddings else 0.05)
    if tie_embeddings:
        # Logits stay float32 so that the loss is exact under mixed precision too.
        embedding = keras.layers.ReversibleEmbedding(
            vocab_size, embedding_dim, embeddings_initializer=initializer, reverse_dtype="float32", name="embedding"
        )
    else:
        embedding = keras.layers.Embedding(vocab_size, embedding_dim, embeddings_initializer=initializer, name="embedding")
    layers: list[keras.layers.Layer] = [embedding, keras.layers.Dropout(dropout, name="embedding_dropout")]
    for i in range(num_layers):
        layers.append(CELLS[cell](units, return_sequences=True, return_state=True, name=f"{cell}_{i}"))
        layers.append(keras.layers.Dropout(dropout, name=f"{cell}_{i}_dropout"))
    if not tie_embeddings:
        layers.append(keras.layers.Dense(vocab_size, dtype=FLOAT32, name="logits"))
    elif units != embedding_dim:
        layers.append(keras.layers.Dense(embedding_dim, use_bias=False, name="projection"))
    token_ids = keras.Input(shape=(None,), dtype="int32", name="token_ids")
    # Every recurrent layer can take and give its state; this model starts from zeros and drops the final one.
    logits, _, _ = _connect(layers, token_ids, states_in=False)
    return keras.Model(token_ids, logits, name=f"{cell}_language_model")


@builder
def build_transformer_language_model(
    vocab_size: int,
    *,
    size: int = 256,
    num_layers: int = 4,
    num_heads: int = 4,
    max_length: int = 256,
    dropout: float = 0.0,
) -> keras.Model:
    """Build a small GPT-like model, to compare the recurrent ones with: same training, no state to carry.

    Args:
        vocab_size: Number of distinct token ids.
        size: Length of token vectors and of the features in each block.
        num_layers: Number of blocks.
        num_heads: Attention heads in each block; must divide `size`.
        max_length: Tokens in the longest window it can read.
        dropout: Share of activations dropped, in [0, 1).

    Returns:
        An uncompiled model from int32 token ids, shape (batch, time), to float32 logits, shape (batch, time, vocab_size).

    Reference:
        Radford et al. (2019), "Language Models are Unsupervised Multitask Learners" (GPT-2).
    """
    if size % num_heads:
        raise ValueError(f"size is {size} and num_heads {num_heads}, but the heads must share the features evenly.")
    initializer = keras.initializers.RandomNormal(stddev=0.02)
    embedding = keras.layers.ReversibleEmbedding(
        vocab_size, size, embeddings_initializer=initializer, reverse_dtype="float32", name="embedding"
    )
    layers: list[keras.layers.Layer] = [embedding, AddPositions(max_length, name="positions")]
    layers += [CausalBlock(num_heads, dropout=dropout, name=f"block_{i}") for i in range(num_layers)]
    layers.append(keras.layers.LayerNormalization(epsilon=1e-5, name="norm"))
    token_ids = keras.Input(shape=(None,), dtype="int32", name="token_ids")
    logits, _, _ = _connect(layers, token_ids, states_in=False)
    return keras.Model(token_ids, logits, name="transformer_language_model")


def backbone_layers(vocab_size: int, *, cell: str, embedding_dim: int, units: int, num_layers: int) -> tuple[Any, list[Any]]:
    """Return an embedding and recurrent layers under the names of a language model's, for `load_backbone_weights` to fill.

    No mask: a recurrent layer would go through its slow path, so padding stands on the right. Texts come in many lengths, so the
    recurrent layers run as one loop.
    """
    # As in a language model with tied embeddings, so that both start from random weights of the same size.
    initializer = keras.initializers.RandomNormal(stddev=embedding_dim**-0.5)
    embedding = keras.layers.Embedding(vocab_size, embedding_dim, embeddings_initializer=initializer, name="embedding")
    return embedding, [any_length(CELLS[cell](units, return_sequences=True, name=f"{cell}_{i}")) for i in range(num_layers)]


def recurrent_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """Return the recurrent layers of `model`, first to last."""
    return [layer for layer in model.layers if isinstance(layer, _RECURRENT)]


def zero_states(model: keras.Model, batch_size: int) -> list[np.ndarray]:
    """Return the states before the first token: one array of zeros, shape (batch, units), per state."""
    check_positive(batch_size=batch_size)
    return [np.zeros((batch_size, size), dtype="float32") for layer in recurrent_layers(model) for size in _state_sizes(layer)]


def make_stateful_model(model: keras.Model, *, single_token: bool = False) -> keras.Model:
    """Return a view of a language model with its states in the open; the weights are shared, not copied.

    Handing the returned states to the next call gives the same logits as one pass over the whole text.

    Args:
        model: A model from `build_language_model`.
        single_token: Take one token a call, without a time axis (faster: the bare cells, no loop over time).

    Returns:
        A model from [token_ids, *states] to [logits, *states]; token_ids of shape (batch, time) and logits of shape
        (batch, time, vocab_size), or (batch,) and (batch, vocab_size).
    """
    token_ids = keras.Input(shape=() if single_token else (None,), dtype="int32", name="token_ids")
    layers = [layer for layer in model.layers[1:] if not isinstance(layer, keras.layers.Dropout)]
    x, states_in, states_out = _connect(layers, token_ids, single_token=single_token)
    return keras.Model([token_ids, *states_in], [x, *states_out], name=f"{model.name}_stateful")


def make_backbone(model: keras.Model) -> keras.Model:
    """Return a view of a language model without its output layer: [token_ids, *states] to [features, *states].

    The features, shape (batch, time, size), are what the output layer reads: the place for another head, or for a loss that
    does not hold the scores of the whole vocabulary for all tokens at once. Dropout stays, and works in training only.
    """
    token_ids = keras.Input(shape=(None,), dtype="int32", name="token_ids")
    layers = [layer for layer in model.layers[1:] if layer.name != "logits"]
    x, states_in, states_out = _connect(layers, token_ids, output=False)
    return keras.Model([token_ids, *states_in], [x, *states_out], name=f"{model.name}_backbone")


def output_weights(model: keras.Model) -> tuple[Any, Any]:
    """Return the matrix, shape (vocab_size, size), and the bias, shape (vocab_size,) or None, that turn features into logits."""
    embedding = model.get_layer("embedding")
    if isinstance(embedding, keras.layers.ReversibleEmbedding):
        return embedding.embeddings, None  # no bias
    logits = model.get_layer("logits")
    return ops.transpose(logits.kernel), logits.bias


def _connect(
    layers: list[keras.layers.Layer], token_ids: Any, *, states_in: bool = True, single_token: bool = False, output: bool = True
) -> tuple[Any, list, list]:
    """Call the layers of a language model one after the other; returns the last output and the states put in and given out."""
    entered: list[Any] = []
    given: list[Any] = []
    x = token_ids
    for layer in layers:
        if not isinstance(layer, _RECURRENT):
            x = layer(x)
            continue
        sizes = _state_sizes(layer) if states_in else []
        states = [keras.Input(shape=(size,), name=f"{layer.name}_state_{i}") for i, size in enumerate(sizes)]
        if single_token:
            x, *new_states = CellStep(layer)([x, *states])
        else:
            x, *new_states = layer(x, initial_state=states or None)
        entered += states
        given += new_states
    if output and isinstance(layers[0], keras.layers.ReversibleEmbedding):
        x = layers[0](x, reverse=True)
    return x, entered, given


class CellStep(keras.layers.Layer):
    """[x, *states] -> [output, *states] of the cell of a recurrent layer, under a name of its own: stacked cells share theirs."""

    def __init__(self, layer: keras.layers.Layer):
        super().__init__(name=f"{layer.name}_cell", dtype=layer.dtype_policy)
        self.cell = layer.cell
        self.built = True  # the weights are there already

    def call(self, inputs: list) -> list:
        """Return the output and the new states."""
        x, *states = inputs
        output, new_states = self.cell(x, states if len(states) > 1 else states[0])
        return [output, *(new_states if isinstance(new_states, list | tuple) else [new_states])]


def _state_sizes(layer: keras.layers.Layer) -> list[int]:
    return list(layer.state_size) if isinstance(layer.state_size, list | tuple) else [layer.state_size]


def any_length(layer: keras.layers.Layer) -> keras.layers.Layer:
    """Let a recurrent layer run as one loop for all lengths."""
    layer.unrolled = False
    return layer
