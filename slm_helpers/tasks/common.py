"""What the tasks share: the result of an evaluation, the vocabulary to start with."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from slm_helpers.models import SavedModel
from slm_helpers.tokenizers import Tokenizer, train_bpe_tokenizer

import pandas as pd

SCRATCH_VOCAB_SIZE = 4096


@dataclass(frozen=True)
class Evaluation:
    """Scores of a model on labelled rows."""

    rows: int
    metrics: pd.DataFrame  # metric, value, ci_low, ci_high (95 %)
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)  # what stands behind them, by name


def starting_tokenizer(base: SavedModel | None, texts: Iterable[str]) -> Tokenizer:
    """Return the tokeniser of the base, or without one a new byte-level BPE of the training texts."""
    return base.tokenizer if base is not None else train_bpe_tokenizer(texts, vocab_size=SCRATCH_VOCAB_SIZE)
