"""A small training run of each kind. As a program it sends itself a signal after a step, for tests of how a run goes on:

python -m tests.training.resume_run KIND FOLDER SIGNAL STEP
"""

import os
import signal
import sys
from collections.abc import Sequence

from slm_helpers.models.classifiers import build_text_classifier
from slm_helpers.models.encoder_decoder import build_encoder_decoder
from slm_helpers.models.language_model import build_language_model
from slm_helpers.training.batches import Examples
from slm_helpers.training.config import TrainConfig
from slm_helpers.training.finetune import fit_examples
from slm_helpers.training.pairs import fit_pairs
from slm_helpers.training.streams import fit_model

import keras
import numpy as np
import pandas as pd

KINDS = ("stream", "rows", "pairs")
NUM_STEPS = {"stream": 27, "rows": 15, "pairs": 12}
CHECKPOINT_STEPS = 4


def run(
    kind: str, folder: str | None = None, *, callbacks: Sequence[keras.callbacks.Callback] = (), seed: int = 1
) -> tuple[keras.Model, pd.DataFrame]:
    """Return a trained model and its history; dropout, carried states, shuffled documents, thawing layers, averages: all of it goes on."""
    rng = np.random.default_rng(0)
    options = {"callbacks": callbacks, "checkpoint_dir": folder, "checkpoint_steps": CHECKPOINT_STEPS}
    shared = TrainConfig(epochs=3, batch_size=8, learning_rate=0.02, precision="float32")
    keras.utils.set_random_seed(seed)
    if kind == "stream":
        model = build_language_model(8, cell="rnn", embedding_dim=8, units=8, dropout=0.3)
        ids = rng.integers(2, 8, 300).astype("int32")  # 2 ends a document
        config = TrainConfig(
            window=4, optimizer="muon", carry_state=True, eval_steps=5, shuffle_documents=True, ema_decay=0.9
        ).with_defaults(shared)
        return model, fit_model(model, ids, ids[:60], config=config, **options)
    texts = [rng.integers(3, 12, rng.integers(1, 12)).astype("int32") for _ in range(40)]
    if kind == "rows":
        model = build_text_classifier(12, num_classes=2, cell="rnn", embedding_dim=6, units=8, dropout=0.3)
        rows = Examples({"token_ids": texts}, rng.integers(0, 2, 40))
        config = TrainConfig(unfreeze_epochs=1, layer_decay=0.5).with_defaults(shared)
        return model, fit_examples(model, rows, rows.subsample(3), config=config, **options)
    model = build_encoder_decoder(12, embedding_dim=6, encoder_units=5, units=8, dropout=0.2)
    pairs = texts, [np.append(text[::-1], 2).astype("int32") for text in texts]
    config = TrainConfig(batch_size=10, ema_decay=0.8).with_defaults(shared)
    return model, fit_pairs(model, pairs, config=config, start_id=2, **options)


class SendSignal(keras.callbacks.Callback):
    """Send this process a signal after some steps."""

    def __init__(self, number: int, after: int):
        super().__init__()
        self.number, self.left = number, after

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Count down."""
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), self.number)


if __name__ == "__main__":
    kind, folder, name, step = sys.argv[1:]
    run(kind, folder, callbacks=[SendSignal(getattr(signal, name), int(step))])
