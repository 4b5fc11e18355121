"""ONNX graphs of networks that read a sequence and write another: one for the encoder, one for a step of the decoder, in float32."""

from collections.abc import Callable
from typing import Any

from slm_helpers.deploy import onnx_layers as layers
from slm_helpers.deploy.graph_writer import GraphWriter, Tensor
from slm_helpers.models.stored import ENCODER_DECODERS

import numpy as np
import onnx


def build_encoder(builder: str, arguments: dict[str, Any], weights: dict[str, np.ndarray]) -> onnx.ModelProto:
    """Return the graph of the encoder: what `slm_helpers.models.encoder_decoder.make_encoder` computes.

    From source_ids, int32, shape (batch, source_time), padded on the right with 0, to the decoder's first states, state_0 ..., shape
    (batch, units), and the memory, shape (batch, source_time, size).

    Args:
        builder: One of ENCODER_DECODERS.
        arguments: Its arguments.
        weights: By path, see `slm_helpers.models.stored.read_weights`.

    Raises:
        TypeError: If the builder is another one.
        ValueError: If weights are missing.
    """
    g = GraphWriter(weights)
    write = _write_pointer_encoder if _copies(builder) else _write_encoder
    return _finish(g, "encoder", write, arguments)


def build_decoder_step(builder: str, arguments: dict[str, Any], weights: dict[str, np.ndarray]) -> onnx.ModelProto:
    """Return the graph of one token a row: what `slm_helpers.models.encoder_decoder.make_decoder_step` computes.

    From token_ids, int32, shape (batch,), state_0 ..., memory and source_ids to logits (of a pointer generator log-probabilities), shape
    (batch, vocab_size), and next_state_0 ... A decoder has more states than the encoder gives; the others begin with zeros. Arguments
    and errors are those of `build_encoder`.
    """
    return _finish_step("decoder_step", builder, arguments, weights, _give_logits)


def build_search_step(builder: str, arguments: dict[str, Any], weights: dict[str, np.ndarray]) -> onnx.ModelProto:
    """Return the graph of `build_decoder_step` with the likeliest tokens in place of all logits, as a search wants them.

    It takes two more inputs, penalties, float32, shape (vocab_size,), which are added to the log-probabilities, and num_best, int64,
    shape (1,), and gives best_log_probs and best_ids, both (batch, num_best), best first, and next_state_0 ...
    """
    return _finish_step("search_step", builder, arguments, weights, _give_best)


def _finish_step(
    name: str, builder: str, arguments: dict[str, Any], weights: dict[str, np.ndarray], give_scores: Callable[..., None]
) -> onnx.ModelProto:
    write = _write_pointer_step if _copies(builder) else _write_step
    return _finish(GraphWriter(weights), name, write, arguments | {"give_scores": give_scores})


def _copies(builder: str) -> bool:
    if builder not in ENCODER_DECODERS:
        raise TypeError(f"{builder} builds no encoder-decoder; {' and '.join(ENCODER_DECODERS)} do.")
    return builder == "build_pointer_generator"


def _finish(g: GraphWriter, name: str, write: Any, arguments: dict[str, Any]) -> onnx.ModelProto:
    try:
        write(g, **arguments)
    except KeyError as error:
        raise ValueError(f"The weights {error} of the {name} are missing. The model folder does not fit this package.") from error
    return g.finish(name)


def _write_encoder(g: GraphWriter, *, units: int = 512, **sizes: Any) -> None:
    source_ids = g.input("source_ids", ("batch", "source_time"))
    x = g.embedding(source_ids)
    forward, backward = layers.bidirectional(g, x, source_ids, prefix="encoder_")
    first = g.op("Gather", backward, np.int64(0), axis=1)
    g.output(g.dense(first, "first_state", "Tanh"), "state_0", ("batch", units))
    memory = g.dense(g.op("Concat", forward, backward, x, axis=-1), "memory")
    g.output(memory, "memory", ("batch", "source_time", units))


def _give_logits(g: GraphWriter, logits: Tensor, vocab_size: int) -> None:
    g.output(logits, "logits", ("batch", vocab_size))


def _give_best(g: GraphWriter, logits: Tensor, vocab_size: int) -> None:
    log_probs = g.op("Add", g.op("LogSoftmax", logits, axis=-1), g.input("penalties", (vocab_size,), "float32"))
    values, ids = g.op("TopK", log_probs, g.input("num_best", (1,), "int64"), num_outputs=2, axis=-1)
    g.output(values, "best_log_probs", ("batch", "num_best"))
    g.output(ids, "best_ids", ("batch", "num_best"), "int64")


def _write_step(
    g: GraphWriter,
    *,
    vocab_size: int,
    embedding_dim: int = 256,
    units: int = 512,
    num_decoder_layers: int = 2,
    give_scores: Callable[..., None],
    **sizes: Any,
) -> None:
    token_ids = g.input("token_ids", ("batch",))
    widths = [units, embedding_dim][:num_decoder_layers]
    states = [g.input(f"state_{i}", ("batch", width), "float32") for i, width in enumerate(widths)]
    memory, source_ids = _memory_inputs(g, units)
    x, last = _one_step(g, g.embedding(token_ids), "decoder_gru_0", "gru", states[0])
    given = [last]
    context, _ = _attend(g, x, memory, source_ids)
    x = g.dense(g.op("Concat", x, context, axis=-1), "attended", "Tanh")
    if num_decoder_layers == 2:
        above, last = _one_step(g, x, "decoder_gru_1", "gru", states[1])
        x = g.op("Add", x, above)
        given.append(last)
    give_scores(g, g.tied_logits(x), vocab_size)
    _give_states(g, given, widths)


def _write_pointer_encoder(
    g: GraphWriter, *, cell: str = "gru", units: int = 512, num_layers: int = 1, memory_dim: int = 128, **sizes: Any
) -> None:
    source_ids = g.input("source_ids", ("batch", "source_time"))
    x = vectors = g.embedding(source_ids)
    for i in range(num_layers):
        x, _ = g.recurrent(x, f"{cell}_{i}", cell)
        g.output(layers.last_state(g, x, source_ids), f"state_{i}", ("batch", units))
    backward, _ = g.recurrent(layers.reverse_sequence(g, vectors, source_ids), "backward_gru", "gru")
    backward = layers.reverse_sequence(g, backward, source_ids)
    memory = g.dense(g.op("Concat", x, backward, vectors, axis=-1), "memory")
    g.output(memory, "memory", ("batch", "source_time", memory_dim))


def _write_pointer_step(
    g: GraphWriter,
    *,
    vocab_size: int,
    cell: str = "gru",
    units: int = 512,
    num_layers: int = 1,
    memory_dim: int = 128,
    give_scores: Callable[..., None],
    **sizes: Any,
) -> None:
    token_ids = g.input("token_ids", ("batch",))
    states = [g.input(f"state_{i}", ("batch", units), "float32") for i in range(num_layers)]
    memory, source_ids = _memory_inputs(g, memory_dim)
    x = vectors = g.embedding(token_ids)
    given = []
    for i, state in enumerate(states):
        x, last = _one_step(g, x, f"{cell}_{i}", cell, state)
        given.append(last)
    context, weights = _attend(g, g.dense(x, "query"), memory, source_ids)
    features = g.dense(x, "projection") if g.layer("projection") else x
    logits = g.tied_logits(g.op("Add", features, g.dense(context, "context_projection")))
    gate = g.dense(g.op("Concat", x, context, vectors, axis=-1), "gate")
    drawn = g.op("Sub", g.op("LogSoftmax", logits, axis=-1), g.op("Softplus", gate))
    nothing = g.op("Mul", logits, np.float32(0))
    copied = g.op("ScatterElements", nothing, g.cast(source_ids, "int64"), weights, axis=1, reduction="add")
    copied = g.op("Sub", g.op("Log", g.op("Add", copied, np.float32(1e-9))), g.op("Softplus", g.op("Neg", gate)))
    highest = g.op("Max", drawn, copied)  # log(exp(a) + exp(b)) without overflow
    powers = [g.op("Exp", g.op("Sub", part, highest)) for part in (drawn, copied)]
    scores = g.op("Add", highest, g.op("Log", g.op("Add", *powers)))
    give_scores(g, scores, vocab_size)
    _give_states(g, given, [units] * num_layers)


def _memory_inputs(g: GraphWriter, size: int) -> tuple[Tensor, Tensor]:
    return g.input("memory", ("batch", "source_time", size), "float32"), g.input("source_ids", ("batch", "source_time"))


def _one_step(g: GraphWriter, x: Tensor, name: str, cell: str, state: Tensor) -> tuple[Tensor, Tensor]:
    """Return the output of a layer for one position, x (batch, size), and its state, which are the same numbers."""
    _, last = g.recurrent(g.op("Unsqueeze", x, [1]), name, cell, [state])
    return last[0], last[0]


def _attend(g: GraphWriter, query: Tensor, memory: Tensor, source_ids: Tensor) -> tuple[Tensor, Tensor]:
    """Return what a query (batch, size) reads from the memory, (batch, size), and the attention weights, (batch, source_time)."""
    scores = g.op("MatMul", g.op("Unsqueeze", query, [1]), g.op("Transpose", memory, perm=[0, 2, 1]))
    padding = g.op("Unsqueeze", g.cast(g.op("Equal", source_ids, np.int32(0)), "float32"), [1])
    weights = g.op("Softmax", g.op("Sub", scores, g.op("Mul", padding, layers.FAR)), axis=-1)
    return g.op("Squeeze", g.op("MatMul", weights, memory), [1]), g.op("Squeeze", weights, [1])


def _give_states(g: GraphWriter, states: list[Tensor], widths: list[int]) -> None:
    for i, (state, width) in enumerate(zip(states, widths, strict=True)):
        g.output(state, f"next_state_{i}", ("batch", width))
