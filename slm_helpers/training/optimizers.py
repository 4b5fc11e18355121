"""Optimisers: SGD, Adam, Muon by blocks, Adam with a rate per layer."""

from typing import Any

from slm_helpers._backend import keras
from slm_helpers._processor import has_bfloat16
from slm_helpers.training.config import TrainConfig

import numpy as np

ops = keras.ops


def make_optimizer(config: TrainConfig) -> keras.optimizers.Optimizer:
    """Return the optimiser that `config` names."""
    rate, norm = float(config.learning_rate), float(config.max_gradient_norm)  # Keras refuses whole numbers
    decay = float(config.weight_decay)
    return {
        "sgd": lambda: keras.optimizers.SGD(rate, global_clipnorm=norm),
        "momentum": lambda: keras.optimizers.SGD(rate, momentum=0.9, nesterov=True, global_clipnorm=norm),
        "adam": lambda: keras.optimizers.Adam(rate, global_clipnorm=norm),
        "adamw": lambda: keras.optimizers.AdamW(rate, weight_decay=decay, global_clipnorm=norm),
        "muon": lambda: BlockMuon(rate, name="muon", weight_decay=decay, adam_weight_decay=decay, global_clipnorm=norm),
    }[config.optimizer]()


class BlockMuon(keras.optimizers.Muon):
    """Muon (Jordan et al. 2024) that treats each gate of a recurrent layer as a matrix of its own."""

    def _muon_update_step(self, gradient: Any, variable: Any, lr: Any, m: Any) -> None:
        self.assign_add(m, gradient + m * (self.momentum - 1))
        rows, columns = variable.shape
        blocks = next((gates for cell, gates in (("gru", 3), ("lstm", 4), ("qkv", 3)) if cell in m.path), 1)
        g = ops.transpose(ops.reshape(gradient + self.momentum * m, (rows, blocks, columns // blocks)), (1, 0, 2))
        g = g / (ops.norm(g, axis=(-2, -1), keepdims=True) + 1e-7)
        g = ops.cast(g, "bfloat16") if has_bfloat16() else g
        update = ops.cast(self.zeropower_via_newtonschulz5(g, self.ns_steps), "float32")
        update = ops.reshape(ops.transpose(update, (1, 0, 2)), (rows, columns))
        self.assign_sub(variable, lr * update * (max(rows, columns // blocks) ** 0.5 * self.rms_rate))


class LayerAdam(keras.optimizers.Adam):
    """Adam with a factor on the learning rate of each weight, 0 for a frozen one.

    Scaling the gradient would do nothing: Adam divides it by its own size. The factors are variables, so that a layer thaws
    without a new compilation. Frozen weights keep their running means, but do not count in the norm that is clipped.
    """

    def __init__(self, max_gradient_norm: float):
        super().__init__(1e-3, name="layer_adam")
        self.max_gradient_norm = max_gradient_norm

    def build(self, variables: list) -> None:
        """Remember the paths of the variables."""
        super().build(variables)
        self.paths = [variable.path for variable in variables]
        self.factors = self.add_variable(shape=(len(variables),), initializer="ones", name="factors")

    def set_factors(self, by_layer: dict[str, float]) -> None:
        """Set the factor of each layer's weights."""
        self.factors.assign(np.array([by_layer[path.split("/")[0]] for path in self.paths], dtype="float32"))

    def _clip_gradients(self, grads: list) -> list:
        grads = [ops.convert_to_tensor(g, sparse=False) for g in grads]  # the embedding's comes as rows, some of them twice
        live = ops.cast(self.factors > 0, "float32")
        norm = ops.sqrt(sum(live[i] * ops.sum(ops.square(g)) for i, g in enumerate(grads)))
        scale = ops.minimum(1.0, self.max_gradient_norm / ops.maximum(norm, 1e-12))
        return [g * scale for g in grads]

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update one variable at its own rate."""
        super().update_step(gradient, variable, learning_rate * self.factors[self._get_variable_index(variable)])
