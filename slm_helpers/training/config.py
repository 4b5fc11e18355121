"""The settings of a training run and the learning rate of each step."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from slm_helpers._checks import check_choice, check_positive, check_share

OPTIMIZERS = ("sgd", "momentum", "adam", "adamw", "muon")


SCHEDULES = ("constant", "linear", "cosine", "warmup_stable_decay")


PRECISIONS = ("auto", "float32", "bfloat16")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Settings of one training run, of a language model or of any task.

    None stands for "choose for me": the task or the function that trains fills it in, see `with_defaults`. A setting that is given
    is kept, also when it equals a default.
    """

    epochs: int | None = None
    batch_size: int | None = None  # windows, rows or pairs
    window: int | None = None  # tokens; of a language model on a stream
    optimizer: str | None = None  # one of OPTIMIZERS; momentum is SGD with Nesterov momentum 0.9; rows are trained with adam
    learning_rate: float | None = None  # the highest of the schedule, and of the head where layers have rates of their own
    schedule: str | None = None  # one of SCHEDULES, from the highest rate to a hundredth of it
    decay_share: float = 0.2  # of all steps, the last ones: over these warmup_stable_decay falls linearly
    warmup_steps: int | None = None  # the rate climbs to its highest over these steps; or give warmup_share
    warmup_share: float | None = None  # of all steps, in place of warmup_steps
    weight_decay: float | None = None  # adamw and muon, per step and times the learning rate
    adam_share: float = 1.0  # muon: the rate of embeddings, output layers and biases, which Adam updates, as a share of learning_rate
    muon_columns: int = 0  # muon: columns of a gate that are made orthogonal together; 0: all of it. Fewer take less time
    max_gradient_norm: float | None = None  # over all weights that learn together (Pascanu et al. 2013)
    label_smoothing: float | None = None  # share of each target that is spread over the vocabulary; losses on valid are without
    layer_decay: float | None = None  # rows: each layer learns at this times the rate of the layer above (Howard and Ruder 2018: 1 / 2.6)
    frozen: tuple[str, ...] = ()  # rows: names of layers that keep their weights, see `layer_names`
    unfreeze_epochs: int = 0  # rows: gradual unfreezing: the head alone for so many epochs, then the layer below it too, and so on
    class_weight: str | None = None  # rows: "balanced": every class has the same weight in the loss, however many rows it has
    eval_steps: int = 0  # steps between evaluations on valid; 0: once an epoch
    patience: int | None = None  # evaluations without a better loss before stopping; 0: never stop early
    max_seconds: float = 0.0  # stop (and finish the schedule) after this time; 0: no limit. Such a run is not repeatable.
    carry_state: bool | None = None  # streams: each window starts from the state at the end of the one before, see StreamBatches
    shuffle_documents: bool = False  # streams with carry_state: documents in a new order each epoch, see DocumentStreams
    precision: str | None = None  # one of PRECISIONS, of the large products; auto: what is faster on this machine
    ema_decay: float = 0.0  # e.g. 0.999, of a running average of the weights that is evaluated and kept, see RunningAverage; 0: none
    seed: int = 42  # of order and dropout

    def __post_init__(self) -> None:
        """Check every setting where it enters."""
        given = {field.name: value for field in fields(self) if (value := getattr(self, field.name)) is not None}
        check_positive(**{name: given[name] for name in ("epochs", "batch_size", "window") if name in given})
        choices = {"optimizer": OPTIMIZERS, "schedule": SCHEDULES, "precision": PRECISIONS, "class_weight": ("balanced",)}
        for name, names in choices.items():
            check_choice(names, **{name: given.get(name, names[0])})
        check_share(**{name: given.get(name, 0.0) for name in ("weight_decay", "label_smoothing", "ema_decay")})
        for name in ("learning_rate", "max_gradient_norm", "layer_decay", "decay_share", "adam_share"):
            if not given.get(name, 1.0) > 0:
                raise ValueError(f"{name} is {given[name]}, but must be above 0, e.g. {name}=0.001.")
        for name in ("warmup_steps", "eval_steps", "patience", "max_seconds", "unfreeze_epochs", "muon_columns"):
            if given.get(name, 0) < 0:
                raise ValueError(f"{name} is {given[name]}, but must be 0 or more.")
        for name in ("warmup_share", "decay_share"):
            if not 0 <= given.get(name, 0) <= 1:
                raise ValueError(f"{name} is {given[name]}, but must lie in [0, 1].")
        if self.warmup_steps is not None and self.warmup_share is not None:
            raise ValueError("warmup_steps and warmup_share are both given, but one says it. Leave one of them None.")
        if self.shuffle_documents and self.carry_state is False:
            raise ValueError("shuffle_documents is True, but carry_state is False, so windows are shuffled anyway. Leave one out.")
        if isinstance(self.frozen, str):
            raise ValueError(f'frozen is {self.frozen!r}, but must be a tuple of layer names, e.g. frozen=("embedding",).')

    def with_defaults(self, defaults: "TrainConfig") -> "TrainConfig":
        """Return the settings in which each None is replaced by the value of `defaults`.

        Example:
            >>> TrainConfig(epochs=3).with_defaults(TrainConfig(epochs=20, batch_size=8)).epochs
            3
        """
        missing = {field.name for field in fields(self) if getattr(self, field.name) is None}
        if not {"warmup_steps", "warmup_share"} <= missing:
            missing -= {"warmup_steps", "warmup_share"}
        return replace(self, **{name: getattr(defaults, name) for name in missing})

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> "TrainConfig":
        """Return the settings of a saved model or checkpoint, also of one written before settings were renamed."""
        old = dict(settings)
        if old.get("schedule") == "trapezoid":
            old["schedule"] = "warmup_stable_decay"
        if old.pop("balanced", False):
            old["class_weight"] = "balanced"
        return cls(**old | {"frozen": tuple(old.get("frozen", ()))})


STREAM_DEFAULTS = TrainConfig(
    epochs=5, batch_size=64, window=64, optimizer="adam", learning_rate=2e-3, schedule="cosine", warmup_steps=0, weight_decay=0.0,
    max_gradient_norm=1.0, label_smoothing=0.0, layer_decay=1.0, patience=0, carry_state=False, precision="float32",
)  # fmt: skip


ROW_DEFAULTS = TrainConfig(
    epochs=6, batch_size=32, learning_rate=1e-3, schedule="linear", warmup_share=0.1, precision="auto"
).with_defaults(STREAM_DEFAULTS)  # fmt: skip


def check_unused(config: TrainConfig, function: str, *names: str) -> None:
    """Raise ValueError for the first of these settings that is given: `function` would not follow it."""
    for name in names:
        value, neutral = getattr(config, name), 1.0 if name == "layer_decay" else 0
        if value not in (None, neutral, ()):
            raise ValueError(f"{name} is {value!r}, but {function} has no such setting. Leave it out.")


def warmup_steps_of(config: TrainConfig, num_steps: int) -> int:
    """Return over how many of the steps the learning rate climbs."""
    return config.warmup_steps if config.warmup_share is None else round(config.warmup_share * num_steps)


def learning_rate_at(config: TrainConfig, step: int, num_steps: int, *, time_share: float = 0.0) -> float:
    """Return the learning rate of a step (from 0) of `num_steps`; `time_share`: of max_seconds that has passed.

    Example:
        >>> learning_rate_at(TrainConfig(learning_rate=1.0, schedule="linear", warmup_steps=0), 50, 100)
        0.505
    """
    warmup = warmup_steps_of(config, num_steps)
    warm = min(1.0, (step + 1) / warmup) if warmup else 1.0
    left = 1 - min(1.0, max(step / num_steps, time_share))
    height = {
        "constant": 1.0,
        "linear": left,
        "cosine": 0.5 * (1 - math.cos(math.pi * left)),
        "warmup_stable_decay": min(1.0, left / config.decay_share),
    }[config.schedule]
    return config.learning_rate * warm * (0.01 + 0.99 * height)
