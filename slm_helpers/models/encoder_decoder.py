"""Encoder-decoder networks: one sequence of tokens in, another out, with attention between them; and decoding with them.

Used by translation and by whatever else is text to text: `build_encoder_decoder` starts from nothing, `build_pointer_generator` makes
one of a language model, and can copy tokens of the source. In training the decoder reads the true target, shifted by one
(*teacher forcing*), so that its recurrent layers run over whole sequences and attention is one batched product for all positions.
"""

from typing import Any

from slm_helpers._backend import keras
from slm_helpers._checks import check_choice
from slm_helpers.models.fast_rnn import FastGRU
from slm_helpers.models.language_model import CELLS, CellStep, any_length, recurrent_layers
from slm_helpers.models.layers import FLOAT32, LastState, PointerGenerator, ReverseSequence
from slm_helpers.models.registry import builder
from slm_helpers.models.word_reading import bidirectional

ops = keras.ops

_SELDOM_COPIES = -1.0  # gate of a copying decoder before it has learned: one token in four


@builder
def build_encoder_decoder(
    vocab_size: int,
    *,
    embedding_dim: int = 256,
    encoder_units: int = 256,
    units: int = 512,
    num_decoder_layers: int = 2,
    dropout: float = 0.2,
) -> keras.Model:
    """Build a recurrent encoder-decoder with attention; source and target share one vocabulary and its vectors.

    Two GRUs read the source, one from each side; a linear layer makes of both states of a position and of the vector of its token the
    *memory* of that position: the vector is a short way from a word to its translation, which is learned first. The decoder's GRU
    starts from what the backward one has seen of the whole source, and reads the target so far. Its states attend to
    the memory after the GRU, all in one product; state and what was read make a vector of the size of the embedding, whose
    products with the embedding are the scores. Since such attention knows nothing of what was read before, a second GRU may run
    over these vectors; its output is added to them.

    Args:
        vocab_size: Number of distinct token ids; id 0 is padding.
        embedding_dim: Length of a token vector, and of the second GRU's state.
        encoder_units: Length of the state of each of the encoder's two GRUs.
        units: Length of the decoder's state and of a position of the memory.
        num_decoder_layers: 1, or 2 with the second GRU.
        dropout: Share of activations dropped, in [0, 1), of vectors, memory and what is scored.

    Returns:
        An uncompiled model from two int32 arrays to float32 logits, shape (batch, time, vocab_size): source_ids, shape
        (batch, source_time), and target_ids, shape (batch, time), the target shifted by one behind a token to begin with. Both are
        padded on the right with 0; how far does not change the logits of the other positions.

    Raises:
        ValueError: If a size is not a positive whole number, num_decoder_layers is not 1 or 2, or dropout lies outside [0, 1).

    Example:
        >>> build_encoder_decoder(vocab_size=40, units=32).output_shape
        (None, None, 40)

    Reference:
        Bahdanau et al. (2015), arXiv:1409.0473 (encoder and first state); Luong et al. (2015), arXiv:1508.04025 (attention behind
        the GRU); Wu et al. (2016), arXiv:1609.08144 (a layer above that reads what the attention found); Nguyen and Chiang (2018),
        arXiv:1710.01329 (a way around the encoder for words).
    """
    if num_decoder_layers not in (1, 2):
        raise ValueError(f"num_decoder_layers is {num_decoder_layers!r}, but must be 1 or 2.")
    source_ids = keras.Input(shape=(None,), dtype="int32", name="source_ids")
    target_ids = keras.Input(shape=(None,), dtype="int32", name="target_ids")
    embedding = keras.layers.ReversibleEmbedding(
        vocab_size,
        embedding_dim,
        embeddings_initializer=keras.initializers.RandomNormal(stddev=embedding_dim**-0.5),
        reverse_dtype="float32",
        name="embedding",
    )
    x = keras.layers.Dropout(dropout, name="source_dropout")(embedding(source_ids))
    forward, backward = bidirectional(x, source_ids, encoder_units, prefix="encoder_")
    first_state = keras.layers.Dense(units, activation="tanh", name="first_state")(backward[:, 0])
    both = keras.layers.Dropout(dropout, name="memory_dropout")(keras.layers.Concatenate(name="positions")([forward, backward, x]))
    memory = keras.layers.Dense(units, name="memory")(both)
    x = keras.layers.Dropout(dropout, name="target_dropout")(embedding(target_ids))
    states = _gru(units, "decoder_gru_0")(x, initial_state=first_state)
    context, _ = _attend(_attention(), states, memory, source_ids)
    x = keras.layers.Dropout(dropout, name="context_dropout")(keras.layers.Concatenate(name="state_and_context")([states, context]))
    x = keras.layers.Dense(embedding_dim, activation="tanh", name="attended")(x)
    if num_decoder_layers == 2:
        above = _gru(embedding_dim, "decoder_gru_1")(keras.layers.Dropout(dropout, name="attended_dropout")(x))
        x = keras.layers.Add(name="decoded")([x, above])
    x = keras.layers.Dropout(dropout, name="features")(x)
    # Logits stay float32 so that the loss is exact under mixed precision too.
    return keras.Model([source_ids, target_ids], embedding(x, reverse=True), name="gru_encoder_decoder")


@builder
def build_pointer_generator(
    vocab_size: int,
    *,
    cell: str = "gru",
    embedding_dim: int = 256,
    units: int = 512,
    num_layers: int = 1,
    backward_units: int = 64,
    memory_dim: int = 128,
    dropout: float = 0.2,
) -> keras.Model:
    """Build a language model that looks back at a source while it writes, and may copy tokens from there.

    The layers of `build_language_model` with tied embeddings read the source and, from the state behind it, the target: with the
    weights of a language model (`load_backbone_weights`) and none learned yet beside them, it goes on as that would. A GRU reads the source
    from its end; its state, that of the last layer and the vector of the token make a position of the *memory*, to which each state
    behind the source attends. What is read is added to the features, and the attention weights say which tokens would be copied, see
    `PointerGenerator`: names and numbers, which few examples cannot teach to spell.

    Args:
        vocab_size: Number of distinct token ids; id 0 is padding.
        cell: "gru" or "rnn"; an LSTM does not show its memory cell at the end of a padded source.
        embedding_dim: Length of a token vector.
        units: Length of the recurrent state in each layer.
        num_layers: Number of stacked recurrent layers.
        backward_units: Length of the state of the GRU that reads from the end.
        memory_dim: Length of a position of the memory.
        dropout: Share of activations dropped, in [0, 1), of vectors, memory, states and what is scored.

    Returns:
        An uncompiled model from source_ids and target_ids, as in `build_encoder_decoder`, to float32 log-probabilities, shape
        (batch, time, vocab_size).

    Raises:
        ValueError: If a size is not a positive whole number, dropout lies outside [0, 1) or cell is not known.

    Example:
        >>> build_pointer_generator(vocab_size=40, units=32).output_shape
        (None, None, 40)

    Reference:
        See, Liu and Manning (2017), arXiv:1704.04368 (copying by attention); Merity et al. (2017), "Pointer Sentinel Mixture Models",
        arXiv:1609.07843 (a recurrent language model that does so).
    """
    check_choice(("gru", "rnn"), cell=cell)
    source_ids = keras.Input(shape=(None,), dtype="int32", name="source_ids")
    target_ids = keras.Input(shape=(None,), dtype="int32", name="target_ids")
    embedding = keras.layers.ReversibleEmbedding(vocab_size, embedding_dim, reverse_dtype="float32", name="embedding")
    vectors, y = embedding(source_ids), embedding(target_ids)
    x = vectors = keras.layers.Dropout(dropout, name="source_dropout")(vectors)
    y = written = keras.layers.Dropout(dropout, name="target_dropout")(y)
    for i in range(num_layers):
        layer = any_length(CELLS[cell](units, return_sequences=True, return_state=True, name=f"{cell}_{i}"))
        x, _ = layer(x)
        y, _ = layer(y, initial_state=LastState(name=f"first_state_{i}")([x, source_ids]))
        y = keras.layers.Dropout(dropout, name=f"{cell}_{i}_dropout")(y)
    backward = _gru(backward_units, "backward_gru")(ReverseSequence(name="reversed_source")([vectors, source_ids]))
    backward = ReverseSequence(name="backward_states")([backward, source_ids])
    positions = keras.layers.Dropout(dropout, name="memory_dropout")(keras.layers.Concatenate(name="positions")([x, backward, vectors]))
    memory = keras.layers.Dense(memory_dim, name="memory")(positions)
    context, weights = _attend(_attention(), keras.layers.Dense(memory_dim, name="query")(y), memory, source_ids)
    features = keras.layers.Dense(embedding_dim, use_bias=False, name="projection")(y) if units != embedding_dim else y
    # It adds nothing at first: the language model goes on.
    added = keras.layers.Dense(embedding_dim, kernel_initializer="zeros", name="context_projection")(context)
    features = keras.layers.Dropout(dropout, name="features")(keras.layers.Add(name="features_and_context")([features, added]))
    seen = keras.layers.Concatenate(name="state_context_token")([y, context, written])
    gate = keras.layers.Dense(1, bias_initializer=keras.initializers.Constant(_SELDOM_COPIES), name="gate")(seen)
    scores = PointerGenerator(dtype=FLOAT32, name="pointer_generator")([embedding(features, reverse=True), weights, gate, source_ids])
    return keras.Model([source_ids, target_ids], scores, name=f"{cell}_pointer_generator")


def make_features(model: keras.Model) -> keras.Model:
    """Return a view of an encoder-decoder that ends before the scores: features, shape (batch, time, embedding_dim)."""
    return keras.Model(model.inputs, model.get_layer("features").output, name="encoder_decoder_features")


def make_encoder(model: keras.Model) -> keras.Model:
    """Return a view of the encoder: source_ids to the decoder's first states and the memory, shape (batch, source_time, size)."""
    states = [layer.output for layer in model.layers if layer.name.startswith("first_state")]
    return keras.Model(model.inputs[0], [*states, model.get_layer("memory").output], name="encoder")


def make_attention(model: keras.Model) -> keras.Model:
    """Return a view that gives the attention weights instead of logits: float32, shape (batch, time, source_time)."""
    return keras.Model(model.inputs, model.get_layer("attention").output[1], name="encoder_decoder_attention")


def make_decoder_step(model: keras.Model) -> keras.Model:
    """Return a view of the decoder for one token a call: [token_ids, *states, memory, source_ids] -> [logits, and the same].

    Shapes: token_ids (batch,), states (batch, size) each, memory and source_ids as in `make_encoder`, logits (batch, vocab_size).
    Handing the states on gives the same logits as one pass over the whole target.
    """
    if "pointer_generator" in {layer.name for layer in model.layers}:
        return _make_copying_step(model)
    layer = model.get_layer
    grus = [layer(name) for name in ("decoder_gru_0", "decoder_gru_1") if name in {each.name for each in model.layers}]
    token_ids = keras.Input(shape=(), dtype="int32", name="token_ids")
    states = [keras.Input(shape=(gru.units,), name=f"{gru.name}_state") for gru in grus]
    memory = keras.Input(shape=(None, grus[0].units), name="memory_of_source")
    source_ids = keras.Input(shape=(None,), dtype="int32", name="source_ids_of_memory")
    x, *new_states = CellStep(grus[0])([layer("embedding")(token_ids), states[0]])
    context, _ = _attend(layer("attention"), keras.layers.Reshape((1, grus[0].units))(x), memory, source_ids)
    x = layer("attended")(keras.layers.Concatenate()([x, keras.layers.Reshape((grus[0].units,))(context)]))
    for gru, state in zip(grus[1:], states[1:], strict=True):
        above, new_state = CellStep(gru)([x, state])
        x = keras.layers.Add()([x, above])
        new_states.append(new_state)
    logits = layer("embedding")(x, reverse=True)
    return keras.Model([token_ids, *states, memory, source_ids], [logits, *new_states, memory, source_ids], name="decoder_step")


def _make_copying_step(model: keras.Model) -> keras.Model:
    layer = model.get_layer
    cells = [cell for cell in recurrent_layers(model) if cell.name != "backward_gru"]
    memory_dim = layer("memory").units
    token_ids = keras.Input(shape=(), dtype="int32", name="token_ids")
    states = [keras.Input(shape=(cell.units,), name=f"{cell.name}_state") for cell in cells]
    memory = keras.Input(shape=(None, memory_dim), name="memory_of_source")
    source_ids = keras.Input(shape=(None,), dtype="int32", name="source_ids_of_memory")
    x = vectors = layer("embedding")(token_ids)
    new_states = []
    for cell, state in zip(cells, states, strict=True):
        x, new_state = CellStep(cell)([x, state])
        new_states.append(new_state)
    query = keras.layers.Reshape((1, memory_dim))(layer("query")(x))
    context, weights = _attend(layer("attention"), query, memory, source_ids)
    context = keras.layers.Reshape((memory_dim,))(context)
    features = layer("projection")(x) if "projection" in {each.name for each in model.layers} else x
    logits = layer("embedding")(layer("features_and_context")([features, layer("context_projection")(context)]), reverse=True)
    gate = layer("gate")(keras.layers.Concatenate()([x, context, vectors]))
    parts = [keras.layers.Reshape((1, part.shape[-1]))(part) for part in (logits, gate)]
    scores = layer("pointer_generator")([parts[0], weights, parts[1], source_ids])
    scores = keras.layers.Reshape((logits.shape[-1],))(scores)
    return keras.Model([token_ids, *states, memory, source_ids], [scores, *new_states, memory, source_ids], name="decoder_step")


def _attention() -> keras.layers.Layer:
    """Return dot-product attention (Luong et al. 2015) in float32: its softmax needs the range."""
    return keras.layers.Attention(dtype=FLOAT32, name="attention")


def _attend(attention: keras.layers.Layer, queries: Any, memory: Any, source_ids: Any) -> tuple[Any, Any]:
    """Return what each query reads from the memory, (batch, time, size), and the attention weights, (batch, time, source_time).

    The weights sum to 1 over the positions where source_ids is not 0 (padding).
    """
    return attention([queries, memory], mask=[None, ops.not_equal(source_ids, 0)], return_attention_scores=True)


def _gru(units: int, name: str) -> keras.layers.Layer:
    return any_length(FastGRU(units, return_sequences=True, name=name))
