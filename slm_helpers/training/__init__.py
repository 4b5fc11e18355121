"""A network and arrays to weights."""

from slm_helpers.training.config import FinetuneConfig, TrainConfig
from slm_helpers.training.finetune import fit_examples
from slm_helpers.training.loop import fit_model

__all__ = ["FinetuneConfig", "TrainConfig", "fit_examples", "fit_model"]
