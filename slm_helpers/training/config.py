"""Settings of training runs and their learning-rate schedules."""

import math
from dataclasses import dataclass

from slm_helpers._checks import check_choice, check_positive, check_share

OPTIMIZERS = ("sgd", "momentum", "adam", "adamw", "muon")


SCHEDULES = ("constant", "linear", "cosine", "trapezoid")


PRECISIONS = ("auto", "float32", "bfloat16")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Settings of one training run."""

    epochs: int = 5
    batch_size: int = 64  # windows
    window: int = 64  # tokens
    optimizer: str = "adam"  # one of OPTIMIZERS; momentum is SGD with Nesterov momentum 0.9
    learning_rate: float = 2e-3  # the highest of the schedule
    schedule: str = "cosine"  # one of SCHEDULES, from the highest rate to a hundredth of it; trapezoid: level, last fifth linear
    warmup_steps: int = 0  # the rate climbs to its highest over these steps
    weight_decay: float = 0.0  # adamw and muon, per step and times the learning rate
    max_gradient_norm: float = 1.0  # over all weights together (Pascanu et al. 2013)
    label_smoothing: float = 0.0  # share of each target that is spread over the vocabulary; losses on valid are counted without
    eval_steps: int = 0  # steps between looks at valid; 0: once an epoch
    patience: int = 0  # looks at valid without a better loss before stopping; 0: never stop early
    max_seconds: float = 0.0  # stop (and finish the schedule) after this time; 0: no limit. Such a run is not repeatable.
    carry_state: bool = False  # each window goes on from the state after the one before it in the text, see StreamBatches
    precision: str = "float32"  # one of PRECISIONS, of the large products; auto: bfloat16 where the processor multiplies in it
    seed: int = 42  # of the order of the windows

    def __post_init__(self) -> None:
        """Check every setting where it enters."""
        check_positive(epochs=self.epochs, batch_size=self.batch_size, window=self.window)
        check_choice(OPTIMIZERS, optimizer=self.optimizer)
        check_choice(SCHEDULES, schedule=self.schedule)
        check_choice(PRECISIONS, precision=self.precision)
        check_share(weight_decay=self.weight_decay, label_smoothing=self.label_smoothing)
        for name in ("learning_rate", "max_gradient_norm"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}, but must be above 0, e.g. {name}=0.001.")
        for name in ("warmup_steps", "eval_steps", "patience", "max_seconds"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}, but must be 0 or more.")


def learning_rate_at(config: TrainConfig, step: int, progress: float) -> float:
    """Return the learning rate of a step (from 0), given the share of training done.

    Example:
        >>> learning_rate_at(TrainConfig(learning_rate=1.0, schedule="linear"), 50, 0.5)
        0.505
    """
    warm = min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
    left = {
        "constant": 1.0,
        "linear": 1 - progress,
        "cosine": 0.5 * (1 + math.cos(math.pi * progress)),
        "trapezoid": min(1.0, 5 * (1 - progress)),
    }[config.schedule]
    return config.learning_rate * warm * (0.01 + 0.99 * left)


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """Settings of one fine-tuning run; the optimiser is Adam."""

    epochs: int = 6
    batch_size: int = 32  # texts
    learning_rate: float = 1e-3  # of the head, the highest of the schedule
    schedule: str = "linear"  # one of SCHEDULES, from the highest rate to a hundredth of it
    warmup_share: float = 0.1  # of all steps; the rate climbs to its highest over these
    layer_decay: float = 1.0  # each layer learns at this times the rate of the layer above it (Howard and Ruder 2018: 1 / 2.6)
    frozen: tuple[str, ...] = ()  # names of layers that stay as they are, see `layer_names`
    unfreeze_epochs: int = 0  # gradual unfreezing: the head alone for so many epochs, then the layer below it too, and so on
    balanced: bool = False  # every class counts alike in the loss, however many rows it has
    max_gradient_norm: float = 1.0  # over all weights that learn
    patience: int = 0  # epochs without a better loss on valid (at the best temperature) before stopping; 0: never stop early
    max_seconds: float = 0.0  # stop (and finish the schedule) after this time; 0: no limit. Such a run is not repeatable.
    precision: str = "auto"  # of the large products: "float32", "bfloat16", or auto: bfloat16 where the processor multiplies in it
    seed: int = 42  # of the order of the texts and of dropout

    def __post_init__(self) -> None:
        """Check every setting where it enters."""
        check_positive(epochs=self.epochs, batch_size=self.batch_size)
        check_choice(SCHEDULES, schedule=self.schedule)
        check_choice(PRECISIONS, precision=self.precision)
        if isinstance(self.frozen, str):
            raise ValueError(f'frozen is {self.frozen!r}, but must be a tuple of layer names, e.g. frozen=("embedding",).')
        for name in ("learning_rate", "max_gradient_norm", "layer_decay"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}, but must be above 0.")
        if not 0 <= self.warmup_share <= 1:
            raise ValueError(f"warmup_share is {self.warmup_share}, but must lie in [0, 1].")
        for name in ("unfreeze_epochs", "patience", "max_seconds"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}, but must be 0 or more.")
