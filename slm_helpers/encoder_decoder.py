"""Encoder-decoder networks: one sequence of tokens in, another out, with attention between them; and decoding with them.

Used by translation and by whatever else is text to text. In training the decoder reads the true target, shifted by one
(*teacher forcing*), so that its recurrent layers run over whole sequences and attention is one batched product for all places.
"""

from collections.abc import Sequence
from typing import Any

from slm_helpers.backend import keras
from slm_helpers.beam import Hypothesis, beam_search, greedy_search
from slm_helpers.checks import check_positive, check_share
from slm_helpers.finetune import _padded, _retracing, kept_with
from slm_helpers.heads import _over_any_length
from slm_helpers.layers import FastGRU, ReverseWords, SourceAttention
from slm_helpers.models import _BareCell, builder

import numpy as np

_BATCH = 64  # sequences decoded side by side


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

    Two GRUs read the source, one from each side; a linear layer makes of both states of a place and of the vector of its token the
    *memory* of that place: the vector is a short way from a word to its translation, which is learned first. The decoder's GRU
    starts from what the backward one has seen of the whole source, and reads the target so far. Its states attend to
    the memory after the GRU, all in one product; state and what was read make a vector of the size of the embedding, whose
    products with the embedding are the scores. Since such attention knows nothing of what was read before, a second GRU may run
    over these vectors; its output is added to them.

    Args:
        vocab_size: Number of distinct token ids; id 0 is padding.
        embedding_dim: Length of a token vector, and of the second GRU's state.
        encoder_units: Length of the state of each of the encoder's two GRUs.
        units: Length of the decoder's state and of a place of the memory.
        num_decoder_layers: 1, or 2 with the second GRU.
        dropout: Share of activations dropped, in [0, 1), of vectors, memory and what is scored.

    Returns:
        An uncompiled model from two int32 arrays to float32 logits, shape (batch, time, vocab_size): source_ids, shape
        (batch, source_time), and target_ids, shape (batch, time), the target shifted by one behind a token to begin with. Both are
        padded on the right with 0; how far does not change the logits of the other places.

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
    check_positive(vocab_size=vocab_size, embedding_dim=embedding_dim, encoder_units=encoder_units, units=units)
    check_share(dropout=dropout)
    if num_decoder_layers not in (1, 2):
        raise ValueError(f"num_decoder_layers is {num_decoder_layers!r}, but must be 1 or 2.")
    size, units = int(embedding_dim), int(units)
    source_ids = keras.Input(shape=(None,), dtype="int32", name="source_ids")
    target_ids = keras.Input(shape=(None,), dtype="int32", name="target_ids")
    embedding = keras.layers.ReversibleEmbedding(
        int(vocab_size),
        size,
        embeddings_initializer=keras.initializers.RandomNormal(stddev=size**-0.5),
        reverse_dtype="float32",
        name="embedding",
    )
    x = keras.layers.Dropout(dropout, name="source_dropout")(embedding(source_ids))
    onwards = _gru(encoder_units, "encoder_gru_onwards")(x)
    # No mask: it would drop to the slow path. The padding is left on the right, where it comes last in both directions.
    turned = ReverseWords(name="turned_source")([x, source_ids])
    back = ReverseWords(name="turned_back")([_gru(encoder_units, "encoder_gru_backwards")(turned), source_ids])
    first_state = keras.layers.Dense(units, activation="tanh", name="first_state")(back[:, 0])
    both = keras.layers.Dropout(dropout, name="memory_dropout")(keras.layers.Concatenate(name="places")([onwards, back, x]))
    memory = keras.layers.Dense(units, name="memory")(both)
    x = keras.layers.Dropout(dropout, name="target_dropout")(embedding(target_ids))
    states = _gru(units, "decoder_gru_0")(x, initial_state=first_state)
    read, _ = SourceAttention(name="attention")([states, memory, source_ids])
    x = keras.layers.Dropout(dropout, name="read_dropout")(keras.layers.Concatenate(name="state_and_read")([states, read]))
    x = keras.layers.Dense(size, activation="tanh", name="attended")(x)
    if num_decoder_layers == 2:
        above = _gru(size, "decoder_gru_1")(keras.layers.Dropout(dropout, name="attended_dropout")(x))
        x = keras.layers.Add(name="decoded")([x, above])
    x = keras.layers.Dropout(dropout, name="features")(x)
    # Logits stay float32 so that the loss is exact under mixed precision too.
    return keras.Model([source_ids, target_ids], embedding(x, reverse=True), name="gru_encoder_decoder")


def make_features(model: keras.Model) -> keras.Model:
    """Return a view of an encoder-decoder that ends before the scores: features, shape (batch, time, embedding_dim)."""
    return keras.Model(model.inputs, model.get_layer("features").output, name="encoder_decoder_features")


def make_encoder(model: keras.Model) -> keras.Model:
    """Return a view of the encoder: source_ids to the decoder's first state and the memory, shape (batch, source_time, units)."""
    outputs = [model.get_layer(name).output for name in ("first_state", "memory")]
    return keras.Model(model.inputs[0], outputs, name="encoder")


def make_attention(model: keras.Model) -> keras.Model:
    """Return a view that gives the shares of attention instead of logits: float32, shape (batch, time, source_time)."""
    return keras.Model(model.inputs, model.get_layer("attention").output[1], name="encoder_decoder_attention")


def make_decoder_step(model: keras.Model) -> keras.Model:
    """Return a view of the decoder for one token a call: [token_ids, *states, memory, source_ids] -> [logits, and the same].

    Shapes: token_ids (batch,), states (batch, size) each, memory and source_ids as in `make_encoder`, logits (batch, vocab_size).
    Handing the states on gives the same logits as one pass over the whole target.
    """
    layer = model.get_layer
    grus = [layer(name) for name in ("decoder_gru_0", "decoder_gru_1") if name in {each.name for each in model.layers}]
    token_ids = keras.Input(shape=(), dtype="int32", name="token_ids")
    states = [keras.Input(shape=(gru.units,), name=f"{gru.name}_state") for gru in grus]
    memory = keras.Input(shape=(None, grus[0].units), name="memory_of_source")
    source_ids = keras.Input(shape=(None,), dtype="int32", name="source_ids_of_memory")
    x, *new_states = _BareCell(grus[0])([layer("embedding")(token_ids), states[0]])
    read, _ = layer("attention")([keras.layers.Reshape((1, grus[0].units))(x), memory, source_ids])
    x = layer("attended")(keras.layers.Concatenate()([x, keras.layers.Reshape((grus[0].units,))(read)]))
    for gru, state in zip(grus[1:], states[1:], strict=True):
        above, new_state = _BareCell(gru)([x, state])
        x = keras.layers.Add()([x, above])
        new_states.append(new_state)
    logits = layer("embedding")(x, reverse=True)
    return keras.Model([token_ids, *states, memory, source_ids], [logits, *new_states, memory, source_ids], name="decoder_step")


def decode_sequences(
    model: keras.Model,
    sources: Sequence[np.ndarray],
    *,
    start_id: int,
    end_id: int,
    never: Sequence[int] = (),
    beam_size: int = 1,
    length_penalty: float = 1.0,
    max_ratio: float = 2.0,
    batch_size: int = _BATCH,
) -> list[list[Hypothesis]]:
    """Write the target of each source, side by side and sorted by length.

    Args:
        model: From `build_encoder_decoder`.
        sources: Token ids of each, one at least.
        start_id: What the decoder reads first.
        end_id: What ends a target.
        never: Token ids that are not written, e.g. padding.
        beam_size: 1 takes the likeliest token each time; more searches.
        length_penalty: Of the search, see `beam_search`.
        max_ratio: A target is cut at this many tokens for each of the source, and ten.
        batch_size: Sources taken together.

    Returns:
        For each source, in their order, what was found, best first: one sequence, or `beam_size` of them.
    """
    check_positive(beam_size=beam_size, batch_size=batch_size)
    encoder = kept_with(model, "encoder", lambda: make_encoder(model))
    step = kept_with(model, "decoder_step", lambda: make_decoder_step(model))
    order = sorted(range(len(sources)), key=lambda row: len(sources[row]))
    found: list[list[Hypothesis]] = [[] for _ in sources]
    for start in range(0, len(order), batch_size):
        picked = order[start : start + batch_size]
        rows = [sources[row] for row in picked]
        if keras.backend.backend() != "tensorflow":  # which alone takes any number of rows without compiling anew
            rows += rows[-1:] * (min(batch_size, len(order)) - len(rows))
        source_ids = _padded(rows, len(rows))
        with _retracing():
            first_state, memory = (keras.ops.convert_to_numpy(part) for part in encoder.predict_on_batch(source_ids))
            zeros = [np.zeros((len(rows), state.shape[-1]), "float32") for state in step.inputs[2:-2]]
            arguments: dict[str, Any] = {"end_id": end_id, "never": never, "max_tokens": int(10 + max_ratio * len(rows[-1]))}
            first_ids, states = np.full(len(rows), start_id, "int32"), [first_state, *zeros, memory, source_ids]
            if beam_size == 1:
                best = [[each] for each in greedy_search(step, first_ids, states, **arguments)]
            else:
                best = beam_search(step, first_ids, states, beam_size=beam_size, length_penalty=length_penalty, **arguments)
        for row, hypotheses in zip(picked, best, strict=False):
            found[row] = hypotheses
    return found


def _gru(units: int, name: str) -> keras.layers.Layer:
    return _over_any_length(FastGRU(int(units), return_sequences=True, name=name))
