"""Model folders that load back to what was saved.

A builder returns an uncompiled functional model and leaves its own call on it (`model.recipe`), so that a saved folder needs
names and numbers only: loading looks the builder up in BUILDERS and never runs code from the folder.
"""

import json
import os
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from slm_helpers._backend import keras
from slm_helpers._checks import check_choice
from slm_helpers._paths import PRETRAINED_DIR, check_checkout
from slm_helpers.data.files import sha256_of
from slm_helpers.models import classifiers, encoder_decoder, language_model, reader, taggers, tracer  # noqa: F401 - they fill BUILDERS
from slm_helpers.models.folders import FORMAT_VERSION, check_replaceable, read_config
from slm_helpers.models.registry import BUILDERS
from slm_helpers.text.tokenizers import Tokenizer

import numpy as np
import pandas as pd
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file


@dataclass
class SavedModel:
    """What a model folder holds: the model, its tokeniser, and what was written beside them."""

    model: keras.Model
    tokenizer: Tokenizer | None = None
    task: str = "lm"
    labels: list[str] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    folder: Path | None = None

    def __sklearn_clone__(self) -> "SavedModel":
        """Return itself: no training changes an opened model, so scikit-learn's copies of an estimator may share it."""
        return self


def save_model(
    folder: str | Path,
    model: keras.Model,
    *,
    tokenizer: Tokenizer | None = None,
    task: str = "lm",
    labels: list[str] | None = None,
    settings: dict[str, Any] | None = None,
    metrics: dict[str, Any] | None = None,
    history: pd.DataFrame | None = None,
    card: str = "",
    weights_dtype: str = "float32",
) -> Path:
    """Write a model folder: config.json, weights.safetensors, tokenizer.json, metrics.json, history.csv, card.md.

    The folder is written under a temporary name and renamed, so an interrupted save leaves the old one whole.

    Args:
        folder: Where to; an older model folder there is replaced, anything else is not.
        model: A model made by one of BUILDERS.
        tokenizer: Goes with the model.
        task: What the model does: "lm", "classify" ...
        labels: Class or tag names in the order of the output.
        settings: Anything else that is needed to use the model (JSON values).
        metrics: Its scores (JSON values).
        history: Its training history.
        card: Markdown: data, licence, cost, scores, limits.
        weights_dtype: "float32" keeps the weights exactly; "float16" halves the file.

    Returns:
        The folder.
    """
    check_choice(("float32", "float16"), weights_dtype=weights_dtype)
    if not hasattr(model, "recipe"):
        raise ValueError(f"{model.name} was not made by one of {', '.join(BUILDERS)}, so its folder could not be loaded again.")
    folder = Path(folder)
    check_replaceable(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        weights = {w.path: keras.ops.convert_to_numpy(w).astype(weights_dtype) for w in model.weights}
        broken = [path for path, values in weights.items() if not np.isfinite(values).all()]
        if broken:
            raise ValueError(f"The weights {broken[0]} hold NaN or infinite values{' in float16' if weights_dtype == 'float16' else ''}.")
        save_file(weights, new / "weights.safetensors")
        if tokenizer is not None:
            tokenizer.save(new / "tokenizer.json")
        _write_json(new / "metrics.json", metrics or {})
        if history is not None:
            history.to_csv(new / "history.csv", index=False)
        (new / "card.md").write_text(card or f"# {folder.name}\n", encoding="utf-8")
        checked = ["weights.safetensors", *(["tokenizer.json"] if tokenizer is not None else [])]
        config = {
            "format_version": FORMAT_VERSION,
            "keras_version": keras.__version__,
            "task": task,
            **json.loads(model.recipe),
            "labels": labels or [],
            "settings": settings or {},
            "num_parameters": int(sum(np.prod(w.shape) for w in model.weights)),
            "weights_dtype": weights_dtype,
            "sha256": {name: sha256_of(new / name) for name in checked},
        }
        _write_json(new / "config.json", config)
        os.chmod(new, 0o755)
        os.chmod(new / "weights.safetensors", 0o644)  # else for its writer only
        if folder.exists():
            old = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.old."))
            try:
                os.replace(folder, old / "model")
                os.replace(new, folder)
            except BaseException:
                if not folder.exists():
                    os.replace(old / "model", folder)
                shutil.rmtree(old)
                raise
            shutil.rmtree(old)
        else:
            os.replace(new, folder)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    return folder


def load_model(folder: str | Path, *, task: str | None = None) -> SavedModel:
    """Load a model folder: the logits equal those of the saved model (float16 weights: of the rounded ones).

    Args:
        folder: Written by `save_model`.
        task: If given, refuse a model of another task.

    Raises:
        FileNotFoundError: If the folder or one of its files is missing.
        ValueError: If a file was changed or cut short, or the folder is of a newer format or another task.
    """
    folder = Path(folder)
    config = read_config(folder)
    if task is not None and config["task"] != task:
        raise ValueError(f"{folder} holds a model for the task {config['task']!r}, but {task!r} is needed.")
    for name, recorded in config["sha256"].items():
        if not (folder / name).exists():
            raise FileNotFoundError(f"{folder / name} is missing. Copy the model folder again.")
        found = sha256_of(folder / name)
        if found != recorded:
            raise ValueError(
                f"{folder / name} was changed or cut short (SHA-256 {found[:12]}..., recorded {recorded[:12]}...). Copy it again."
            )
    if config["builder"] not in BUILDERS:
        raise ValueError(f"{folder}: the builder {config['builder']!r} is not known. Known: {', '.join(BUILDERS)}.")
    model = BUILDERS[config["builder"]](**config["arguments"])
    try:
        weights = load_file(folder / "weights.safetensors")
    except SafetensorError as error:
        raise ValueError(f"{folder / 'weights.safetensors'} cannot be read ({error}). Copy it again.") from error
    for weight in model.weights:
        if weight.path not in weights or weights[weight.path].shape != tuple(weight.shape):
            raise ValueError(
                f"{folder / 'weights.safetensors'} has no weights {weight.path} of shape {tuple(weight.shape)}. "
                "The folder does not fit this package."
            )
        weight.assign(weights[weight.path].astype("float32"))
    has_tokenizer = (folder / "tokenizer.json").exists()
    return SavedModel(
        model=model,
        tokenizer=Tokenizer.load(folder / "tokenizer.json") if has_tokenizer else None,
        task=config["task"],
        labels=config["labels"],
        settings=config["settings"],
        metrics=json.loads((folder / "metrics.json").read_text(encoding="utf-8")) if (folder / "metrics.json").exists() else {},
        folder=folder,
    )


def load_pretrained(name: str) -> SavedModel:
    """Load a model that comes with the repository, e.g. "slm-base-en"."""
    available = sorted(path.parent.name for path in check_checkout(PRETRAINED_DIR).glob("*/config.json"))
    if name not in available:
        raise ValueError(
            f"{name!r} is not one of the pretrained models ({', '.join(available) or 'none yet'}). For a folder of your own use load_model."
        )
    return load_model(PRETRAINED_DIR / name)


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
