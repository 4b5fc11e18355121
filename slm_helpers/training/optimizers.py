"""Optimisers: SGD, Adam, Muon for each gate, Adam with a rate for each layer."""

from typing import Any

from slm_helpers._backend import keras
from slm_helpers._processor import faster_precision
from slm_helpers.models.layers import FLOAT32, CausalBlock
from slm_helpers.training.config import TrainConfig

import numpy as np

ops = keras.ops


def make_optimizer(config: TrainConfig, model: keras.Model) -> keras.optimizers.Optimizer:
    """Return the optimiser that `config` names, for the weights of `model`."""
    rate, decay = float(config.learning_rate), float(config.weight_decay)  # Keras refuses whole numbers
    shared = {"name": config.optimizer, "global_clipnorm": float(config.max_gradient_norm)} | averaging(config)
    return {
        "sgd": lambda: _SGD(rate, **shared),
        "momentum": lambda: _SGD(rate, momentum=0.9, nesterov=True, **shared),
        "adam": lambda: _Adam(rate, **shared),
        "adamw": lambda: _AdamW(rate, weight_decay=decay, **shared),
        "muon": lambda: BlockMuon(
            rate,
            num_blocks(model),
            columns=config.muon_columns,
            weight_decay=decay,
            adam_weight_decay=decay,
            adam_lr_ratio=float(config.adam_share),
            **shared,
        ),
    }[config.optimizer]()


def averaging(config: TrainConfig) -> dict[str, Any]:
    """Return the arguments of an optimiser that keep a running average of the weights, if `config` asks for one, see `RunningAverage`."""
    return {"use_ema": True, "ema_momentum": config.ema_decay} if config.ema_decay else {}


def num_blocks(model: keras.Model) -> dict[str, int]:
    """Return by path the matrices that map features to features, and how many gates stand side by side in each.

    Embeddings, output layers, biases and norms are not among them.

    Example:
        >>> from slm_helpers.models.language_model import build_language_model
        >>> num_blocks(build_language_model(9, cell="gru", embedding_dim=4, units=4))
        {'gru_0/gru_cell/kernel': 3, 'gru_0/gru_cell/recurrent_kernel': 3}
    """
    blocks: dict[str, int] = {}
    for layer in model.layers:
        if isinstance(layer, keras.layers.RNN):
            gates = 3 if isinstance(layer, keras.layers.GRU) else 4 if isinstance(layer, keras.layers.LSTM) else 1
            blocks |= {layer.cell.kernel.path: gates, layer.cell.recurrent_kernel.path: gates}
        elif isinstance(layer, CausalBlock):
            blocks |= {weight.path: 3 if name == "qkv" else 1 for name, weight in layer.products.items()}
        elif isinstance(layer, keras.layers.Dense) and layer.dtype_policy is not FLOAT32:
            blocks[layer.kernel.path] = 1
    return blocks


class RunningAverage:
    """What a Keras optimiser keeps as the running average of the weights, with a short memory at first.

    Put before the optimiser among the bases of a class. Keras starts from the weights of the first step, which are as good as random,
    and after 500 steps at 0.999 still has 61 % of them. Here n steps after the first the factor of the average is at most n / (n + 9).

    Reference:
        The option num_updates of `tf.train.ExponentialMovingAverage`.
    """

    def _update_model_variables_moving_average(self, trainable_variables: list) -> None:
        if not self.use_ema:
            return
        steps = ops.cast(self.iterations, "float32")  # 0 in the first, in which the average becomes the weights
        momentum = ops.minimum(self.ema_momentum, steps / (steps + 9))
        for variable, average in zip(trainable_variables, self._model_variables_moving_average, strict=True):
            average.assign(momentum * average + (1 - momentum) * variable)


class _SGD(RunningAverage, keras.optimizers.SGD): ...


class _Adam(RunningAverage, keras.optimizers.Adam): ...


class _AdamW(RunningAverage, keras.optimizers.AdamW): ...


class BlockMuon(RunningAverage, keras.optimizers.Muon):
    """Muon that treats each gate of a recurrent layer as a matrix of its own, or every few columns, and leaves all else to AdamW.

    Reference:
        Jordan et al. (2024), "Muon: An optimizer for hidden layers in neural networks".
    """

    def __init__(self, learning_rate: float, blocks: dict[str, int], *, columns: int = 0, **kwargs: Any):
        """Prepare the optimiser.

        Args:
            learning_rate: Of the matrices; `adam_lr_ratio` times it for all else.
            blocks: The paths of the matrices, and the number of gates in each, from `num_blocks`.
            columns: Columns that are made orthogonal together where they divide a gate; 0: whole gates. The time of a step grows
                with the cube of the size of a block.
            kwargs: Of `keras.optimizers.Muon`.
        """
        super().__init__(learning_rate, **kwargs)
        self.blocks, self.columns = blocks, columns
        self.product_dtype = faster_precision()  # here, since nothing can be measured while a step is traced

    def build(self, variables: list) -> None:
        """Note the gates of each variable."""
        super().build(variables)
        self.blocks_of = [self._count_blocks(variable) for variable in variables]

    def _count_blocks(self, variable: Any) -> int:
        gates = self.blocks.get(variable.path, 0)
        if gates and self.columns and (variable.shape[-1] // gates) % self.columns == 0:
            return variable.shape[-1] // self.columns
        return gates

    def _should_use_adamw(self, variable: Any) -> bool:
        return variable.path not in self.blocks

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update one variable."""
        index = self._get_variable_index(variable)
        if not self.blocks_of[index]:
            return super().update_step(gradient, variable, learning_rate)
        m, num = self.momentums[index], self.blocks_of[index]
        self.assign_add(m, gradient + m * (self.momentum - 1))
        rows, columns = variable.shape
        g = ops.transpose(ops.reshape(gradient + self.momentum * m, (rows, num, columns // num)), (1, 0, 2))
        g = g / (ops.norm(g, axis=(-2, -1), keepdims=True) + 1e-7)
        update = ops.cast(self.zeropower_via_newtonschulz5(ops.cast(g, self.product_dtype), self.ns_steps), "float32")
        update = ops.reshape(ops.transpose(update, (1, 0, 2)), (rows, columns))
        self.assign_sub(variable, learning_rate * update * (max(rows, columns // num) ** 0.5 * self.rms_rate))


class LayerAdam(RunningAverage, keras.optimizers.Adam):
    """Adam with a factor on the learning rate of each weight, 0 for a frozen one.

    Scaling the gradient would do nothing: Adam divides it by its own size. The factors are variables, so that a layer thaws
    without a new compilation. Frozen weights keep their running means, but do not count in the norm that is clipped.
    """

    def __init__(self, max_gradient_norm: float, **kwargs: Any):
        super().__init__(1e-3, name="layer_adam", **kwargs)
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
