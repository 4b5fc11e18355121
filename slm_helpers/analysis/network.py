"""The recurrent part of a text classifier in NumPy, with the gradient at its token vectors: one code for all Keras backends and for none.

The equations are those of Keras (see `slm_helpers.generation.runtime`); the backward pass is written out by hand, as backpropagation
through time has it.
"""

from collections.abc import Callable
from typing import Any

from slm_helpers._threads import single_blas_thread

import numpy as np

_CHUNK = 2048  # tokens read together: what the backward pass needs of them stays below 100 MB


class ClassifierNetwork:
    """Token vectors -> logits of a classifier from `build_text_classifier`, its n-gram part left out.

    Args:
        arguments: Of the builder.
        weights: Arrays by path, e.g. "gru_0/gru_cell/kernel".

    Raises:
        ValueError: If a weight is missing.

    Reference:
        Werbos (1990), "Backpropagation through time: what it does and how to do it".
    """

    def __init__(self, arguments: dict[str, Any], weights: dict[str, np.ndarray]):
        cell = arguments.get("cell", "gru")
        layers: dict[str, dict[str, np.ndarray]] = {}
        for path, values in weights.items():
            layers.setdefault(path.split("/")[0], {})[path.rsplit("/", 1)[1]] = np.asarray(values, dtype="float32")
        try:
            self.embeddings = layers["embedding"]["embeddings"]
            self._recurrent = [layers[f"{cell}_{i}"] for i in range(arguments.get("num_layers", 1))]
            self._kernel, self._bias = layers["logits"]["kernel"], layers["logits"]["bias"]
        except KeyError as error:
            raise ValueError(f"The weights of a text classifier lack {error}. Copy the folder again.") from error
        self._forward, self._backward = _CELLS[cell]

    @single_blas_thread()
    def logits(self, vectors: np.ndarray) -> np.ndarray:
        """Return the logits for token vectors, shape (batch, time, size) -> (batch, num_classes); all rows have the same length."""
        return np.concatenate([self._pooled(part)[0] @ self._kernel + self._bias for part in _parts(vectors)])

    @single_blas_thread()
    def gradient(self, vectors: np.ndarray, direction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return logits @ direction and its gradient at the token vectors.

        Args:
            vectors: Float32, shape (batch, time, size).
            direction: How much each class counts, shape (num_classes,).

        Returns:
            Values, shape (batch,), and gradients, shape (batch, time, size).
        """
        values, gradients = [], []
        for part in _parts(vectors):
            pooled, highest, kept = self._pooled(part)
            values.append((pooled @ self._kernel + self._bias) @ direction)
            d_mean, d_max, d_last = np.split(np.tile(self._kernel @ direction, (len(part), 1)).astype("float32"), 3, axis=1)
            time = part.shape[1]
            d_states = np.repeat(d_mean[None] / time, time, axis=0)  # time first, as in the forward pass
            rows, units = np.indices(highest.shape)
            d_states[highest, rows, units] += d_max
            d_states[-1] += d_last
            for layer, steps in zip(reversed(self._recurrent), reversed(kept), strict=True):
                d_states = self._backward(layer, steps, d_states)
            gradients.append(d_states.swapaxes(0, 1))
        return np.concatenate(values), np.concatenate(gradients)

    def _pooled(self, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[Any]]:
        """Return the pooled states, where each unit was highest, and what the backward pass needs of each layer."""
        x, kept = vectors.astype("float32").swapaxes(0, 1), []
        for layer in self._recurrent:
            x, steps = self._forward(layer, x)
            kept.append(steps)
        highest = x.argmax(axis=0)
        largest = np.take_along_axis(x, highest[None], axis=0)[0]
        return np.concatenate([x.mean(axis=0), largest, x[-1]], axis=1), highest, kept


def _parts(vectors: np.ndarray) -> list[np.ndarray]:
    size = max(1, _CHUNK // vectors.shape[1])
    return [vectors[start : start + size] for start in range(0, len(vectors), size)]


def _gru_forward(layer: dict[str, np.ndarray], x: np.ndarray) -> tuple[np.ndarray, list]:
    """Run a GRU over (time, batch, features); returns the states of all steps, and for each: before, gates, candidate, recurrent."""
    recurrent_kernel, bias = layer["recurrent_kernel"], layer["bias"]
    units = len(recurrent_kernel)
    entering = x @ layer["kernel"] + bias[0]
    states, steps = np.empty((*x.shape[:2], units), "float32"), []
    state = np.zeros((x.shape[1], units), "float32")
    for time, entered in enumerate(entering):
        recurrent = state @ recurrent_kernel + bias[1]
        gates = _sigmoid(entered[:, : 2 * units] + recurrent[:, : 2 * units])
        update, reset = gates[:, :units], gates[:, units:]
        candidate = np.tanh(entered[:, 2 * units :] + reset * recurrent[:, 2 * units :])
        steps.append((state, update, reset, candidate, recurrent[:, 2 * units :]))
        state = states[time] = candidate + update * (state - candidate)
    return states, steps


def _gru_backward(layer: dict[str, np.ndarray], steps: list, d_states: np.ndarray) -> np.ndarray:
    kernel, recurrent_kernel = layer["kernel"].T, layer["recurrent_kernel"].T
    d_before, d_entering = 0.0, np.empty((*d_states.shape[:2], kernel.shape[0]), "float32")
    for time in reversed(range(len(steps))):
        before, update, reset, candidate, recurrent = steps[time]
        d_state = d_states[time] + d_before
        d_candidate = d_state * (1 - update) * (1 - candidate**2)
        d_update = d_state * (before - candidate) * update * (1 - update)
        d_reset = d_candidate * recurrent * reset * (1 - reset)
        d_entering[time] = np.concatenate([d_update, d_reset, d_candidate], axis=1)
        d_before = d_state * update + np.concatenate([d_update, d_reset, d_candidate * reset], axis=1) @ recurrent_kernel
    return d_entering @ kernel


def _lstm_forward(layer: dict[str, np.ndarray], x: np.ndarray) -> tuple[np.ndarray, list]:
    """Run an LSTM (blocks: input gate, forget gate, candidate, output gate); as `_gru_forward`."""
    recurrent_kernel = layer["recurrent_kernel"]
    units = len(recurrent_kernel)
    entering = x @ layer["kernel"] + layer["bias"]
    states, steps = np.empty((*x.shape[:2], units), "float32"), []
    state = memory = np.zeros((x.shape[1], units), "float32")
    for time, entered in enumerate(entering):
        total = entered + state @ recurrent_kernel
        entry, kept, _, shown = (_sigmoid(block) for block in np.split(total, 4, axis=1))
        candidate = np.tanh(total[:, 2 * units : 3 * units])
        before, memory = memory, kept * memory + entry * candidate
        squashed = np.tanh(memory)
        steps.append((before, entry, kept, candidate, shown, squashed))
        state = states[time] = shown * squashed
    return states, steps


def _lstm_backward(layer: dict[str, np.ndarray], steps: list, d_states: np.ndarray) -> np.ndarray:
    kernel, recurrent_kernel = layer["kernel"].T, layer["recurrent_kernel"].T
    d_before, d_memory, d_entering = 0.0, 0.0, np.empty((*d_states.shape[:2], kernel.shape[0]), "float32")
    for time in reversed(range(len(steps))):
        before, entry, kept, candidate, shown, squashed = steps[time]
        d_state = d_states[time] + d_before
        d_memory = d_memory + d_state * shown * (1 - squashed**2)
        d_entry, d_kept = d_memory * candidate * entry * (1 - entry), d_memory * before * kept * (1 - kept)
        d_candidate, d_shown = d_memory * entry * (1 - candidate**2), d_state * squashed * shown * (1 - shown)
        d_entering[time] = np.concatenate([d_entry, d_kept, d_candidate, d_shown], axis=1)
        d_before, d_memory = d_entering[time] @ recurrent_kernel, d_memory * kept
    return d_entering @ kernel


def _rnn_forward(layer: dict[str, np.ndarray], x: np.ndarray) -> tuple[np.ndarray, list]:
    entering = x @ layer["kernel"] + layer["bias"]
    states, state = np.empty((*x.shape[:2], len(layer["recurrent_kernel"])), "float32"), 0.0
    for time, entered in enumerate(entering):
        state = states[time] = np.tanh(entered + (state @ layer["recurrent_kernel"] if time else 0.0))
    return states, list(states)


def _rnn_backward(layer: dict[str, np.ndarray], steps: list, d_states: np.ndarray) -> np.ndarray:
    kernel, recurrent_kernel = layer["kernel"].T, layer["recurrent_kernel"].T
    d_before, d_entering = 0.0, np.empty_like(d_states)
    for time in reversed(range(len(steps))):
        d_entering[time] = (d_states[time] + d_before) * (1 - steps[time] ** 2)
        d_before = d_entering[time] @ recurrent_kernel
    return d_entering @ kernel


_CELLS: dict[str, tuple[Callable, Callable]] = {
    "gru": (_gru_forward, _gru_backward),
    "lstm": (_lstm_forward, _lstm_backward),
    "rnn": (_rnn_forward, _rnn_backward),
}


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 + 0.5 * np.tanh(0.5 * x)
