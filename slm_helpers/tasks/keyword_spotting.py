"""Which word was spoken: a small recurrent network on log-mel frames. From recordings to a model, its scores and its predictions."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from slm_helpers._backend import keras
from slm_helpers.data.audio import NUM_BANDS, check_samples, log_mel, read_wav, sound_summary, vary
from slm_helpers.data.schema import check_labels
from slm_helpers.metrics.classification import fit_temperature, score_table
from slm_helpers.models.classifiers import build_keyword_spotter
from slm_helpers.models.saved import SavedModel
from slm_helpers.tasks.base import Evaluation
from slm_helpers.training.batches import Examples
from slm_helpers.training.config import TrainConfig
from slm_helpers.training.finetune import fit_examples, run_rows, softmax

import numpy as np
import pandas as pd

COLUMNS = ("sound", "label")
PREDICT_COLUMNS = ("sound",)
STACKED = 2  # frames that the network reads in one step
_MIN_STEPS = 300  # where recordings are few, batches are smaller (16 at least), so that about so many steps are made
STARTS_FROM_BASE = False  # it reads sound, not text
DEFAULT = TrainConfig(epochs=12, batch_size=32, learning_rate=4e-3)


def train(
    frame: pd.DataFrame,
    *,
    base: SavedModel | None = None,
    config: TrainConfig = TrainConfig(),
    units: int = 64,
    dropout: float = 0.4,
    copies: int = 3,
) -> tuple[SavedModel, pd.DataFrame]:
    """Train a listener on the columns sound, label and split.

    Args:
        frame: Each sound is the path of a WAV file, or its samples; the split valid, if there, chooses the epoch and calibrates
            the confidence.
        base: None: there is no pretrained model of sounds, and one of language is of no use here.
        config: Settings of the training; its batches are made smaller where recordings are few.
        units: Length of the state of each GRU.
        dropout: Share of activations dropped in training.
        copies: Altered copies of each training recording that are learned from beside it, see `slm_helpers.data.audio.vary`.

    Returns:
        The model with its labels and settings, and the history of its training.

    Raises:
        ValueError: If train has one class only, another split has a label that train lacks, a sound cannot be used, or a base is given.
    """
    given, config = config, config.with_defaults(DEFAULT)
    if base is not None:
        raise ValueError("The task listen reads sounds and starts from random weights: leave the base out (--base none).")
    check_labels(frame)
    parts = {split: rows for split, rows in frame.groupby("split") if split in ("train", "valid")}
    labels = sorted(parts["train"]["label"].unique())
    keras.utils.set_random_seed(config.seed)
    rng = np.random.default_rng(config.seed)
    sounds = {split: samples_of(rows["sound"]) for split, rows in parts.items()}
    codes = {split: rows["label"].map(labels.index).to_numpy() for split, rows in parts.items()}
    altered = [stacked(hide_some(centred(vary(sound, rng=rng)), rng=rng)) for _ in range(copies) for sound in sounds["train"]]
    frames = {split: [stacked(centred(sound)) for sound in part] for split, part in sounds.items()}
    frames["train"] += altered
    codes["train"] = np.tile(codes["train"], copies + 1)
    # Balanced: a class's share of the loss is that of every other class.
    counts = np.bincount(codes["train"])
    weights = len(codes["train"]) / (len(labels) * counts) if config.class_weight == "balanced" else np.ones(len(labels))
    examples = {split: Examples(_inputs(frames[split]), codes[split], weights=weights[codes[split]]) for split in parts}
    model = build_keyword_spotter(num_classes=len(labels), num_bands=STACKED * NUM_BANDS, units=units, dropout=dropout)
    few = max(16, len(examples["train"]) * config.epochs // _MIN_STEPS)
    if given.batch_size is None:
        config = replace(config, batch_size=min(config.batch_size, few))
    history = fit_examples(model, examples["train"], examples.get("valid"), config=config)
    saved = SavedModel(model=model, task="listen", labels=labels)
    if "valid" in parts:
        scores = np.stack(run_rows(model, examples["valid"].inputs))
        saved.settings["temperature"] = fit_temperature(scores, codes["valid"])
    return saved, history


def evaluate(saved: SavedModel, frame: pd.DataFrame) -> Evaluation:
    """Score a listener on the columns sound and label.

    Returns:
        accuracy, macro_f1 and macro_recall with 95 % intervals, and the table confusion (label, prediction, rows).

    Raises:
        ValueError: If a label is not one of the model's or a sound cannot be used.
    """
    unknown = np.flatnonzero(~frame["label"].isin(saved.labels))
    if len(unknown):
        raise ValueError(
            f"row {unknown[0] + 1}: the label {frame['label'].iloc[unknown[0]]!r} is unknown to this model, which knows "
            f"{', '.join(saved.labels[:10])}. Correct its spelling or leave such rows out."
        )
    found = [saved.labels[best] for best in sound_probs(saved, frame["sound"]).argmax(axis=1)]
    confusion = (
        pd.DataFrame({"label": frame["label"].to_numpy(), "prediction": found}).value_counts(sort=False).rename("rows").reset_index()
    )
    return Evaluation(rows=len(frame), metrics=score_table(frame["label"].to_numpy(), found), tables={"confusion": confusion})


def predict(saved: SavedModel, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return prediction and confidence (calibrated probability) for rows with a sound: the path of a WAV file, or samples."""
    probs = sound_probs(saved, [row["sound"] for row in rows])
    return [
        {"prediction": saved.labels[best], "confidence": round(float(row[best]), 4)}
        for row, best in zip(probs, probs.argmax(axis=1), strict=True)
    ]


def sound_probs(saved: SavedModel, sounds: Sequence[Any]) -> np.ndarray:
    """Return the calibrated probability of each class for each sound, shape (num_sounds, num_classes)."""
    scores = np.stack(run_rows(saved.model, _inputs([stacked(centred(sound)) for sound in samples_of(sounds)])))
    return softmax(scores.astype("float64") / saved.settings.get("temperature", 1.0))


def samples_of(sounds: Sequence[Any]) -> list[np.ndarray]:
    """Return the checked samples of sounds that are given as samples or as paths of WAV files."""
    return [
        read_wav(sound) if isinstance(sound, str | Path) else check_samples(sound, name=f"sound {number}")
        for number, sound in enumerate(sounds, 1)
    ]


def centred(samples: np.ndarray) -> np.ndarray:
    """Return the log-mel frames of a sound less the mean of each band, halved, in hundredths: int32, shape (frames, bands).

    Taking the mean away removes what a microphone or a voice does to all frames alike.
    """
    frames = log_mel(samples)
    return np.round(50 * (frames - frames.mean(axis=0))).astype("int32")


def stacked(frames: np.ndarray) -> np.ndarray:
    """Return STACKED frames side by side, the last filled up with 0: half the steps for a recurrent network to take."""
    full = np.pad(frames, ((0, -len(frames) % STACKED), (0, 0)))
    return full.reshape(-1, STACKED * frames.shape[1])


def hide_some(frames: np.ndarray, *, rng: np.random.Generator) -> np.ndarray:
    """Return frames with a run of bands and a run of frames set to 0, the mean: the network must not rely on any one of them.

    Reference:
        Park et al. (2019), "SpecAugment", arXiv:1904.08779.
    """
    frames = frames.copy()
    for axis, most in ((0, len(frames) // 5), (1, frames.shape[1] // 5)):
        size = int(rng.integers(0, most + 1))
        start = int(rng.integers(0, frames.shape[axis] - size + 1))
        frames[(slice(None),) * axis + (slice(start, start + size),)] = 0
    return frames


def build_sound_baseline(*, seed: int = 42):
    """Build the baseline: a linear support vector machine on `sound_summary`, as a scikit-learn pipeline on samples or paths."""
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, StandardScaler
    from sklearn.svm import LinearSVC

    summaries = FunctionTransformer(lambda sounds: np.stack([sound_summary(sound) for sound in samples_of(sounds)]))
    return make_pipeline(summaries, StandardScaler(), LinearSVC(C=0.05, max_iter=5000, random_state=seed))


def _inputs(frames: list[np.ndarray]) -> dict[str, list[np.ndarray]]:
    return {"frames": frames, "real": [np.ones(len(rows), dtype="int32") for rows in frames]}
