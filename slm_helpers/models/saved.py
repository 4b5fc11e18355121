"""Model folders that load back to what was saved.

A builder returns an uncompiled functional model and leaves its own call on it (`model.builder_config`), so that a saved folder needs
names and numbers only: loading looks the builder up in BUILDERS and never runs code from the folder.
"""

import json
from pathlib import Path
from typing import Any

from slm_helpers._backend import keras
from slm_helpers._checks import check_choice
from slm_helpers._paths import PRETRAINED_DIR, check_checkout
from slm_helpers.data.files import sha256_of
from slm_helpers.models import classifiers, encoder_decoder, language_model, reader, taggers, tracer  # noqa: F401 - they fill BUILDERS
from slm_helpers.models.folders import atomic_folder, check_replaceable, write_json
from slm_helpers.models.registry import BUILDERS
from slm_helpers.models.stored import SCALES, SavedModel, current_builder, quantize_matrix, read_stored, read_weights, rounding_axis
from slm_helpers.text.tokenizers import Tokenizer

import numpy as np
import pandas as pd
from safetensors.numpy import save_file

WEIGHTS_DTYPES = ("float32", "float16", "int8")


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
        folder: Where to; an older model folder there is replaced; a link, or a folder that holds anything else, is refused.
        model: A model made by one of BUILDERS.
        tokenizer: Goes with the model.
        task: What the model does: "lm", "classify" ...
        labels: Class or tag names in the order of the output.
        settings: Anything else that is needed to use the model (JSON values).
        metrics: Its scores (JSON values).
        history: Its training history.
        card: Markdown: data, licence, cost, scores, limits.
        weights_dtype: "float32" keeps the weights exactly; "float16" halves the file; "int8" takes a quarter of it: matrices are rounded
            to 255 steps with a scale per row (embeddings) or per column (all others), everything else stays float32.

    Returns:
        The folder.
    """
    check_choice(WEIGHTS_DTYPES, weights_dtype=weights_dtype)
    if not hasattr(model, "builder_config"):
        raise ValueError(f"{model.name} was not made by one of {', '.join(BUILDERS)}, so its folder could not be loaded again.")
    folder = Path(folder)
    check_replaceable(folder)
    with atomic_folder(folder) as new:
        save_file(_encode(model, weights_dtype), new / "weights.safetensors")
        (new / "weights.safetensors").chmod(0o644)  # else for its writer only
        if tokenizer is not None:
            tokenizer.save(new / "tokenizer.json")
        write_json(new / "metrics.json", metrics or {}, strict=False)  # a score may be undefined
        if history is not None:
            history.to_csv(new / "history.csv", index=False)
        (new / "card.md").write_text(card or f"# {folder.name}\n", encoding="utf-8")
        checked = ["weights.safetensors", *(["tokenizer.json"] if tokenizer is not None else [])]
        config = {
            "format_version": 2 if weights_dtype == "int8" else 1,
            "keras_version": keras.__version__,
            "task": task,
            **json.loads(model.builder_config),
            "labels": labels or [],
            "settings": settings or {},
            "num_parameters": int(sum(np.prod(w.shape) for w in model.weights)),
            "weights_dtype": weights_dtype,
            "sha256": {name: sha256_of(new / name) for name in checked},
        }
        write_json(new / "config.json", config)
    return folder


def load_model(folder: str | Path, *, task: str | None = None) -> SavedModel:
    """Load a model folder: the logits equal those of the saved model (float16 and int8 weights: of the rounded ones).

    Everything is checked before it is used, and sizes before anything is built: a folder may come from anywhere.

    Args:
        folder: Written by `save_model`.
        task: If given, refuse a model of another task.

    Raises:
        FileNotFoundError: If the folder or one of its files is missing.
        ValueError: If a file was changed or cut short, the folder is of a newer format or another task, its parts do not fit
            together, or a weight is NaN or infinite.
    """
    saved, config = read_stored(folder, task=task)
    name = current_builder(config["builder"])
    if name not in BUILDERS:
        raise ValueError(f"{folder}: the builder {config['builder']!r} is not known. Known: {', '.join(BUILDERS)}.")
    saved.model = _load_network(saved.folder, name, config)
    return saved


def load_pretrained(name: str) -> SavedModel:
    """Load a model that comes with the repository, e.g. "slm-base-en"."""
    available = sorted(path.parent.name for path in check_checkout(PRETRAINED_DIR).glob("*/config.json"))
    if name not in available:
        raise ValueError(
            f"{name!r} is not one of the pretrained models ({', '.join(available) or 'none yet'}). For a folder of your own use load_model."
        )
    return load_model(PRETRAINED_DIR / name)


def _encode(model: keras.Model, weights_dtype: str) -> dict[str, np.ndarray]:
    """Return the weights of a model as they are stored, by path; the scales of int8 values by SCALES and path."""
    stored = {}
    for weight in model.weights:
        values = keras.ops.convert_to_numpy(weight)
        values = values if weights_dtype == "int8" else values.astype(weights_dtype)
        if not np.isfinite(values).all():
            raise ValueError(f"The weights {weight.path} hold NaN or infinite values{' in float16' if weights_dtype == 'float16' else ''}.")
        if weights_dtype == "int8" and (axis := rounding_axis(weight.path, values)) is not None:
            values, stored[SCALES + weight.path] = quantize_matrix(values, axis=axis)
        stored[weight.path] = values
    return stored


def _load_network(folder: Path, builder: str, config: dict[str, Any]) -> keras.Model:
    """Build the network of a folder and give it its weights."""
    weights = read_weights(folder, config)
    try:
        model = BUILDERS[builder](**config["arguments"])
    except TypeError as error:
        raise ValueError(f"{folder / 'config.json'}: the arguments do not fit {builder} ({error}). Copy the folder again.") from error
    for weight in model.weights:
        values = weights.get(weight.path)
        if values is None or values.shape != tuple(weight.shape):
            raise ValueError(
                f"{folder / 'weights.safetensors'} has no weights {weight.path} of shape {tuple(weight.shape)}. "
                "The folder does not fit this package."
            )
        weight.assign(values)
    return model
