"""Language models as ONNX graphs of 8-bit integer products: a quarter of the bytes, and faster where reading weights takes the time.

A matrix holds a whole number in -127..127 for each weight and a scale for each column (embeddings: for each token's vector). What it is
multiplied with is rounded to 7 bits, whole numbers in 1..127 around 64: states, which lie between -1 and 1, in steps of 1/63, vectors of
tokens by halving their numbers, and what the vocabulary is scored from by its largest value. Every row is rounded by itself, so a text
does not depend on what is written beside it.

A unit's weights to its own gates are often ten times as large as all others of their column and would make its scale coarse: they stay
float32, one product a number.

With 8 bits on both sides products would be wrong on processors without VNNI instructions, which add pairs of them in 16 bits: 2 * 255 *
127 is too large for that, 2 * 127 * 127 is not. Sums are therefore exact, and the same on every processor.

Reference:
    Jacob et al. (2018), "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", arXiv:1712.05877.
"""

from typing import Any

from slm_helpers.deploy.graph_writer import GraphWriter, Operand, Tensor
from slm_helpers.models.stored import quantize_matrix

import numpy as np
import onnx

_ZERO = np.uint8(64)
_STEP = np.float32(1 / 63)  # of states


def quantize(matrix: np.ndarray, *, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Round a matrix to 8 bits, with a scale for each of its columns (axis 1) or rows (axis 0).

    Returns:
        Whole numbers in -127..127, int8, and the scales, float32, shape (matrix.shape[axis],): a weight is about number * scale.

    Example:
        >>> numbers, scales = quantize(np.array([[1.0, 0.5], [-1.0, 0.0]]), axis=1)
        >>> numbers.tolist(), (scales * 127).tolist()
        ([[127, 127], [-127, 0]], [1.0, 0.5])
    """
    numbers, scales = quantize_matrix(matrix, axis=axis)
    return numbers, scales.reshape(-1)


def build_step(arguments: dict[str, Any], weights: dict[str, np.ndarray]) -> onnx.ModelProto:
    """Return a graph of one token a row: token_ids, shape (batch,), and state_0 ... to logits, (batch, vocab_size), and next_state_0 ...

    Args:
        arguments: Of `build_language_model`.
        weights: By path, see `slm_helpers.models.stored.read_weights`.
    """
    return _build("language_model_step", ("batch",), weights, **arguments)


def build_reading(arguments: dict[str, Any], weights: dict[str, np.ndarray]) -> onnx.ModelProto:
    """Return the same of whole texts: token_ids, shape (batch, time), to logits, (batch, time, vocab_size).

    What does not depend on the state is computed for all tokens together. Arguments are those of `build_step`.
    """
    return _build("language_model_reading", ("batch", "time"), weights, **arguments)


def _build(
    name: str,
    shape: tuple[str, ...],
    weights: dict[str, np.ndarray],
    *,
    vocab_size: int,
    cell: str = "gru",
    units: int = 512,
    num_layers: int = 1,
    tie_embeddings: bool = True,
    **sizes: Any,
) -> onnx.ModelProto:
    g = GraphWriter(weights)
    token_ids = g.input("token_ids", shape)
    num_states = 1 + (cell == "lstm")
    states = [g.input(f"state_{i}", ("batch", units), "float32") for i in range(num_layers * num_states)]
    vectors, scales = quantize(g.layer("embedding")["embeddings"], axis=0)
    x = _halved(g, g.op("Gather", g.constant(vectors, "vectors"), token_ids))
    x_scale = g.op("Gather", 2 * scales[:, None], token_ids)
    given: list[Tensor] = []
    for i in range(num_layers):
        layer = g.layer(f"{cell}_{i}")
        entered = states[i * num_states : (i + 1) * num_states]
        gates = _product(g, x, layer["kernel"], x_scale)
        gates = g.op("Add", gates, layer["bias"].reshape(-1, _gates_size(cell, units))[0])
        if len(shape) == 1:
            left = _cell(g, cell, gates, entered, layer)
            y = left[0]
        else:
            body = GraphWriter(weights, parent=g)
            inner = [body.input(f"state_{i}_{k}", ("batch", units), "float32") for k in range(num_states)]
            new = _cell(body, cell, body.input(f"gates_{i}", ("batch", _gates_size(cell, units)), "float32"), inner, layer)
            for k, state in enumerate([*new, new[0]]):
                body.output(state, f"new_{i}_{k}", ("batch", units))
            y, left = g.scan(body, entered, gates)
        given += left
        x, x_scale = _rounded_state(g, y), _STEP
    if tie_embeddings and g.layer("projection"):
        x, x_scale = _rounded_rows(g, _product(g, x, g.layer("projection")["kernel"], x_scale))
    if tie_embeddings:
        turned = g.op("Transpose", g.constant(vectors, "vectors"), perm=[1, 0])
        logits = _integer_product(g, x, turned, x_scale, scales)
    else:
        logits = g.op("Add", _product(g, x, g.layer("logits")["kernel"], x_scale), g.layer("logits")["bias"])
    g.output(logits, "logits", (*shape, vocab_size))
    for i, state in enumerate(given):
        g.output(state, f"next_state_{i}", ("batch", units))
    return g.finish(name)


def _gates_size(cell: str, units: int) -> int:
    return {"rnn": 1, "gru": 3, "lstm": 4}[cell] * units


def _cell(g: GraphWriter, cell: str, gates: Tensor, states: list[Tensor], layer: dict[str, np.ndarray]) -> list[Tensor]:
    """Return the states after one position; `gates` is what the input adds to the gates, in Keras' order."""
    units = layer["recurrent_kernel"].shape[0]
    kernel, own = _without_diagonals(layer["recurrent_kernel"])
    hidden = _product(g, _rounded_state(g, states[0]), kernel, _STEP)
    hidden = g.op("Add", hidden, g.op("Mul", g.op("Concat", *[states[0]] * (kernel.shape[1] // units), axis=-1), own))
    if cell == "rnn":
        return [g.op("Tanh", g.op("Add", gates, hidden))]
    if cell == "gru":
        hidden = g.op("Add", hidden, layer["bias"][1])
        parts = np.array([2 * units, units])
        from_input, candidate_input = g.op("Split", gates, parts, num_outputs=2, axis=-1)
        from_state, candidate_state = g.op("Split", hidden, parts, num_outputs=2, axis=-1)
        both = g.op("Sigmoid", g.op("Add", from_input, from_state))
        update, reset = g.op("Split", both, np.array([units, units]), num_outputs=2, axis=-1)
        candidate = g.op("Tanh", g.op("Add", candidate_input, g.op("Mul", reset, candidate_state)))
        return [g.op("Add", candidate, g.op("Mul", update, g.op("Sub", states[0], candidate)))]
    parts = g.op("Split", g.op("Add", gates, hidden), np.array([units] * 4), num_outputs=4, axis=-1)
    entered, forget, out = (g.op("Sigmoid", parts[i]) for i in (0, 1, 3))
    memory = g.op("Add", g.op("Mul", forget, states[1]), g.op("Mul", entered, g.op("Tanh", parts[2])))
    return [g.op("Mul", out, g.op("Tanh", memory)), memory]


def _without_diagonals(kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a recurrent kernel without the weights from each unit to its own gates, and those, shape (gates,)."""
    units = kernel.shape[0]
    columns = np.arange(kernel.shape[1])
    rest = kernel.copy()
    rest[columns % units, columns] = 0
    return rest, kernel[columns % units, columns]


def _product(g: GraphWriter, x: Tensor, kernel: np.ndarray, x_scale: Operand) -> Tensor:
    numbers, scales = quantize(kernel, axis=1)
    return _integer_product(g, x, numbers, x_scale, scales)


def _integer_product(g: GraphWriter, x: Tensor, kernel: Operand, x_scale: Operand, scales: np.ndarray) -> Tensor:
    """Return the product of rounded numbers, as float32; one scale for all of x, or one a row."""
    found = g.cast(g.op("MatMulInteger", x, kernel, _ZERO), "float32")
    if not isinstance(x_scale, str):
        return g.op("Mul", found, scales * x_scale)
    return g.op("Mul", g.op("Mul", found, x_scale), scales)


def _rounded_state(g: GraphWriter, state: Tensor) -> Tensor:
    return g.op("QuantizeLinear", state, _STEP, _ZERO)


def _rounded_rows(g: GraphWriter, x: Tensor) -> tuple[Tensor, Tensor]:
    """Round each row by its largest value; returns the numbers and the scale of each row."""
    highest = g.op("ReduceMax", g.op("Abs", x), [-1], keepdims=1)
    scale = g.op("Mul", g.op("Max", highest, np.float32(1e-30)), _STEP)
    return _unsigned(g, g.op("Div", x, scale)), scale


def _halved(g: GraphWriter, numbers: Tensor) -> Tensor:
    return _unsigned(g, g.op("Mul", g.cast(numbers, "float32"), np.float32(0.5)))


def _unsigned(g: GraphWriter, x: Tensor) -> Tensor:
    """Round numbers in -63.5..63.5 and put them around 64; a cast cuts off what stands behind the point."""
    return g.cast(g.op("Add", x, np.float32(64.5)), "uint8")
