"""A recurrent language model run by NumPy, without Keras: no compiled program, and at one token a call several times as fast as one.

Writing a text is a long chain of small matrix-vector products. A compiled program spends most of such a step on starting its
parts; NumPy hands each product straight to the processor's matrix library. Results are those of the Keras model with the same weights
up to float32 rounding (about 1e-6).
"""

import json
from typing import Any

from slm_helpers.deploy.engine import LANGUAGE_MODEL

import numpy as np

States = list[np.ndarray]


class Runtime:
    """The layers of a language model, one after the other; states are float32 arrays, shape (batch, units).

    Reading gives features, shape (..., size), and `logits` turns those into scores, so that a prompt can be read without scoring
    the vocabulary at each of its tokens.
    """

    def __init__(self, arguments: dict[str, Any], weights: dict[str, np.ndarray]):
        """Bring the weights of a network into order.

        Args:
            arguments: Of `slm_helpers.models.language_model.build_language_model`.
            weights: Arrays by path, e.g. "gru_0/gru_cell/kernel".

        Raises:
            ValueError: If a weight is missing.
        """
        self.builder_config = json.dumps({"builder": LANGUAGE_MODEL, "arguments": arguments})
        self.vocab_size = arguments["vocab_size"]
        cell, tied = arguments.get("cell", "gru"), arguments.get("tie_embeddings", True)
        layers: dict[str, dict[str, np.ndarray]] = {}
        for path, values in weights.items():
            layers.setdefault(path.split("/")[0], {})[path.rsplit("/", 1)[1]] = np.ascontiguousarray(values, dtype="float32")
        try:
            self._embeddings = layers["embedding"]["embeddings"]
            self._parts: list[Any] = [_CELLS[cell](**layers[f"{cell}_{i}"]) for i in range(arguments.get("num_layers", 1))]
            if tied and "projection" in layers:
                self._parts.append(_Dense(**layers["projection"]))
            self._output = None if tied else _Dense(**layers["logits"])
        except (KeyError, TypeError) as error:
            raise ValueError(f"The weights of a language model do not fit its settings ({error}). Copy the folder again.") from error
        size = self._embeddings.shape[1]
        for part in [*self._parts, *([] if self._output is None else [self._output])]:
            if len(part.kernel) != size:
                raise ValueError(f"A layer reads {len(part.kernel)} numbers, but is given {size}. Copy the folder again.")
            size = part.output_size
        if len(self._embeddings) != self.vocab_size or size != (self._embeddings.shape[1] if tied else self.vocab_size):
            raise ValueError(f"The weights do not score {self.vocab_size:,} tokens, as the settings say. Copy the folder again.")

    def zero_states(self, batch_size: int) -> States:
        """Return the states before the first token."""
        return [np.zeros((batch_size, size), dtype="float32") for part in self._parts for size in part.state_sizes]

    def read(self, token_ids: np.ndarray, states: States) -> tuple[np.ndarray, States]:
        """Read tokens, shape (batch, time); returns the features after each, shape (batch, time, size), and the states."""
        x = self._embeddings[token_ids.T]  # time first: each step then works on one block of memory
        given: States = []
        for part in self._parts:
            own, states = states[: len(part.state_sizes)], states[len(part.state_sizes) :]
            x, new = part.read(x, own)
            given += new
        return x.swapaxes(0, 1), given

    def advance(self, token_ids: np.ndarray, states: States) -> States:
        """Read tokens for the states behind them alone."""
        return self.read(token_ids, states)[1]

    def step(self, token_ids: np.ndarray, states: States) -> tuple[np.ndarray, States]:
        """Read one token a row, shape (batch,); returns the features, shape (batch, size), and the states."""
        x = self._embeddings[token_ids]
        given: States = []
        for part in self._parts:
            own, states = states[: len(part.state_sizes)], states[len(part.state_sizes) :]
            x, new = part.step(x, own)
            given += new
        return x, given

    def logits(self, features: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Return the scores of all tokens, shape (batch, vocab_size), in `out` if given."""
        return np.matmul(features, self._embeddings.T, out=out) if self._output is None else self._output.products(features, out)


def open_runtime(model: Any) -> Runtime:
    """Return the NumPy form of a Keras model from `build_language_model`, with its present weights.

    Raises:
        TypeError: If the model is another one, or its weights are no longer plain float numbers.
    """
    recipe = json.loads(getattr(model, "builder_config", "{}"))
    if recipe.get("builder") != LANGUAGE_MODEL:
        raise TypeError(f"{model.name} was not made by {LANGUAGE_MODEL}, so it has no NumPy form.")
    if any(getattr(layer, "quantization_mode", None) for layer in model.layers):
        raise TypeError(f"{model.name} was quantised, so it has no NumPy form.")
    from slm_helpers._backend import keras

    return Runtime(recipe["arguments"], {weight.path: keras.ops.convert_to_numpy(weight) for weight in model.weights})


class _Dense:
    state_sizes: tuple[int, ...] = ()

    def __init__(self, kernel: np.ndarray, bias: np.ndarray | None = None):
        self.kernel, self.bias, self.output_size = kernel, bias, kernel.shape[1]

    def products(self, x: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        out = np.matmul(x, self.kernel, out=out)
        if self.bias is not None:
            out += self.bias
        return out

    def read(self, x: np.ndarray, states: States) -> tuple[np.ndarray, States]:
        return self.products(x.reshape(-1, x.shape[-1])).reshape(*x.shape[:2], -1), []

    def step(self, x: np.ndarray, states: States) -> tuple[np.ndarray, States]:
        return self.products(x), []


class _Recurrent:
    """A cell: the products with the inputs are made for all steps together, `advance` does the rest one step after the other."""

    num_states = 1

    def __init__(self, kernel: np.ndarray, recurrent_kernel: np.ndarray, bias: np.ndarray):
        self.kernel, self.recurrent_kernel, self.bias = kernel, recurrent_kernel, bias
        self.units = self.output_size = len(recurrent_kernel)
        self.state_sizes = (self.units,) * self.num_states

    def read(self, x: np.ndarray, states: States) -> tuple[np.ndarray, States]:
        # As one flat product: NumPy would make a small one for each step of a three-dimensional array.
        inputs = x.reshape(-1, x.shape[-1]) @ self.kernel
        inputs += self.bias
        inputs = inputs.reshape(*x.shape[:2], -1)
        outputs = np.empty((*x.shape[:2], self.units), dtype="float32")
        for step in range(len(x)):
            states = self.advance(inputs[step], states)
            outputs[step] = states[0]
        return outputs, states

    def step(self, x: np.ndarray, states: States) -> tuple[np.ndarray, States]:
        inputs = x @ self.kernel
        inputs += self.bias
        states = self.advance(inputs, states)
        return states[0], states


class _SimpleRNN(_Recurrent):
    def advance(self, inputs: np.ndarray, states: States) -> States:
        hidden = states[0] @ self.recurrent_kernel
        hidden += inputs
        return [np.tanh(hidden, out=hidden)]


class _GRU(_Recurrent):
    """Keras' order: update gate z, reset gate r, candidate; r acts after the product, and z keeps the old state."""

    def __init__(self, kernel: np.ndarray, recurrent_kernel: np.ndarray, bias: np.ndarray):
        super().__init__(kernel, recurrent_kernel, bias)
        gates = 2 * self.units
        # The recurrent bias of the gates may join that of the inputs; the candidate's stands behind the reset gate.
        self.candidate_bias = self.bias[1, gates:].copy()
        self.bias = self.bias[0] + np.concatenate([self.bias[1, :gates], np.zeros(self.units, dtype="float32")])

    def advance(self, inputs: np.ndarray, states: States) -> States:
        state, units = states[0], self.units
        hidden = state @ self.recurrent_kernel
        gates, candidate = hidden[:, : 2 * units], hidden[:, 2 * units :]
        gates += inputs[:, : 2 * units]
        _sigmoid(gates)
        candidate += self.candidate_bias
        candidate *= gates[:, units:]
        candidate += inputs[:, 2 * units :]
        np.tanh(candidate, out=candidate)
        new = state - candidate
        new *= gates[:, :units]
        new += candidate
        return [new]


class _LSTM(_Recurrent):
    """Keras' order: input gate, forget gate, candidate, output gate; the states are the output and the memory."""

    num_states = 2

    def advance(self, inputs: np.ndarray, states: States) -> States:
        units = self.units
        hidden = states[0] @ self.recurrent_kernel
        hidden += inputs
        entered, kept, candidate, shown = (hidden[:, i * units : (i + 1) * units] for i in range(4))
        _sigmoid(hidden[:, : 2 * units])
        _sigmoid(shown)
        np.tanh(candidate, out=candidate)
        candidate *= entered
        memory = states[1] * kept
        memory += candidate
        return [np.tanh(memory) * shown, memory]


_CELLS = {"rnn": _SimpleRNN, "gru": _GRU, "lstm": _LSTM}


def _sigmoid(x: np.ndarray) -> None:
    """In place, through tanh: exp(-x) would overflow."""
    x *= 0.5
    np.tanh(x, out=x)
    x *= 0.5
    x += 0.5
