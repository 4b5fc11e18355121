"""A recurrent language model run by NumPy: no compiled program, and at one token a call several times as fast as one.

Writing a text is a long chain of small matrix-vector products. A compiled program spends most of such a step on starting its
parts; NumPy hands each product straight to the processor's matrix library. The weights are the Keras model's at the time
`open_runtime` is called, and the results are its own up to float32 rounding (about 1e-6), on every backend.
"""

from collections.abc import Callable
from typing import Any

from slm_helpers._backend import keras
from slm_helpers.models.language_model import make_stateful_model, recurrent_layers, zero_states

import numpy as np

States = list[np.ndarray]


class Runtime:
    """The layers of a language model, one after the other; states are float32 arrays, shape (batch, units).

    Reading gives features, shape (..., size), and `logits` turns those into scores, so that a prompt can be read without scoring
    the vocabulary at each of its tokens.
    """

    def __init__(self, embeddings: np.ndarray, parts: list[Any], logits: Callable[[np.ndarray, np.ndarray | None], np.ndarray]):
        self.vocab_size = len(embeddings)
        self._embeddings, self._parts, self._logits = embeddings, parts, logits

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
        return self._logits(features, out)


def open_runtime(model: keras.Model) -> Runtime:
    """Return the NumPy form of a model from `build_language_model`, with its present weights.

    Raises:
        TypeError: If the model holds a layer, or a layer with settings, that NumPy code is not written for.
    """
    embedding, *rest = [layer for layer in model.layers if not isinstance(layer, keras.layers.InputLayer | keras.layers.Dropout)]
    reversible = isinstance(embedding, keras.layers.ReversibleEmbedding)
    if not isinstance(embedding, keras.layers.Embedding) or embedding.quantization_mode is not None:
        raise TypeError(f"{embedding.name} ({type(embedding).__name__}) has no NumPy form.")
    parts = [_part(layer) for layer in rest]
    matrix = _array(embedding.embeddings)
    if not reversible:
        output = parts.pop()
        if not isinstance(output, _Dense):
            raise TypeError(f"{model.name} does not end in a dense layer of scores, so it has no NumPy form.")
        return Runtime(matrix, parts, output.products)
    if not embedding.tie_weights or embedding.logit_soft_cap is not None:
        raise TypeError(f"{embedding.name} has settings without a NumPy form.")
    return Runtime(matrix, parts, lambda features, out: np.matmul(features, matrix.T, out=out))


class CompiledRuntime:
    """The methods of `Runtime` through the compiled Keras model, for layers that have no NumPy form; its features are the logits."""

    def __init__(self, model: keras.Model):
        if not recurrent_layers(model):
            raise TypeError(
                f"{model.name} has no recurrent layer that could carry a state from token to token. Use a model from build_language_model."
            )
        self.vocab_size = model.output_shape[-1]
        self.model, self.stateful = model, make_stateful_model(model)

    def zero_states(self, batch_size: int) -> States:
        """Return the states before the first token."""
        return zero_states(self.model, batch_size)

    def read(self, token_ids: np.ndarray, states: States) -> tuple[np.ndarray, States]:
        """Read tokens, shape (batch, time); returns the logits after each and the states."""
        logits, *states = (np.asarray(value, dtype="float32") for value in self.stateful.predict_on_batch([token_ids, *states]))
        return logits, states

    def advance(self, token_ids: np.ndarray, states: States) -> States:
        """Read tokens for the states behind them alone."""
        return self.read(token_ids, states)[1]

    def step(self, token_ids: np.ndarray, states: States) -> tuple[np.ndarray, States]:
        """Read one token a row, shape (batch,)."""
        logits, states = self.read(token_ids[:, None], states)
        return logits[:, 0], states

    def logits(self, features: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Return the features, which are the logits."""
        return features.copy()  # the caller may write into it


class _Dense:
    state_sizes: tuple[int, ...] = ()

    def __init__(self, layer: keras.layers.Dense):
        _check(layer, layer.activation is keras.activations.linear and layer.quantization_mode is None)
        self.kernel = _array(layer.kernel)
        self.bias = _array(layer.bias) if layer.use_bias else None

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

    def __init__(self, layer: keras.layers.RNN):
        cell = layer.cell
        _check(layer, cell.use_bias and cell.activation is keras.activations.tanh and not (layer.go_backwards or layer.stateful))
        self.units = cell.units
        self.state_sizes = (cell.units,) * self.num_states
        self.kernel, self.recurrent_kernel, self.bias = (_array(w) for w in (cell.kernel, cell.recurrent_kernel, cell.bias))

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

    def __init__(self, layer: keras.layers.GRU):
        super().__init__(layer)
        _check(layer, layer.cell.reset_after and layer.cell.recurrent_activation is keras.activations.sigmoid)
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

    def __init__(self, layer: keras.layers.LSTM):
        super().__init__(layer)
        _check(layer, layer.cell.recurrent_activation is keras.activations.sigmoid)

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


_PARTS = {keras.layers.Dense: _Dense, keras.layers.SimpleRNN: _SimpleRNN, keras.layers.GRU: _GRU, keras.layers.LSTM: _LSTM}


def _part(layer: keras.layers.Layer) -> Any:
    for kind, part in _PARTS.items():
        if isinstance(layer, kind):
            return part(layer)
    raise TypeError(f"{layer.name} ({type(layer).__name__}) has no NumPy form.")


def _check(layer: keras.layers.Layer, plain: bool) -> None:
    if not plain:
        raise TypeError(f"{layer.name} ({type(layer).__name__}) has settings without a NumPy form.")


def _array(weight: Any) -> np.ndarray:
    return np.ascontiguousarray(keras.ops.convert_to_numpy(weight), dtype="float32")


def _sigmoid(x: np.ndarray) -> None:
    """In place, through tanh: exp(-x) would overflow."""
    x *= 0.5
    np.tanh(x, out=x)
    x *= 0.5
    x += 0.5
