"""Write an ONNX graph node by node, from NumPy arrays: no Keras, and recurrent layers as one node each.

Converters of other libraries unroll a recurrent layer into a loop of small operations; the ONNX operators GRU, LSTM and RNN compute
what the Keras layers do once the gates are put in their order.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 18
IR_VERSION = 8  # of the file format, which runtimes from 2022 on read
_TYPES = {"int32": TensorProto.INT32, "float32": TensorProto.FLOAT, "uint8": TensorProto.UINT8, "int64": TensorProto.INT64}
# Of each cell: the operator, where its gates stand in Keras' matrices, and its attributes. Keras' GRU resets after the product.
_CELLS: dict[str, tuple[str, tuple[int, ...], dict[str, int]]] = {
    "rnn": ("RNN", (0,), {}),
    "gru": ("GRU", (0, 1, 2), {"linear_before_reset": 1}),
    "lstm": ("LSTM", (0, 3, 1, 2), {}),  # ONNX: input, output, forget, candidate
}
Tensor = str  # the name of a tensor in the graph
Operand = Tensor | np.ndarray | np.generic | Sequence[int] | None  # what a node reads; numbers become constants


class GraphWriter:
    """A graph in the making; tensors are known by their names, and layers find their weights by those of the model folder.

    Args:
        weights: Arrays by path, e.g. "gru_0/gru_cell/kernel", as `slm_helpers.models.stored.read_weights` gives them.
        parent: Of the body of a loop: the graph around it, whose tensors it may read and which holds its constants.
    """

    def __init__(self, weights: dict[str, np.ndarray], parent: "GraphWriter | None" = None):
        self.weights, self.parent = weights, parent
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[Any, onnx.TensorProto] = {} if parent is None else parent._constants
        self._counter: list[int] = [0] if parent is None else parent._counter

    def input(self, name: str, shape: Sequence[str | int], dtype: str = "int32") -> Tensor:
        """Add an input; axes of any length are given by a name."""
        self._inputs.append(helper.make_tensor_value_info(name, _TYPES[dtype], list(shape)))
        return name

    def output(self, tensor: Tensor, name: str, shape: Sequence[str | int], dtype: str = "float32") -> None:
        """Give a tensor out under a name."""
        self._nodes.append(helper.make_node("Identity", [tensor], [name]))
        self._outputs.append(helper.make_tensor_value_info(name, _TYPES[dtype], list(shape)))

    def constant(self, value: Any, key: Any = None) -> Tensor:
        """Return the name of a constant; whole numbers without a type are int64. Constants of one `key` are written once."""
        array = np.asarray(value)
        key = key or (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), f"c{len(self._constants)}")
        return self._constants[key].name

    def op(self, kind: str, *operands: Operand, num_outputs: int = 1, **attributes: Any) -> Any:
        """Add a node; returns its output, or the list of its outputs if it has several."""
        names = ["" if x is None else x if isinstance(x, str) else self.constant(x) for x in operands]
        outputs = []
        for _ in range(num_outputs):
            self._counter[0] += 1
            outputs.append(f"t{self._counter[0]}")
        self._nodes.append(helper.make_node(kind, names, outputs, **attributes))
        return outputs[0] if num_outputs == 1 else outputs

    def cast(self, x: Tensor, dtype: str) -> Tensor:
        """Return a tensor in another type."""
        return self.op("Cast", x, to=_TYPES[dtype])

    def layer(self, name: str) -> dict[str, np.ndarray]:
        """Return the weights of a layer by the last part of their paths: kernel, bias ..."""
        return {path.rsplit("/", 1)[1]: value for path, value in self.weights.items() if path.startswith(f"{name}/")}

    def dense(self, x: Tensor, name: str, activation: str | None = None) -> Tensor:
        """Return kernel and bias, if there is one, applied to the last axis, then the operator `activation`."""
        weights = self.layer(name)
        x = self.op("MatMul", x, self.constant(weights["kernel"], f"{name}/kernel"))
        if "bias" in weights:
            x = self.op("Add", x, weights["bias"])
        return self.op(activation, x) if activation else x

    def embedding(self, token_ids: Tensor, name: str = "embedding") -> Tensor:
        """Return the vectors of ids, one axis more."""
        return self.op("Gather", self.constant(self.layer(name)["embeddings"], f"{name}/embeddings"), token_ids)

    def tied_logits(self, x: Tensor, name: str = "embedding") -> Tensor:
        """Return the products with all vectors of an embedding."""
        matrix = self.constant(self.layer(name)["embeddings"], f"{name}/embeddings")
        return self.op("MatMul", x, self.op("Transpose", matrix, perm=[1, 0]))

    def recurrent(self, x: Tensor, name: str, cell: str, states: Sequence[Tensor] = ()) -> tuple[Tensor, list[Tensor]]:
        """Return the states of a layer at each position, (batch, time, units), and its last ones, (batch, units) each.

        Args:
            x: Shape (batch, time, size).
            name: Of the layer.
            cell: "rnn", "gru" or "lstm".
            states: Before the first position, in Keras' order (LSTM: output, then memory); zeros unless given.
        """
        weights = self.layer(name)
        kind, order, attributes = _CELLS[cell]
        units = weights["recurrent_kernel"].shape[0]
        kernels = [self.constant(_gates(weights[key], order).T[None], f"{name}/{key}/onnx") for key in ("kernel", "recurrent_kernel")]
        # ONNX adds two biases, of the product with the input and of that with the state; Keras has both in a GRU only.
        biases = weights["bias"].reshape(-1, len(order) * units)
        biases = np.concatenate([biases, np.zeros_like(biases)])[:2]
        bias = self.constant(np.concatenate([_gates(row, order) for row in biases])[None], f"{name}/bias/onnx")
        steps = self.op("Transpose", x, perm=[1, 0, 2])  # the operators have time first
        start = [self.op("Unsqueeze", state, [0]) for state in states]
        outputs, *last = self.op(
            kind, steps, *kernels, bias, None, *start, num_outputs=2 + (cell == "lstm"), hidden_size=units, **attributes
        )
        outputs = self.op("Transpose", self.op("Squeeze", outputs, [1]), perm=[1, 0, 2])
        return outputs, [self.op("Squeeze", state, [0]) for state in last]

    def scan(self, body: "GraphWriter", states: Sequence[Tensor], x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Run a graph over the positions of x, shape (batch, time, ...): its inputs are states and a position, its outputs too."""
        outputs = self.op(
            "Scan", *states, x, num_outputs=len(states) + 1, body=body._graph("body"), num_scan_inputs=1, scan_input_axes=[1],
            scan_output_axes=[1],
        )  # fmt: skip
        return outputs[-1], outputs[:-1]

    def finish(self, name: str) -> onnx.ModelProto:
        """Return the graph as a model."""
        model = helper.make_model(self._graph(name), opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
        model.producer_name = "slm_helpers"
        return model

    def _graph(self, name: str) -> onnx.GraphProto:
        constants = list(self._constants.values()) if self.parent is None else []
        return helper.make_graph(self._nodes, name, self._inputs, self._outputs, constants)


def check_graph(model: onnx.ModelProto, folder: str | Path) -> None:
    """Raise ValueError if the graph of a model folder is not whole, or its shapes do not follow from the settings."""
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        problem = " ".join(str(error).split())[:200]
        raise ValueError(f"{folder}: its weights and settings do not fit together ({problem}). Copy the folder again.") from error


def _gates(matrix: np.ndarray, order: Sequence[int]) -> np.ndarray:
    """Return a matrix whose last axis holds the gates, put in another order."""
    parts = np.split(matrix, len(order), axis=-1)
    return np.concatenate([parts[i] for i in order], axis=-1)
