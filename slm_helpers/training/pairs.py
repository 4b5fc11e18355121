"""Train an encoder-decoder on pairs of token sequences: batches of like length and of one number of targets, no masks, exact resume."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from slm_helpers._backend import cached_on, keras
from slm_helpers.models.encoder_decoder import make_features
from slm_helpers.models.fast_rnn import mean_cross_entropy
from slm_helpers.models.language_model import output_weights
from slm_helpers.training.batches import hash_arrays
from slm_helpers.training.config import STREAM_DEFAULTS, TrainConfig, check_unused
from slm_helpers.training.loop import TrainingRun, run_training
from slm_helpers.training.step import CompiledStep, computing_in
from slm_helpers.training.streams import loss_on, mean_loss

import numpy as np
import pandas as pd

ops = keras.ops

_POOL = 256  # batches' worth of pairs that are sorted by length before they are cut into batches


class PairBatches:
    """Batches of pairs in which the number of target tokens is about the same, and not that of the pairs.

    Pairs are drawn at random, sorted by length within pools and cut so that a batch has as many target tokens as the mean of
    `batch_size` pairs; so all pairs of a batch are about equally long and little is padded. The true target positions, counted over
    the flattened batch, come along and are of one number, filled up with weight 0: only they are scored against the vocabulary.
    """

    def __init__(self, sources: Sequence[np.ndarray], targets: Sequence[np.ndarray], *, start_id: int, batch_size: int, seed: int = 42):
        """Prepare the batches.

        Args:
            sources: Token ids of each source.
            targets: Token ids of each target, the end token last.
            start_id: What the decoder reads before the first token of a target.
            batch_size: Pairs in a batch, in the mean.
            seed: Of the order.
        """
        if len(sources) != len(targets) or not len(targets):
            raise ValueError(f"There are {len(sources)} sources and {len(targets)} targets, but each source needs one target.")
        self.sources, self.targets = list(sources), list(targets)
        self.start_id, self.seed = start_id, seed
        self.batch_size = min(batch_size, len(targets))
        self._lengths = np.array([(len(target), len(source)) for source, target in zip(sources, targets, strict=True)])
        self._num = -(-len(targets) // self.batch_size)
        self._mean_tokens = self._lengths[:, 0].sum() / self._num
        self._size = int(np.ceil(self._mean_tokens)) + int(self._lengths[:, 0].max())
        self._epoch = -1

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return self._num

    def batch(self, epoch: int, index: int) -> tuple[np.ndarray, ...]:
        """Return source_ids and target_ids (read by the decoder), weights, positions and targets of one batch of an epoch."""
        if epoch != self._epoch:
            self._rows = self._arrange(np.random.default_rng([self.seed, epoch]))
            self._epoch = epoch
        return self._batch(self._rows[index])

    def in_order(self) -> list[tuple[np.ndarray, ...]]:
        """Return all batches, sorted by length: for scoring."""
        return [self._batch(rows) for rows in self._cut(np.lexsort(self._lengths.T[::-1]))]

    def fingerprint(self) -> str:
        """Return a short code of the pairs, to notice that a checkpoint belongs to others."""
        return hash_arrays([[self.start_id], *self.sources, *self.targets])

    def _arrange(self, rng: np.random.Generator) -> list[np.ndarray]:
        """Return the rows of each batch of an epoch."""
        order = rng.permutation(len(self.targets))
        size = _POOL * self.batch_size
        pools = [order[start : start + size] for start in range(0, len(order), size)]
        batches = self._cut(np.concatenate([pool[np.lexsort(self._lengths[pool].T[::-1])] for pool in pools]))
        return [batches[i] for i in rng.permutation(len(batches))]

    def _cut(self, order: np.ndarray) -> list[np.ndarray]:
        """Cut rows in this order where the next share of the target tokens begins."""
        number = (np.cumsum(self._lengths[order, 0]) - 1) // self._mean_tokens
        return np.split(order, np.searchsorted(number, np.arange(1, self._num)))

    def _batch(self, rows: np.ndarray) -> tuple[np.ndarray, ...]:
        targets = [self.targets[row] for row in rows]
        source_ids = _side_by_side([self.sources[row] for row in rows])
        target_ids = _side_by_side([np.concatenate([[self.start_id], target[:-1]]) for target in targets])
        lengths = self._lengths[rows, 0]
        positions = np.flatnonzero(np.arange(target_ids.shape[1]) < np.pad(lengths, (0, len(target_ids) - len(rows)))[:, None])
        missing = self._size - len(positions)
        weights = np.pad(np.ones(len(positions), "float32"), (0, missing))
        flat = np.concatenate([*targets, np.zeros(missing, "int32")]) if len(targets) else np.zeros(missing, "int32")
        return source_ids, target_ids, weights, np.pad(positions, (0, missing)).astype("int32"), flat.astype("int32")


def fit_pairs(
    model: keras.Model,
    train: tuple[Sequence[np.ndarray], Sequence[np.ndarray]],
    valid: tuple[Sequence[np.ndarray], Sequence[np.ndarray]] | None = None,
    *,
    config: TrainConfig,
    start_id: int,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    checkpoint_dir: str | Path | None = None,
    checkpoint_steps: int = 500,
) -> pd.DataFrame:
    """Train an encoder-decoder with teacher forcing; its weights are changed in place.

    What `fit_model` says of validation, early stopping, callbacks, checkpoints and Ctrl-C holds here too.

    Args:
        model: From `build_encoder_decoder`.
        train: Token ids of sources, and of targets with the end token last.
        valid: The same of the validation split.
        config: Settings; what they leave open is that of STREAM_DEFAULTS. batch_size counts pairs.
        start_id: What the decoder reads before the first token of a target.
        callbacks: Keras callbacks; they see loss and val_loss.
        checkpoint_dir: Folder for the checkpoint file.
        checkpoint_steps: Steps between checkpoints.

    Returns:
        History in long form: step, epoch, split, loss_nats (per target token), learning_rate, seconds.
    """
    check_unused(config, "fit_pairs", "layer_decay", "frozen", "unfreeze_epochs", "class_weight", "carry_state", "shuffle_documents")
    config = config.with_defaults(STREAM_DEFAULTS)
    options = {"start_id": start_id, "batch_size": config.batch_size, "seed": config.seed}
    compiled = PairStep(model, config)
    held_out = None if valid is None else PairBatches(*valid, **options)
    run = TrainingRun(
        model,
        config,
        PairBatches(*train, **options),
        compiled,
        evaluate=None if held_out is None else loss_on(compiled, held_out.in_order()),
        valid_fingerprint="" if held_out is None else held_out.fingerprint(),
    )
    return run_training(run, callbacks=callbacks, checkpoint_dir=checkpoint_dir, checkpoint_steps=checkpoint_steps)


def pair_losses(
    model: keras.Model, sources: Sequence[np.ndarray], targets: Sequence[np.ndarray], *, start_id: int, batch_size: int = 64
) -> float:
    """Return the mean loss in nats per target token, the true target so far given."""
    compiled = cached_on(model, "pair_step", lambda: PairStep(model, STREAM_DEFAULTS))
    return mean_loss(compiled, PairBatches(sources, targets, start_id=start_id, batch_size=batch_size).in_order())


class PairStep(CompiledStep):
    """[source_ids, target_ids, weights, positions, targets] -> mean loss."""

    def __init__(self, model: keras.Model, config: TrainConfig):
        super().__init__(model, config)
        self.body = make_features(model)

    def call(self, arguments: list, training: bool = False) -> Any:
        """Return the mean loss over the target positions that count."""
        source_ids, target_ids, weights, positions, targets = arguments
        with computing_in(self.body, self.policy):
            features = self.body([source_ids, target_ids], training=training)
        flat = ops.reshape(ops.cast(features, self.policy.compute_dtype), (-1, features.shape[-1]))
        flat = ops.take(flat, ops.cast(positions, "int32"), axis=0)
        smoothing = self.smoothing if training else 0.0
        return mean_cross_entropy(flat, ops.cast(targets, "int32"), weights, *output_weights(self.network), smoothing=smoothing)


def _side_by_side(rows: list[np.ndarray]) -> np.ndarray:
    """Return rows padded on the right with 0: int32, shape (num_rows, longest), in few different lengths.

    JAX compiles each shape anew, and TensorFlow's matrix products keep something of each: with every length on its own, page 11 took
    0.3 GB more.
    """
    multiple = 4 if keras.backend.backend() == "tensorflow" else 16
    longest, num_rows = (-(-max(1, size) // multiple) * multiple for size in (max(map(len, rows), default=1), len(rows)))
    padded = np.zeros((num_rows, longest), dtype="int32")
    for i, row in enumerate(rows):
        padded[i, : len(row)] = row
    return padded
