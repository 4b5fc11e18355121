"""What a model folder holds, without Keras: checked settings, weights as arrays, the tokeniser."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from slm_helpers.data.files import sha256_of
from slm_helpers.models.folders import check_regular, read_config, read_json
from slm_helpers.text.tokenizers import Tokenizer

import numpy as np
from safetensors import SafetensorError, safe_open

ENCODER_DECODERS = ("build_encoder_decoder", "build_pointer_generator")  # builders of networks that read a sequence and write another
SCALES = "scales/"  # stands before the path of a matrix in the name of the scales of its int8 values
_OUTPUTS = ("num_classes", "num_tags")  # arguments of builders that say how many labels a model needs
_RECURRENT_SIZES = ("units", "head_units", "encoder_units", "backward_units", "size")  # with a matrix of this size squared
# Names in folders that were saved before a builder, a layer or a weight got its present name.
_OLD_BUILDERS = {
    "build_reader": "build_span_extractor",
    "build_listener": "build_keyword_spotter",
    "build_commander": "build_intent_slot_model",
    "build_tracer": "build_knowledge_tracer",
    "build_copying_decoder": "build_pointer_generator",
}
_OLD_NAMES = {
    "onwards": "forward_gru",
    "backwards": "backward_gru",
    "encoder_gru_onwards": "encoder_forward_gru",
    "encoder_gru_backwards": "encoder_backward_gru",
    "asked": "question_attention",
    "alike": "embedding_attention",
    "sharpness": "scale",
    "reading": "word_projection",
    "logits_wanted": "logits_question",
    "logits_places": "logits_span",
    "logits_none": "logits_no_answer",
    "read": "context_projection",
    "spelling": "char_cnn",
    "vectors": "embedding",
    "mixed_bands": "band_projection",
}


@dataclass
class SavedModel:
    """What a model folder holds: the model, its tokeniser, and what was written beside them."""

    model: Any  # a keras.Model; of `slm_helpers.deploy.engine.open_saved` what runs without Keras in its place
    tokenizer: Tokenizer | None = None
    task: str = "lm"
    labels: list[str] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    folder: Path | None = None

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of the builder that made the model."""
        return json.loads(self.model.builder_config)["arguments"]

    def __sklearn_clone__(self) -> SavedModel:
        """Return itself: no training changes an opened model, so scikit-learn's copies of an estimator may share it."""
        return self


def read_stored(folder: str | Path, *, task: str | None = None) -> tuple[SavedModel, dict[str, Any]]:
    """Return all that a model folder holds but the network, and its config; `read_weights` gives what the network is made of.

    Args:
        folder: Written by `slm_helpers.models.saved.save_model`.
        task: If given, refuse a model of another task.

    Raises:
        FileNotFoundError: If the folder or one of its files is missing.
        ValueError: If a file was changed or cut short, or the folder is of a newer format or another task.
    """
    folder = Path(folder)
    config = read_config(folder)
    if task is not None and config["task"] != task:
        raise ValueError(f"{folder} holds a model for the task {config['task']!r}, but {task!r} is needed.")
    for name, recorded in ({"weights.safetensors": ""} | config["sha256"]).items():
        check_regular(folder / name)
        found = sha256_of(folder / name)
        if found != recorded:
            raise ValueError(
                f"{folder / name} was changed or cut short (SHA-256 {found[:12]}..., recorded {recorded[:12]}...). Copy it again."
            )
    metrics = read_json(folder / "metrics.json", strict=False) if (folder / "metrics.json").exists() else {}
    parts = {"task": config["task"], "labels": config["labels"], "settings": config["settings"], "metrics": metrics, "folder": folder}
    return SavedModel(model=None, tokenizer=_load_tokenizer(folder / "tokenizer.json"), **parts), config


def read_weights(folder: str | Path, config: dict[str, Any]) -> dict[str, np.ndarray]:
    """Return the weights of a folder by their present paths, e.g. "gru_0/gru_cell/kernel": finite float32 arrays.

    Raises:
        ValueError: If the file cannot be read, a size or the number of labels does not fit it, or a weight is NaN or infinite, is no
            number, or is an int8 number without a scale.
    """
    folder = Path(folder)
    path, arguments = folder / "weights.safetensors", config["arguments"]
    try:
        with safe_open(path, framework="numpy") as file:
            keys = file.keys()
            _check_sizes(arguments, [tuple(file.get_slice(key).get_shape()) for key in keys if not key.startswith(SCALES)], folder)
            stored = _decode({key: file.get_tensor(key) for key in keys}, path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} cannot be read ({error}). Copy it again.") from error
    num_outputs = next((arguments[name] for name in _OUTPUTS if name in arguments), None)
    if num_outputs is not None and len(config["labels"]) != num_outputs:
        raise ValueError(f"{folder} has {len(config['labels'])} labels, but the model scores {num_outputs}. Copy the folder again.")
    weights = {current_path(name): values for name, values in stored.items()}
    for name, values in weights.items():
        if not np.isfinite(values).all():
            raise ValueError(f"{path}: the weights {name} hold NaN or infinite values. The training went wrong; train again.")
    return weights


def quantize_matrix(values: np.ndarray, *, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Round a matrix to 8 bits with one scale per row (axis 0) or per column (axis 1); numbers * scales is the rounded matrix.

    Returns:
        Whole numbers in -127..127, int8, shape (rows, columns), and scales, float32, shape (rows, 1) or (1, columns).

    Example:
        >>> quantize_matrix(np.array([[1.27, -0.5], [0.0, 0.0]]), axis=0)[0].tolist()
        [[127, -50], [0, 0]]
    """
    highest = np.abs(values).max(axis=1 - axis, keepdims=True)
    scales = np.where(highest > 0, highest / 127, 1).astype("float32")
    return np.clip(np.rint(values / scales), -127, 127).astype("int8"), scales


def rounding_axis(path: str, values: np.ndarray) -> int | None:
    """Return along which axis an array has its scales when it is rounded to 8 bits; None for one that stays as it is.

    A row of an embedding is one token; a column of any other matrix is what one feature is computed with.
    """
    if values.ndim != 2 or min(values.shape) <= 2:  # the biases of a GRU have two rows
        return None
    return 0 if "embedding" in path else 1


def _decode(stored: dict[str, np.ndarray], file: Path) -> dict[str, np.ndarray]:
    """Return float32 arrays by path: int8 numbers times their scales, all others as they are."""
    weights = {}
    for path, values in stored.items():
        if path.startswith(SCALES):
            continue
        if values.dtype == np.int8:
            scales = stored.get(SCALES + path)
            if scales is None or values.ndim != 2 or scales.shape not in ((len(values), 1), (1, values.shape[1])):
                raise ValueError(f"{file} lacks the scales of the int8 weights {path}. Copy the folder again.")
            values = values * scales
        if not np.issubdtype(values.dtype, np.floating):
            raise ValueError(f"{file}: the weights {path} are of type {values.dtype}, but must be float or int8. Copy the folder again.")
        weights[path] = values.astype("float32")
    return weights


def current_builder(name: str) -> str:
    """Return the present name of a builder that a folder names."""
    return _OLD_BUILDERS.get(name, name)


def current_path(path: str) -> str:
    """Return the present path of a weight that a folder holds, e.g. "onwards/gru_cell/kernel"."""
    return "/".join(_OLD_NAMES.get(part, part) for part in path.split("/"))


def _check_sizes(arguments: dict[str, Any], shapes: list[tuple[int, ...]], folder: Path) -> None:
    """Raise ValueError for a size that the weights cannot have: building such a network might take all memory first."""
    lengths, total = {length for shape in shapes for length in shape}, sum(int(np.prod(shape)) for shape in shapes)
    for name, value in arguments.items():
        if not isinstance(value, int) or isinstance(value, bool):
            continue
        found = value <= 64 or {value, value + 1, 2 * value + 2} & lengths  # + 1 for padding; one more for answers, twice
        if not found or (name in _RECURRENT_SIZES and value * value > total) or (name == "num_layers" and value > len(shapes)):
            raise ValueError(f"{folder}: {name} is {value:,}, but the weights have no such size. The folder does not fit this package.")


def _load_tokenizer(path: Path) -> Tokenizer | None:
    if not path.exists():
        return None
    read_json(path)  # a regular file, of a size and depth that can be read
    try:
        return Tokenizer.load(path)
    except Exception as error:  # the library that reads it raises plain Exception
        raise ValueError(f"{path} cannot be read ({error}). Copy it again.") from error
