"""A recurrent language model run by Keras' compiled program, for networks that have no NumPy form."""

from slm_helpers._backend import keras
from slm_helpers.models.language_model import make_stateful_model, recurrent_layers, zero_states

import numpy as np

States = list[np.ndarray]


class CompiledRuntime:
    """The methods of `slm_helpers.generation.runtime.Runtime` through the compiled Keras model, for layers
    that have no NumPy form; its features are the logits."""

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
