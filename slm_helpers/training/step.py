"""One compiled training step, whatever a batch holds."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from slm_helpers._backend import keras
from slm_helpers._processor import faster_precision
from slm_helpers.models.layers import FLOAT32
from slm_helpers.models.rows import quiet_retracing
from slm_helpers.training.config import TrainConfig
from slm_helpers.training.optimizers import make_optimizer

ops = keras.ops


class CompiledStep(keras.Model):
    """The arrays of a batch -> mean loss, compiled with the optimiser of `config`. What the arrays are, a subclass says in `call`."""

    carried: tuple = ()  # variables that pass from batch to batch and belong to a checkpoint

    def __init__(self, model: keras.Model, config: TrainConfig, optimizer: keras.optimizers.Optimizer | None = None):
        super().__init__(name="compiled_step")
        self.network = model
        self.policy = keras.DTypePolicy("mixed_bfloat16" if computes_in_bfloat16(config) else "float32")
        self.smoothing = config.label_smoothing
        self.built = True
        # XLA compiles the loop over time for minutes on the CPU and gains nothing with TensorFlow; JAX runs on nothing else.
        self.compile(optimizer or make_optimizer(config, model), jit_compile=keras.backend.backend() == "jax")
        self.optimizer.build(model.trainable_variables)

    def compute_loss(self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True) -> Any:
        """Return what `call` returned: the loss."""
        return y_pred

    def start_epoch(self, epoch: int) -> None:
        """Prepare for an epoch (from 0)."""

    def train(self, *batch: Any) -> float:
        """Update the weights; returns the loss before the update."""
        return self._run(self.train_on_batch, batch)

    def measure(self, *batch: Any) -> float:
        """Return the loss without dropout or label smoothing."""
        return self._run(self.test_on_batch, batch)

    def _run(self, on_batch: Callable[[list], Any], batch: tuple) -> float:
        self.reset_metrics()  # else Keras returns the mean over all steps so far
        with quiet_retracing():
            return float(on_batch(list(batch)))


def computes_in_bfloat16(config: TrainConfig) -> bool:
    """Return whether the large products are made in bfloat16."""
    return (faster_precision() if config.precision == "auto" else config.precision) == "bfloat16"


@contextmanager
def computing_in(network: keras.Model, policy: keras.DTypePolicy) -> Iterator[None]:
    """Let a network compute in another precision while a step is traced. Weights, and layers with dtype=FLOAT32, stay float32."""
    before = [(layer, layer.dtype_policy) for layer in network.layers if layer.dtype_policy is not FLOAT32]
    try:
        for layer, _ in before:
            layer.dtype_policy = policy
        yield
    finally:
        for layer, own in before:
            layer.dtype_policy = own
