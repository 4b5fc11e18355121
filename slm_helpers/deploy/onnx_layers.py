"""The layers of `slm_helpers.models.layers` as ONNX nodes, for `slm_helpers.deploy.onnx_graph`; each says what it computes there."""

from slm_helpers.deploy.graph_writer import GraphWriter, Tensor

import numpy as np

FAR = np.float32(1e9)  # what masked positions are lowered by


def backbone(g: GraphWriter, token_ids: Tensor, *, cell: str, num_layers: int) -> tuple[Tensor, Tensor]:
    """Return the vectors of tokens and the last layer's states at each: embedding and recurrent layers of a language model."""
    x = vectors = g.embedding(token_ids)
    for i in range(num_layers):
        x, _ = g.recurrent(x, f"{cell}_{i}", cell)
    return vectors, x


def hundredths(g: GraphWriter, x: Tensor) -> Tensor:
    """Return whole numbers divided by 100."""
    return g.op("Mul", g.cast(x, "float32"), np.float32(0.01))


def text_pooling(g: GraphWriter, x: Tensor, token_ids: Tensor) -> Tensor:
    """Return mean, maximum and last of x, (batch, time, size), over the positions where token_ids is not 0: (batch, 3 * size)."""
    real, length = _real(g, token_ids)
    mask = g.op("Unsqueeze", g.cast(real, "float32"), [2])
    count = g.op("Max", g.cast(length, "float32"), np.float32(1))
    mean = g.op("Div", g.op("ReduceSum", g.op("Mul", x, mask), [1], keepdims=0), count)
    lowered = g.op("Mul", g.op("Sub", np.float32(1), mask), FAR)
    highest = g.op("ReduceMax", g.op("Sub", x, lowered), [1], keepdims=0)
    return g.op("Concat", mean, highest, last_state(g, x, token_ids), axis=-1)


def hashed_linear(g: GraphWriter, ngrams: Tensor, name: str) -> Tensor:
    """Return the scores of hashed n-grams, ids (..., ngrams): (..., num_classes)."""
    table = g.layer(name)["table"]
    sums = g.op("ReduceSum", g.op("Gather", g.constant(table, f"{name}/table"), ngrams), [-2], keepdims=0)
    scores, norm = g.op("Split", sums, np.array([table.shape[1] - 1, 1]), num_outputs=2, axis=-1)
    return g.op("Div", scores, g.op("Sqrt", g.op("Max", norm, np.float32(1e-6))))


def last_subword_pooling(g: GraphWriter, x: Tensor, ends: Tensor) -> Tensor:
    """Return x, (batch, time, size), at the positions `ends`, (batch, words): (batch, words, size)."""
    return take_positions(g, x, g.cast(ends, "int64"))


def word_mean_pooling(g: GraphWriter, x: Tensor, ends: Tensor) -> Tensor:
    """Return the mean of x over the tokens of each word."""
    ends = g.op("Unsqueeze", g.cast(ends, "int64"), [2])
    first = g.op("Slice", ends, [0], [1], [1])
    before = g.op("Concat", g.op("Sub", first, first), g.op("Slice", ends, [0], [-1], [1]), axis=1)
    time = g.op("Squeeze", g.op("Shape", x, start=1, end=2), [0])
    position = g.op("Unsqueeze", g.op("Range", np.int64(0), time, np.int64(1)), [0, 1])
    inside = g.op("And", g.op("Greater", position, before), g.op("LessOrEqual", position, ends))
    length = g.op("Max", g.op("Sub", ends, before), np.int64(1))
    return g.op("MatMul", g.op("Div", g.cast(inside, "float32"), g.cast(length, "float32")), x)


def bidirectional(g: GraphWriter, x: Tensor, ends: Tensor, *, prefix: str = "") -> list[Tensor]:
    """Return the states of two GRUs, one from each side, both in the order of the text; `ends` is 0 where there is padding."""
    forward, _ = g.recurrent(x, f"{prefix}forward_gru", "gru")
    backward, _ = g.recurrent(reverse_sequence(g, x, ends), f"{prefix}backward_gru", "gru")
    return [forward, reverse_sequence(g, backward, ends)]


def reverse_sequence(g: GraphWriter, x: Tensor, ends: Tensor) -> Tensor:
    """Return x in reverse order within the true number of positions; padding stays on the right."""
    _, length = _real(g, ends)
    # The operator wants a length of one at least, which turns nothing round either.
    length = g.op("Max", g.op("Squeeze", length, [1]), np.int64(1))
    return g.op("ReverseSequence", x, length, batch_axis=0, time_axis=1)


def last_state(g: GraphWriter, x: Tensor, token_ids: Tensor) -> Tensor:
    """Return x behind the last token of each row: (batch, time, size) -> (batch, size)."""
    _, length = _real(g, token_ids)
    return g.op("Squeeze", take_positions(g, x, g.op("Sub", g.op("Max", length, np.int64(1)), np.int64(1))), [1])


def char_cnn(g: GraphWriter, characters: Tensor, name: str) -> Tensor:
    """Return the features of spellings, characters (batch, words, characters): (batch, words, filters)."""
    weights = g.layer(name)
    real = g.op("Unsqueeze", g.cast(g.op("Not", g.op("Equal", characters, np.int32(0))), "float32"), [3])
    x = g.op("Mul", g.op("Gather", g.constant(weights["embedding"], f"{name}/embedding"), characters), real)
    first = g.op("Slice", x, [0], [1], [2])
    nothing = g.op("Sub", first, first)
    left = g.op("Concat", nothing, g.op("Slice", x, [0], [-1], [2]), axis=2)
    right = g.op("Concat", g.op("Slice", x, [1], [np.iinfo("int64").max], [2]), nothing, axis=2)
    found = g.op("MatMul", g.op("Concat", left, x, right, axis=-1), g.constant(weights["kernel"], f"{name}/kernel"))
    found = g.op("Relu", g.op("Add", found, weights["bias"]))
    return g.op("ReduceMax", g.op("Mul", found, real), [2], keepdims=0)


def aligned_attention(g: GraphWriter, passage: Tensor, question: Tensor, ends: Tensor, name: str) -> Tensor:
    """Return of each word of the passage what it finds in the question, and the highest cosine: (batch, words, size + 1)."""
    real, _ = _real(g, ends)
    padding = g.op("Unsqueeze", g.op("Sub", np.float32(1), g.cast(real, "float32")), [1])
    turned = g.op("Transpose", _unit_length(g, question), perm=[0, 2, 1])
    cosine = g.op("MatMul", _unit_length(g, passage), turned)
    scores = g.op("Sub", g.op("Mul", cosine, g.layer(name)["scale"]), g.op("Mul", padding, FAR))
    highest = g.op("ReduceMax", g.op("Sub", cosine, g.op("Mul", padding, np.float32(4))), [-1], keepdims=1)
    return g.op("Concat", g.op("MatMul", g.op("Softmax", scores, axis=-1), question), highest, axis=-1)


def span_logits(g: GraphWriter, scores: Tensor, none: Tensor, ends: Tensor) -> Tensor:
    """Return the scores of every start and end, position 0 for none at all: (batch, 2, 1 + words)."""
    real, _ = _real(g, ends)
    scores = _masked(g, scores, g.op("Unsqueeze", g.cast(real, "float32"), [2]))
    return g.op("Transpose", g.op("Concat", g.op("Unsqueeze", none, [1]), scores, axis=1), perm=[0, 2, 1])


def intent_slot_logits(g: GraphWriter, tags: Tensor, intent: Tensor, ends: Tensor) -> Tensor:
    """Return tags at the words and the intent at the last position: (batch, positions, num_tags + num_intents)."""
    _, length = _real(g, ends)
    size = g.op("Squeeze", g.op("Shape", ends, start=1, end=2), [0])
    position = g.op("Unsqueeze", g.op("Range", np.int64(0), size, np.int64(1)), [0])
    whole = g.op("Unsqueeze", g.cast(g.op("Equal", position, g.op("Sub", length, np.int64(1))), "float32"), [2])
    tags = _masked(g, tags, g.op("Sub", np.float32(1), whole))
    return g.op("Concat", tags, _masked(g, g.op("Unsqueeze", intent, [1]), whole), axis=-1)


def take_positions(g: GraphWriter, x: Tensor, positions: Tensor) -> Tensor:
    """Return x[i, positions[i, j]]: (batch, time, size) and int64 (batch, words) -> (batch, words, size)."""
    return g.op("GatherND", x, g.op("Unsqueeze", positions, [2]), batch_dims=1)


def _real(g: GraphWriter, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Return where ids, (batch, time), are not padding (0), and how many that are, int64, (batch, 1)."""
    real = g.op("Not", g.op("Equal", ids, np.int32(0)))
    return real, g.op("ReduceSum", g.cast(real, "int64"), [1], keepdims=1)


def _masked(g: GraphWriter, x: Tensor, mask: Tensor) -> Tensor:
    """Return x where the mask is 1, and -1e9 where it is 0."""
    return g.op("Sub", g.op("Mul", x, mask), g.op("Mul", g.op("Sub", np.float32(1), mask), FAR))


def _unit_length(g: GraphWriter, x: Tensor) -> Tensor:
    squares = g.op("ReduceSum", g.op("Mul", x, x), [-1], keepdims=1)
    return g.op("Div", x, g.op("Sqrt", g.op("Add", squares, np.float32(1e-6))))
