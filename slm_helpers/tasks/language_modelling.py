"""Write in the manner of some texts: fine-tune a language model on them, for `slm generate`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from slm_helpers.metrics.intervals import ratio_interval
from slm_helpers.tasks.base import Evaluation, Task, starting_tokenizer
from slm_helpers.text.tokenizers import Tokenizer
from slm_helpers.training.config import TrainConfig

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from slm_helpers._backend import keras
    from slm_helpers.models.saved import SavedModel

SCRATCH = {"embedding_dim": 192, "units": 192, "dropout": 0.5}  # size of a network without a base, as page 03 found it
_LEAST_WINDOW = 8  # tokens
_LEAST_STEPS = 24  # of an epoch; with fewer the batch is made smaller


class LanguageModel(Task):
    """A language model fine-tuned on texts, read one after the other with an <end> after each.

    With little text the batches are made smaller, so that there are enough of them, and the window so that the text fills it, unless
    they are given.

    Args:
        base: A language model to start from (folder, name, SavedModel, fitted estimator); None starts from random weights.
        epochs: Passes over train at most; None: 3 with a base, 20 without.
        batch_size: Windows in an update; None: 8 with a base, 16 without.
        learning_rate: The highest; None: 0.001 with a base, 0.008 without.
        max_seconds: End the training after this time; None: no limit.
        tokenizer: Without a base, its vocabulary; None: learned from the training texts.
        config: Other settings of the training.
        seed: Of order, dropout and weights.

    Example:
        >>> model = LanguageModel(base=None, epochs=1).fit(["Dear diary, the day was fine and so was I."] * 20)
        >>> len(model.generate("Dear", max_tokens=5))
        1
    """

    task = "lm"
    columns = ("text",)
    predict_columns = ("text",)
    limits = "It writes in the manner of its texts and knows nothing beyond them; passages of them may come back word for word."
    no_predict = (
        "It writes texts and adds no column to a file. Use slm generate --model {folder} --prompt TEXT, or slm score for a text's bits."
    )
    # States carried on: what a text begins with may matter to its end.
    default_config = TrainConfig(
        epochs=3, batch_size=8, window=64, learning_rate=1e-3, schedule="linear", warmup_steps=10, patience=2, carry_state=True,
        precision="auto",
    )  # fmt: skip
    scratch_config = TrainConfig(epochs=20, batch_size=16, window=32, learning_rate=8e-3)

    def __init__(
        self,
        base: str | Path | SavedModel | Task | None = "slm-base-en",
        *,
        epochs: int | None = None,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        max_seconds: float | None = None,
        tokenizer: Tokenizer | None = None,
        config: TrainConfig | None = None,
        seed: int = 42,
    ):
        self.base = base
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.max_seconds = max_seconds
        self.tokenizer = tokenizer
        self.config = config
        self.seed = seed

    def check_frame(self, frame: pd.DataFrame) -> None:
        """Raise ValueError if there is no row to learn from."""
        if not (frame["split"] == "train").any():
            raise ValueError("There is no row of the split train, so there is nothing to learn from.")

    def evaluate_frame(self, frame: pd.DataFrame) -> Evaluation:
        """Score the model on texts.

        Returns:
            bits_per_byte, bits_per_char and perplexity (per token of this model's vocabulary) with 95 % intervals over texts. Every
            token of a text counts, as in `slm score`; each text is read as a new document.
        """
        from slm_helpers.generation.generator import TextGenerator

        texts = frame["text"].tolist()
        saved = self._fitted()
        losses = TextGenerator(saved.model, saved.tokenizer).text_losses(texts)
        nats = np.array([part.sum(dtype="float64") for part in losses])
        sizes: dict[str, tuple[list[int], Callable]] = {
            "bits_per_byte": ([len(text.encode()) for text in texts], lambda nats: nats / np.log(2)),
            "bits_per_char": ([len(text) for text in texts], lambda nats: nats / np.log(2)),
            "perplexity": ([len(part) for part in losses], np.exp),
        }
        rows = [(name, *(float(of(value)) for value in ratio_interval(nats, size))) for name, (size, of) in sizes.items()]
        return Evaluation(rows=len(texts), metrics=pd.DataFrame(rows, columns=["metric", "value", "ci_low", "ci_high"]))

    def score(self, X: Any, y: Any = None) -> float:
        """Return the negative bits per byte: higher is better, as scikit-learn expects."""
        return -super().score(X, y)

    def generate(self, prompt: str, **options: Any) -> list[str]:
        """Return texts that continue a prompt; the options are those of `TextGenerator.generate`."""
        from slm_helpers.generation.generator import TextGenerator

        saved = self._fitted()
        return TextGenerator(saved.model, saved.tokenizer).generate(prompt, **options).samples

    def predict_rows(self, rows: Sequence[dict[str, Any]]) -> NoReturn:
        """Raise: a language model writes texts and has no one prediction for a row."""
        raise ValueError("A language model has no prediction for a row. Use generate(prompt) to write and evaluate(texts) to score.")

    def _train(
        self,
        frame: pd.DataFrame,
        *,
        base: SavedModel | None,
        config: TrainConfig,
        keep_valid: bool,
        checkpoint_dir: str | Path | None,
        callbacks: Sequence[Any],
    ) -> tuple[SavedModel, pd.DataFrame]:
        from slm_helpers.models.saved import SavedModel
        from slm_helpers.training.streams import fit_model

        texts = {split: rows["text"].tolist() for split, rows in frame.groupby("split")}
        tokenizer = self.tokenizer if self.tokenizer is not None and base is None else starting_tokenizer(base, texts["train"])
        ids = {split: tokenizer.encode_documents(rows) for split, rows in texts.items()}
        config = self._for_little_text(ids, config)
        model = self._build(base, tokenizer.vocab_size)
        history = fit_model(model, ids["train"], ids.get("valid"), config=config, checkpoint_dir=checkpoint_dir, callbacks=callbacks)
        return SavedModel(model=model, tokenizer=tokenizer, task="lm"), history

    def _build(self, base: SavedModel | None, vocab_size: int) -> keras.Model:
        from slm_helpers.models.language_model import build_language_model
        from slm_helpers.models.registry import BUILDERS

        if base is None:
            return build_language_model(vocab_size, **SCRATCH)
        recipe = json.loads(base.model.builder_config)
        model = BUILDERS[recipe["builder"]](**recipe["arguments"])
        model.set_weights(base.model.get_weights())
        return model

    def _for_little_text(self, ids: dict[str, np.ndarray], config: TrainConfig) -> TrainConfig:
        """Return the settings with a window that the texts fill and a batch that leaves some steps to an epoch, unless they are given."""
        room = {"train": (len(ids["train"]) - 1) // 2} | ({"valid": len(ids["valid"]) - 1} if "valid" in ids else {})
        for split, most in room.items():
            if most < min(_LEAST_WINDOW, config.window):
                purpose = "learn from" if split == "train" else "judge by"
                raise ValueError(
                    f"The split {split} has {len(ids[split])} tokens, which is too little text to {purpose}. Give more or longer texts."
                )
        window = config.window if self.is_given("window") else min(config.window, *room.values())
        num_windows = len(ids["train"]) // window
        batch_size = config.batch_size if self.is_given("batch_size") else max(1, min(config.batch_size, num_windows // _LEAST_STEPS))
        config = replace(config, window=window, batch_size=batch_size)
        if self.is_given("warmup_steps") or self.is_given("warmup_share"):
            return config
        return replace(config, warmup_steps=min(config.warmup_steps, config.epochs * num_windows // batch_size // 5))
