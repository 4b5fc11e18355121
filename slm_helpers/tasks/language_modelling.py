"""Write in the manner of some texts: fine-tune a language model on them. From a column of texts to a model for `slm generate`."""

import json
from collections.abc import Callable
from dataclasses import replace

from slm_helpers._backend import keras
from slm_helpers.generation.generator import TextGenerator
from slm_helpers.metrics.intervals import ratio_interval
from slm_helpers.models.language_model import build_language_model
from slm_helpers.models.registry import BUILDERS
from slm_helpers.models.saved import SavedModel
from slm_helpers.tasks.base import Evaluation, starting_tokenizer
from slm_helpers.text.tokenizers import Tokenizer
from slm_helpers.training.config import TrainConfig
from slm_helpers.training.streams import fit_model

import numpy as np
import pandas as pd

COLUMNS = ("text",)
PREDICT_COLUMNS = ("text",)
NO_PREDICT = (
    "It writes texts and adds no column to a file. Use slm generate --model {folder} --prompt TEXT, or slm score for a text's bits."
)
LIMITS = "It writes in the manner of its texts and knows nothing beyond them; passages of them may come back word for word."
# States carried on: what a text begins with may matter to its end.
DEFAULT = TrainConfig(
    epochs=3, batch_size=8, window=64, learning_rate=1e-3, schedule="linear", warmup_steps=10, patience=2, carry_state=True,
    precision="auto",
)  # fmt: skip
SCRATCH = {"embedding_dim": 192, "units": 192, "dropout": 0.5}  # size of a network without a base, as page 03 found it
SCRATCH_CONFIG = TrainConfig(epochs=20, batch_size=16, window=32, learning_rate=8e-3)  # of such a network, before DEFAULT
_LEAST_WINDOW = 8  # tokens
_LEAST_STEPS = 24  # of an epoch; with fewer the batch is made smaller


def train(
    frame: pd.DataFrame, *, base: SavedModel | None, config: TrainConfig = TrainConfig(), tokenizer: Tokenizer | None = None
) -> tuple[SavedModel, pd.DataFrame]:
    """Fine-tune a language model on the columns text and split.

    Args:
        frame: From `load_dataset`; the split valid, if there, chooses the epoch. Texts are read one after the other, in the order of
            the rows, with an <end> after each.
        base: A language model to start from, which stays as it is; None starts from random weights.
        config: Settings of the training. What it leaves open is that of DEFAULT, and without a base of SCRATCH_CONFIG. With
            little text the batches are made smaller, so that there are enough of them, and the window so that the text fills it.
        tokenizer: Without a base, its vocabulary; learned from the training texts unless given.

    Returns:
        The model with its tokeniser, and the history of its training as `fit_model` returns it.

    Raises:
        ValueError: If train or valid has too little text.
    """
    texts = {split: rows["text"].tolist() for split, rows in frame.groupby("split") if split in ("train", "valid")}
    if "train" not in texts:
        raise ValueError("There is no row of the split train, so there is nothing to learn from.")
    keras.utils.set_random_seed(config.seed)
    tokenizer = tokenizer if tokenizer is not None and base is None else starting_tokenizer(base, texts["train"])
    if base is None:
        model = build_language_model(tokenizer.vocab_size, **SCRATCH)
        config = config.with_defaults(SCRATCH_CONFIG)
    else:
        recipe = json.loads(base.model.builder_config)
        model = BUILDERS[recipe["builder"]](**recipe["arguments"])
        model.set_weights(base.model.get_weights())
    ids = {split: tokenizer.encode_documents(rows) for split, rows in texts.items()}
    config = _for_little_text(ids, config)
    history = fit_model(model, ids["train"], ids.get("valid"), config=config)
    return SavedModel(model=model, tokenizer=tokenizer, task="lm"), history


def evaluate(saved: SavedModel, frame: pd.DataFrame) -> Evaluation:
    """Score a language model on the column text.

    Returns:
        bits_per_byte, bits_per_char and perplexity (per token of this model's vocabulary) with 95 % intervals over texts. Every token
        of a text counts, as in `slm score`; each text is read as a new document.
    """
    texts = frame["text"].tolist()
    losses = TextGenerator(saved.model, saved.tokenizer).text_losses(texts)
    nats = np.array([part.sum(dtype="float64") for part in losses])
    sizes: dict[str, tuple[list[int], Callable]] = {
        "bits_per_byte": ([len(text.encode()) for text in texts], lambda nats: nats / np.log(2)),
        "bits_per_char": ([len(text) for text in texts], lambda nats: nats / np.log(2)),
        "perplexity": ([len(part) for part in losses], np.exp),
    }
    rows = [(name, *(float(of(value)) for value in ratio_interval(nats, size))) for name, (size, of) in sizes.items()]
    return Evaluation(rows=len(texts), metrics=pd.DataFrame(rows, columns=["metric", "value", "ci_low", "ci_high"]))


def _for_little_text(ids: dict[str, np.ndarray], given: TrainConfig) -> TrainConfig:
    """Return all settings; where they are not given, the window is one that the texts fill, and the batch leaves steps to an epoch."""
    config = given.with_defaults(DEFAULT)
    room = {"train": (len(ids["train"]) - 1) // 2} | ({"valid": len(ids["valid"]) - 1} if "valid" in ids else {})
    for split, most in room.items():
        if most < min(_LEAST_WINDOW, config.window):
            purpose = "learn from" if split == "train" else "judge by"
            raise ValueError(
                f"The split {split} has {len(ids[split])} tokens, which is too little text to {purpose}. Give more or longer texts."
            )
    window = given.window or min(config.window, *room.values())
    num_windows = len(ids["train"]) // window
    batch_size = given.batch_size or max(1, min(config.batch_size, num_windows // _LEAST_STEPS))
    if (given.warmup_steps, given.warmup_share) == (None, None):
        config = replace(config, warmup_steps=min(config.warmup_steps, config.epochs * num_windows // batch_size // 5))
    return replace(config, window=window, batch_size=batch_size)
