"""Which word was spoken: a small recurrent network on log-mel frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from slm_helpers._numerics import softmax
from slm_helpers.data.audio import NUM_BANDS, log_mel, mask_frames, read_sounds, vary
from slm_helpers.data.schema import check_labels
from slm_helpers.metrics.classification import fit_temperature, score_table
from slm_helpers.tasks.base import Evaluation, Task, train_and_valid
from slm_helpers.tasks.text_classification import labels_as
from slm_helpers.training.config import TrainConfig

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from slm_helpers.models.saved import SavedModel

STACKED = 2  # frames that the network reads in one step
_MIN_STEPS = 300  # where recordings are few, batches are smaller (16 at least), so that about so many steps are made


class KeywordSpotter(Task):
    """The word (or any other class) of a short recording.

    A recording is the path of a WAV file (mono, 8,000 samples a second) or its samples, a flat array in [-1, 1]. The network always
    starts from random weights: there is no pretrained model of sounds.

    Args:
        epochs: Passes over train and its copies at most; None: 12.
        batch_size: Recordings in an update; None: 32, and fewer where there are few recordings.
        learning_rate: The highest; None: 0.004.
        max_seconds: End the training after this time; None: no limit.
        class_weight: "balanced" gives every class the same weight in the loss, however many recordings it has.
        units: Length of the state of each GRU.
        dropout: Share of activations dropped in training.
        num_copies: Altered copies of each recording of train to learn from too: another speed, level and noise
            (`slm_helpers.data.audio.vary`), with bands and frames masked (`mask_frames`).
        config: Other settings of the training.
        seed: Of copies, order, dropout and weights.

    Example:
        >>> low, high = (np.sin(2 * np.pi * hertz * np.arange(1600) / 8000) for hertz in (300, 1800))
        >>> spotter = KeywordSpotter(units=8, epochs=2, learning_rate=0.02).fit([low, high] * 8, ["low", "high"] * 8)
        >>> spotter.predict([high]).tolist()
        ['high']

    Reference:
        Park et al. (2019), "SpecAugment", arXiv:1904.08779; Ko et al. (2015), "Audio Augmentation for Speech Recognition".
    """

    task = "listen"
    is_classifier = True
    columns = ("sound", "label")
    target = "label"
    predict_columns = ("sound",)
    default_base = None  # it reads sound, not text
    default_config = TrainConfig(epochs=12, learning_rate=4e-3)

    def __init__(
        self,
        *,
        epochs: int | None = None,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        max_seconds: float | None = None,
        class_weight: str | None = None,
        units: int = 64,
        dropout: float = 0.4,
        num_copies: int = 3,
        config: TrainConfig | None = None,
        seed: int = 42,
    ):
        self.epochs, self.batch_size, self.learning_rate = epochs, batch_size, learning_rate
        self.max_seconds, self.class_weight, self.config, self.seed = max_seconds, class_weight, config, seed
        self.units, self.dropout, self.num_copies = units, dropout, num_copies

    def check_frame(self, frame: pd.DataFrame) -> None:
        """Raise ValueError if train has one class only, or another split has a label that train lacks."""
        check_labels(frame)

    def predict(self, X: Any) -> np.ndarray:
        """Return a class for each recording, of the type of the labels in training: shape (num_recordings,)."""
        probs = self.predict_proba(X)
        return self.classes_[probs.argmax(axis=1)]

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the calibrated probability of each of `classes_` for each recording: shape (num_recordings, num_classes)."""
        from slm_helpers.models.rows import run_rows

        saved, sounds = self._fitted(), [row["sound"] for row in self._rows(X)]
        if not sounds:
            return np.zeros((0, len(saved.labels)))
        logits = np.stack(run_rows(saved.model, _inputs([stack_frames(sound_frames(sound)) for sound in read_sounds(sounds)])))
        return softmax(logits.astype("float64") / saved.settings.get("temperature", 1.0))

    def predict_rows(self, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return prediction and confidence (calibrated probability) for rows with a sound."""
        probs = self.predict_proba([row["sound"] for row in rows])
        classes = self.classes_.tolist()
        return [{"prediction": classes[row.argmax()], "confidence": round(float(row.max()), 4)} for row in probs]

    def evaluate_frame(self, frame: pd.DataFrame) -> Evaluation:
        """Score rows with sound and label.

        Returns:
            accuracy, macro_f1 and macro_recall with 95 % intervals, and the table confusion (label, prediction, rows).

        Raises:
            ValueError: If a label is not one of the model's or a sound cannot be used.
        """
        labels, names = frame["label"].astype(str).to_numpy(), self._fitted().labels
        unknown = np.flatnonzero(~np.isin(labels, names))
        if len(unknown):
            raise ValueError(
                f"row {unknown[0] + 1}: the label {labels[unknown[0]]!r} is unknown to this model, which knows {', '.join(names[:10])}. "
                "Correct its spelling or leave such rows out."
            )
        predictions = np.array(names, dtype=object)[self.predict_proba(frame).argmax(axis=1)]
        confusion = pd.DataFrame({"label": labels, "prediction": predictions}).value_counts(sort=False).rename("rows").reset_index()
        return Evaluation(rows=len(frame), metrics=score_table(labels, predictions), tables={"confusion": confusion})

    def score(self, X: Any, y: Any = None) -> float:
        """Return the accuracy."""
        return float(self.evaluate(X, y).set_index("metric").loc["accuracy", "value"])

    def _train(self, frame, *, base, config, keep_valid, checkpoint_dir, callbacks) -> tuple[SavedModel, pd.DataFrame]:
        from slm_helpers.models.classifiers import build_keyword_spotter
        from slm_helpers.models.rows import run_rows
        from slm_helpers.models.saved import SavedModel
        from slm_helpers.training.finetune import fit_examples

        classes = np.unique(frame.loc[frame["split"] == "train", "label"].to_numpy())
        labels, kind = [str(value) for value in classes], classes.dtype.kind
        examples = self._examples(frame.assign(label=frame["label"].astype(str)), labels, config)
        model = build_keyword_spotter(num_classes=len(labels), num_bands=STACKED * NUM_BANDS, units=self.units, dropout=self.dropout)
        if config.batch_size is None:
            config = replace(config, batch_size=min(32, max(16, len(examples["train"]) * config.epochs // _MIN_STEPS)))
        options = {"checkpoint_dir": checkpoint_dir, "callbacks": callbacks}
        history = fit_examples(model, examples["train"], examples.get("valid"), config=config, **options)
        saved = SavedModel(model=model, task=self.task, labels=labels, settings={"label_kind": "str" if kind in "OUS" else kind})
        if "valid" in examples:
            logits = np.stack(run_rows(model, examples["valid"].inputs))
            saved.settings["temperature"] = fit_temperature(logits, np.array(examples["valid"].targets))
        return saved, history

    def _examples(self, frame: pd.DataFrame, labels: list[str], config: TrainConfig) -> dict[str, Any]:
        """Return the labelled recordings of train, with their copies, and of valid."""
        from slm_helpers.training.batches import Examples

        rng = np.random.default_rng(self.seed)
        parts = train_and_valid(frame)
        sounds = {split: read_sounds(rows["sound"]) for split, rows in parts.items()}
        codes = {split: rows["label"].map(labels.index).to_numpy() for split, rows in parts.items()}
        copies = [
            stack_frames(mask_frames(sound_frames(vary(sound, rng=rng)), rng=rng))
            for _ in range(self.num_copies)
            for sound in sounds["train"]
        ]
        frames = {split: [stack_frames(sound_frames(sound)) for sound in part] for split, part in sounds.items()}
        frames["train"] += copies
        codes["train"] = np.tile(codes["train"], self.num_copies + 1)
        weights = np.ones(len(labels))
        if config.class_weight == "balanced":
            weights = len(codes["train"]) / (len(labels) * np.bincount(codes["train"]))
        return {split: Examples(_inputs(frames[split]), codes[split], weights=weights[codes[split]]) for split in parts}

    def _learned(self) -> None:
        self.classes_ = labels_as(self.saved_.labels, self.saved_.settings.get("label_kind", "str"))

    def _table(self, X: Any) -> pd.DataFrame:
        """Return X as a table; recordings may be paths or arrays of samples, all of one length or not."""
        if isinstance(X, np.ndarray) and X.ndim == 1 and X.dtype.kind in "fiu" and len(X):
            raise TypeError("X is one recording. Pass a list of recordings, e.g. [X].")
        rows = X if isinstance(X, str | dict | pd.DataFrame) else list(X)
        if isinstance(rows, str | dict | pd.DataFrame) or any(isinstance(row, dict) for row in rows):
            return super()._table(rows)
        return pd.DataFrame({"sound": pd.Series(rows, dtype=object)})


def sound_frames(samples: np.ndarray) -> np.ndarray:
    """Return the log-mel frames of a sound less the mean of each band, halved, in hundredths: int32, shape (frames, bands).

    Taking the mean away removes what a microphone or a voice does to all frames alike.
    """
    frames = log_mel(samples)
    return np.round(50 * (frames - frames.mean(axis=0))).astype("int32")


def stack_frames(frames: np.ndarray) -> np.ndarray:
    """Return STACKED frames side by side, the last filled up with 0: half the steps for a recurrent network to take."""
    full = np.pad(frames, ((0, -len(frames) % STACKED), (0, 0)))
    return full.reshape(-1, STACKED * frames.shape[1])


def _inputs(frames: list[np.ndarray]) -> dict[str, list[np.ndarray]]:
    return {"frames": frames, "real": [np.ones(len(rows), dtype="int32") for rows in frames]}
