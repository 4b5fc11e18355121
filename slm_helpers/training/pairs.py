"""Train an encoder-decoder on pairs of token sequences: batches of like length and of one number of targets, no masks, exact resume."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from slm_helpers._backend import cached_on, keras, quiet_retracing
from slm_helpers._processor import has_bfloat16
from slm_helpers.models.encoder_decoder import make_features
from slm_helpers.models.fast_rnn import mean_cross_entropy
from slm_helpers.models.language_model import output_weights
from slm_helpers.training.config import STREAM_DEFAULTS, TrainConfig
from slm_helpers.training.loop import TrainingRun, computing_in, run_training
from slm_helpers.training.optimizers import make_optimizer

import numpy as np
import pandas as pd

ops = keras.ops

_POOL = 256  # batches' worth of pairs that are sorted by length before they are cut into batches


class PairBatches:
    """Batches of pairs in which the number of target tokens is about the same, and not that of the pairs.

    Pairs are drawn at random, sorted by length within pools and cut so that a batch has as many target tokens as the mean of
    `batch_size` pairs; so all pairs of a batch are about equally long and little is padded. The true target places, counted over
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
        self._share = self._lengths[:, 0].sum() / self._num
        self._room = int(np.ceil(self._share)) + int(self._lengths[:, 0].max())
        self._epoch = -1

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return self._num

    def batch(self, epoch: int, index: int) -> tuple[np.ndarray, ...]:
        """Return source_ids and target_ids (read by the decoder), weights, places and targets of one batch of an epoch."""
        if epoch != self._epoch:
            self._rows = self._arrange(np.random.default_rng([self.seed, epoch]))
            self._epoch = epoch
        return self._batch(self._rows[index])

    def in_order(self) -> list[tuple[np.ndarray, ...]]:
        """Return all batches, sorted by length: for scoring."""
        return [self._batch(rows) for rows in self._cut(np.lexsort(self._lengths.T[::-1]))]

    def fingerprint(self) -> str:
        """Return a short code of the pairs, to notice that a checkpoint belongs to others."""
        code = hashlib.sha256(b"".join(np.asarray(part, "int32").tobytes() + b"|" for part in (*self.sources, *self.targets)))
        return f"{len(self.targets)}-{code.hexdigest()[:16]}"

    def _arrange(self, rng: np.random.Generator) -> list[np.ndarray]:
        """Return the rows of each batch of an epoch."""
        order = rng.permutation(len(self.targets))
        size = _POOL * self.batch_size
        pools = [order[start : start + size] for start in range(0, len(order), size)]
        batches = self._cut(np.concatenate([pool[np.lexsort(self._lengths[pool].T[::-1])] for pool in pools]))
        return [batches[i] for i in rng.permutation(len(batches))]

    def _cut(self, order: np.ndarray) -> list[np.ndarray]:
        """Cut rows in this order where the next share of the target tokens begins."""
        number = (np.cumsum(self._lengths[order, 0]) - 1) // self._share
        return np.split(order, np.searchsorted(number, np.arange(1, self._num)))

    def _batch(self, rows: np.ndarray) -> tuple[np.ndarray, ...]:
        targets = [self.targets[row] for row in rows]
        source_ids = _side_by_side([self.sources[row] for row in rows])
        target_ids = _side_by_side([np.concatenate([[self.start_id], target[:-1]]) for target in targets])
        lengths = self._lengths[rows, 0]
        places = np.flatnonzero(np.arange(target_ids.shape[1]) < np.pad(lengths, (0, len(target_ids) - len(rows)))[:, None])
        missing = self._room - len(places)
        weights = np.pad(np.ones(len(places), "float32"), (0, missing))
        flat = np.concatenate([*targets, np.zeros(missing, "int32")]) if len(targets) else np.zeros(missing, "int32")
        return source_ids, target_ids, weights, np.pad(places, (0, missing)).astype("int32"), flat.astype("int32")


def fit_pairs(
    model: keras.Model,
    train: tuple[Sequence[np.ndarray], Sequence[np.ndarray]],
    valid: tuple[Sequence[np.ndarray], Sequence[np.ndarray]] | None = None,
    *,
    config: TrainConfig,
    start_id: int,
    checkpoint_dir: str | Path | None = None,
    checkpoint_steps: int = 500,
    on_step: Callable[[int, float], None] | None = None,
) -> pd.DataFrame:
    """Train an encoder-decoder with teacher forcing; its weights are changed in place.

    What `slm_helpers.training.loop.fit_model` says of validation, early stopping, checkpoints and Ctrl-C holds here too.

    Args:
        model: From `build_encoder_decoder`.
        train: Token ids of sources, and of targets with the end token last.
        valid: The same of the validation split.
        config: All settings; batch_size counts pairs, window and carry_state do not matter.
        start_id: What the decoder reads before the first token of a target.
        checkpoint_dir: Folder for the checkpoint file.
        checkpoint_steps: Steps between checkpoints.
        on_step: Called after each step with its number, from 1, and its loss.

    Returns:
        History in long form: step, epoch, split, loss_nats (per target token), learning_rate, seconds.
    """
    config = config.with_defaults(STREAM_DEFAULTS)
    batches = PairBatches(*train, start_id=start_id, batch_size=config.batch_size, seed=config.seed)
    held_out = None if valid is None else PairBatches(*valid, start_id=start_id, batch_size=config.batch_size).in_order()
    trainer = _PairTrainer(model, config)
    return run_training(
        TrainingRun(model, config, batches, trainer),
        held_out,
        checkpoint_dir=checkpoint_dir,
        checkpoint_steps=checkpoint_steps,
        on_step=on_step,
    )


def pair_losses(
    model: keras.Model, sources: Sequence[np.ndarray], targets: Sequence[np.ndarray], *, start_id: int, batch_size: int = 64
) -> float:
    """Return the mean loss in nats per target token, the true target so far given."""
    trainer = cached_on(model, "pair_trainer", lambda: _PairTrainer(model, STREAM_DEFAULTS))
    batches = PairBatches(sources, targets, start_id=start_id, batch_size=batch_size).in_order()
    sums = [(trainer.measure(*batch) * batch[2].sum(), batch[2].sum()) for batch in batches]
    return float(sum(loss for loss, _ in sums) / sum(weight for _, weight in sums))


class _PairTrainer(keras.Model):
    """[source_ids, target_ids, weights, places, targets] -> mean loss, as one compiled step on every backend."""

    states = ()  # nothing is carried from batch to batch

    def __init__(self, model: keras.Model, config: TrainConfig):
        super().__init__(name="pair_trainer")
        self.body, self.network = make_features(model), model
        bfloat16 = config.precision == "bfloat16" or (config.precision == "auto" and has_bfloat16())
        self.policy = keras.DTypePolicy("mixed_bfloat16" if bfloat16 else "float32")
        self.smoothing = config.label_smoothing
        self.built = True
        self.compile(make_optimizer(config), jit_compile=keras.backend.backend() == "jax")

    def call(self, arguments: list, training: bool = False) -> Any:
        source_ids, target_ids, weights, places, targets = arguments
        with computing_in(self.body.layers, self.policy):
            features = self.body([source_ids, target_ids], training=training)
        flat = ops.reshape(ops.cast(features, self.policy.compute_dtype), (-1, features.shape[-1]))
        flat = ops.take(flat, ops.cast(places, "int32"), axis=0)
        smoothing = self.smoothing if training else 0.0
        return mean_cross_entropy(flat, ops.cast(targets, "int32"), weights, *output_weights(self.network), smoothing=smoothing)

    def compute_loss(self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True) -> Any:
        return y_pred

    def step(self, *batch: np.ndarray) -> float:
        self.reset_metrics()  # else Keras returns the mean over all steps so far
        with quiet_retracing():
            return float(self.train_on_batch(list(batch)))

    def measure(self, *batch: np.ndarray) -> float:
        self.reset_metrics()
        with quiet_retracing():
            return float(self.test_on_batch(list(batch)))


def _side_by_side(rows: list[np.ndarray]) -> np.ndarray:
    """Return rows padded on the right with 0: int32, shape (num_rows, longest), in few different lengths.

    JAX compiles each shape anew, and TensorFlow's matrix products keep something of each: with every length on its own, page 11 took
    0.3 GB more.
    """
    multiple = 4 if keras.backend.backend() == "tensorflow" else 16
    longest, num_rows = (-(-max(1, size) // multiple) * multiple for size in (max(map(len, rows), default=1), len(rows)))
    padded = np.zeros((num_rows, longest), dtype="int32")
    for place, row in enumerate(rows):
        padded[place, : len(row)] = row
    return padded
