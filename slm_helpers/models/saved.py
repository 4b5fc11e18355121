"""Recurrent language models in Keras, and model folders that load back to what was saved.

A builder returns an uncompiled functional model and leaves its own call on it (`model.recipe`), so that a saved folder needs
names and numbers only: loading looks the builder up in BUILDERS and never runs code from the folder.
"""

import functools
import importlib
import inspect
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from slm_helpers._backend import keras
from slm_helpers._checks import check_choice, check_positive, check_share
from slm_helpers.data.files import sha256_of
from slm_helpers.data.loading import DATA_DIR
from slm_helpers.models.layers import AddPositions, CausalBlock, FastGRU, FastLSTM, NgramScores, TextPooling
from slm_helpers.text.tokenizers import Tokenizer

import numpy as np
import pandas as pd
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

ops = keras.ops

FORMAT_VERSION = 1
PRETRAINED_DIR = DATA_DIR / "pretrained"
RUNS_DIR = DATA_DIR.parent / "runs"  # models and checkpoints that pages leave behind; not committed
CELLS = {"rnn": keras.layers.SimpleRNN, "gru": FastGRU, "lstm": FastLSTM}
_RECURRENT = (keras.layers.SimpleRNN, keras.layers.GRU, keras.layers.LSTM)  # those of CELLS among them
BUILDERS: dict[str, Callable[..., keras.Model]] = {}


def builder(function: Callable[..., keras.Model]) -> Callable[..., keras.Model]:
    """Register a model builder by its name and note its arguments on the model as `model.recipe`."""

    @functools.wraps(function)
    def build(*args: Any, **kwargs: Any) -> keras.Model:
        bound = inspect.signature(function).bind(*args, **kwargs)
        bound.apply_defaults()
        model = function(*args, **kwargs)
        # As text: Keras would wrap a dictionary attribute in its own tracking class.
        model.recipe = json.dumps({"builder": function.__name__, "arguments": bound.arguments}, default=lambda number: number.item())
        return model

    BUILDERS[function.__name__] = build
    return build


@builder
def build_language_model(
    vocab_size: int,
    *,
    cell: str = "gru",
    embedding_dim: int = 256,
    units: int = 512,
    num_layers: int = 1,
    dropout: float = 0.0,
    tie_embeddings: bool = True,
) -> keras.Model:
    """Build a recurrent language model: at each position it scores every possible next token.

    Embedding, `num_layers` recurrent layers, and an output layer. With tied embeddings the output layer reuses the embedding
    matrix (after a linear projection from `units` to `embedding_dim` where they differ), which saves
    vocab_size x embedding_dim weights. The GRU is Keras' variant: h_t = z * h_(t-1) + (1 - z) * candidate, with the reset gate
    applied after the matrix product.

    Args:
        vocab_size: Number of distinct token ids.
        cell: "rnn" (tanh), "gru" or "lstm".
        embedding_dim: Length of a token vector.
        units: Length of the recurrent state in each layer.
        num_layers: Number of stacked recurrent layers.
        dropout: Share of activations dropped after the embedding and after each layer, in [0, 1).
        tie_embeddings: Reuse the embedding matrix as the output matrix.

    Returns:
        An uncompiled model from int32 token ids, shape (batch, time), to float32 logits, shape (batch, time, vocab_size).
        No mask is used: pad on the right and weight the loss.

    Raises:
        ValueError: If a size is not a positive whole number, `dropout` lies outside [0, 1) or `cell` is not known.

    Example:
        >>> build_language_model(vocab_size=40, units=32).output_shape
        (None, None, 40)

    Reference:
        Mikolov et al. (2010), "Recurrent neural network based language model"; Cho et al. (2014), arXiv:1406.1078;
        Press and Wolf (2017), "Using the Output Embedding to Improve Language Models", arXiv:1608.05859.
    """
    check_positive(vocab_size=vocab_size, embedding_dim=embedding_dim, units=units, num_layers=num_layers)
    check_share(dropout=dropout)
    check_choice(CELLS, cell=cell)
    vocab_size, embedding_dim, units = int(vocab_size), int(embedding_dim), int(units)  # Keras refuses numpy integers
    # Tied vectors serve as output weights too, so they start at the scale of those.
    initializer = keras.initializers.RandomNormal(stddev=embedding_dim**-0.5 if tie_embeddings else 0.05)
    if tie_embeddings:
        # Logits stay float32 so that the loss is exact under mixed precision too.
        embedding = keras.layers.ReversibleEmbedding(
            vocab_size, embedding_dim, embeddings_initializer=initializer, reverse_dtype="float32", name="embedding"
        )
    else:
        embedding = keras.layers.Embedding(vocab_size, embedding_dim, embeddings_initializer=initializer, name="embedding")
    layers: list[keras.layers.Layer] = [embedding, keras.layers.Dropout(dropout, name="embedding_dropout")]
    for i in range(num_layers):
        layers.append(CELLS[cell](units, return_sequences=True, return_state=True, name=f"{cell}_{i}"))
        layers.append(keras.layers.Dropout(dropout, name=f"{cell}_{i}_dropout"))
    if not tie_embeddings:
        layers.append(keras.layers.Dense(vocab_size, dtype="float32", name="logits"))
    elif units != embedding_dim:
        layers.append(keras.layers.Dense(embedding_dim, use_bias=False, name="projection"))
    token_ids = keras.Input(shape=(None,), dtype="int32", name="token_ids")
    # Every recurrent layer can take and give its state; this model starts from zeros and drops the final one.
    logits, _, _ = _connect(layers, token_ids, states_in=False)
    return keras.Model(token_ids, logits, name=f"{cell}_language_model")


@builder
def build_text_classifier(
    vocab_size: int,
    *,
    num_classes: int,
    cell: str = "gru",
    embedding_dim: int = 256,
    units: int = 512,
    num_layers: int = 1,
    dropout: float = 0.2,
    num_buckets: int = 0,
) -> keras.Model:
    """Build a recurrent classifier of whole texts, the other half of `build_language_model`.

    Embedding and recurrent layers carry the names and shapes of the language model's, so that `start_from` can copy them. The
    head pools the outputs over the true length (mean, maximum and last, side by side) and scores the classes.

    Args:
        vocab_size: Number of distinct token ids; id 0 is padding.
        num_classes: Number of classes, two at least.
        cell: "rnn" (tanh), "gru" or "lstm".
        embedding_dim: Length of a token vector.
        units: Length of the recurrent state in each layer.
        num_layers: Number of stacked recurrent layers.
        dropout: Share of activations dropped after the embedding, after each layer but the last, and after pooling, in [0, 1).
        num_buckets: With any, a linear model on so many hashed n-grams stands beside the network and its scores are added; it
            does not learn with it, but is put in by `slm_helpers.text.hashing` and `slm_helpers.tasks.text_classification`.

    Returns:
        An uncompiled model from int32 token ids, shape (batch, time), to float32 logits, shape (batch, num_classes). Shorter
        texts are padded on the right with 0; how far does not change the logits. With `num_buckets` it takes two inputs, the
        second the ids of the text's n-grams, shape (batch, ngrams), padded likewise.

    Raises:
        ValueError: If a size is not a positive whole number, there are fewer than two classes, `dropout` lies outside [0, 1)
            or `cell` is not known.

    Example:
        >>> build_text_classifier(vocab_size=40, num_classes=3, units=32).output_shape
        (None, 3)

    Reference:
        Howard and Ruder (2018), "Universal Language Model Fine-tuning for Text Classification", arXiv:1801.06146; Cheng et al.
        (2016), "Wide & Deep Learning", arXiv:1606.07792, for a linear model beside a network.
    """
    check_positive(vocab_size=vocab_size, num_classes=num_classes, embedding_dim=embedding_dim, units=units, num_layers=num_layers)
    check_share(dropout=dropout)
    check_choice(CELLS, cell=cell)
    if num_classes < 2:
        raise ValueError(f"num_classes is {num_classes}, but a classifier needs two classes at least.")
    # As in a language model with tied embeddings, so that both start from random weights of the same size.
    initializer = keras.initializers.RandomNormal(stddev=embedding_dim**-0.5)
    token_ids = keras.Input(shape=(None,), dtype="int32", name="token_ids")
    # No mask: a recurrent layer would go through its slow path. Padding stands on the right and is left out in pooling.
    x = keras.layers.Embedding(int(vocab_size), int(embedding_dim), embeddings_initializer=initializer, name="embedding")(token_ids)
    for i in range(num_layers):
        x = keras.layers.Dropout(dropout, name=f"{cell}_{i - 1}_dropout" if i else "embedding_dropout")(x)
        layer = CELLS[cell](int(units), return_sequences=True, name=f"{cell}_{i}")
        layer.unrolled = False  # texts come in many lengths
        x = layer(x)
    x = TextPooling(name="pooling")([x, token_ids])
    x = keras.layers.Dropout(dropout, name="pooling_dropout")(x)
    logits = keras.layers.Dense(int(num_classes), dtype="float32", name="logits")(x)
    if not num_buckets:
        return keras.Model(token_ids, logits, name=f"{cell}_text_classifier")
    ngrams = keras.Input(shape=(None,), dtype="int32", name="ngrams")
    scores = NgramScores(int(num_buckets), int(num_classes), trainable=False, dtype="float32", name="ngram_scores")(ngrams)
    return keras.Model([token_ids, ngrams], keras.layers.Add(name="logits_sum")([logits, scores]), name=f"{cell}_text_classifier")


def shared_shape(base: keras.Model) -> dict[str, Any]:
    """Return what a builder has to be told so that its network has the layers of a language model, see `start_from`."""
    arguments = json.loads(base.recipe)["arguments"]
    return {name: arguments[name] for name in ("vocab_size", "cell", "embedding_dim", "units", "num_layers")}


def start_from(model: keras.Model, base: keras.Model) -> list[str]:
    """Copy the weights of `base` into the layers of `model` that have the same name; returns their names, first to last.

    The output layer "logits" stays as it is: its rows mean something else in each model.

    Args:
        model: Changed in place, e.g. a new classifier.
        base: E.g. a pretrained language model.

    Raises:
        ValueError: If no layer has the same name, or one has weights of other shapes: nothing is copied then.
    """
    theirs = {layer.name: layer for layer in base.layers if layer.weights and layer.name != "logits"}
    shared = [layer for layer in model.layers if layer.weights and layer.name in theirs]
    if not shared:
        raise ValueError(
            f"{model.name} and {base.name} share no layer: {', '.join(layer.name for layer in model.layers if layer.weights)} against "
            f"{', '.join(theirs)}. Build the new model with the cell of the base."
        )
    for layer in shared:
        ours, needed = ([tuple(w.shape) for w in each.weights] for each in (layer, theirs[layer.name]))
        if ours != needed:
            raise ValueError(
                f"The layer {layer.name} has weights of shapes {ours}, the base {needed}. "
                "Build the new model with the vocab_size, embedding_dim and units of the base."
            )
    for layer in shared:
        layer.set_weights(theirs[layer.name].get_weights())
    return [layer.name for layer in shared]


@builder
def build_transformer_language_model(
    vocab_size: int,
    *,
    size: int = 256,
    num_layers: int = 4,
    num_heads: int = 4,
    max_length: int = 256,
    dropout: float = 0.0,
) -> keras.Model:
    """Build a small GPT-like model, to compare the recurrent ones with: same training, no state to carry.

    Args:
        vocab_size: Number of distinct token ids.
        size: Length of token vectors and of the features in each block.
        num_layers: Number of blocks.
        num_heads: Attention heads in each block; must divide `size`.
        max_length: Tokens in the longest window it can read.
        dropout: Share of activations dropped, in [0, 1).

    Returns:
        An uncompiled model from int32 token ids, shape (batch, time), to float32 logits, shape (batch, time, vocab_size).

    Reference:
        Radford et al. (2019), "Language Models are Unsupervised Multitask Learners" (GPT-2).
    """
    check_positive(vocab_size=vocab_size, size=size, num_layers=num_layers, num_heads=num_heads, max_length=max_length)
    check_share(dropout=dropout)
    if size % num_heads:
        raise ValueError(f"size is {size} and num_heads {num_heads}, but the heads must share the features evenly.")
    initializer = keras.initializers.RandomNormal(stddev=0.02)
    embedding = keras.layers.ReversibleEmbedding(
        vocab_size, size, embeddings_initializer=initializer, reverse_dtype="float32", name="embedding"
    )
    layers: list[keras.layers.Layer] = [embedding, AddPositions(max_length, name="positions")]
    layers += [CausalBlock(num_heads, dropout=dropout, name=f"block_{i}") for i in range(num_layers)]
    layers.append(keras.layers.LayerNormalization(epsilon=1e-5, name="norm"))
    token_ids = keras.Input(shape=(None,), dtype="int32", name="token_ids")
    logits, _, _ = _connect(layers, token_ids, states_in=False)
    return keras.Model(token_ids, logits, name="transformer_language_model")


def recurrent_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """Return the recurrent layers of `model`, first to last."""
    return [layer for layer in model.layers if isinstance(layer, _RECURRENT)]


def zero_states(model: keras.Model, batch_size: int) -> list[np.ndarray]:
    """Return the states before the first token: one array of zeros, shape (batch, units), per state."""
    check_positive(batch_size=batch_size)
    return [np.zeros((batch_size, size), dtype="float32") for layer in recurrent_layers(model) for size in _state_sizes(layer)]


def make_stepwise(model: keras.Model, *, single_token: bool = False) -> keras.Model:
    """Return a view of a language model with its states in the open; the weights are shared, not copied.

    Handing the returned states to the next call gives the same logits as one pass over the whole text.

    Args:
        model: A model from `build_language_model`.
        single_token: Take one token a call, without a time axis (faster: the bare cells, no loop over time).

    Returns:
        A model from [token_ids, *states] to [logits, *states]; token_ids of shape (batch, time) and logits of shape
        (batch, time, vocab_size), or (batch,) and (batch, vocab_size).
    """
    token_ids = keras.Input(shape=() if single_token else (None,), dtype="int32", name="token_ids")
    layers = [layer for layer in model.layers[1:] if not isinstance(layer, keras.layers.Dropout)]
    x, states_in, states_out = _connect(layers, token_ids, single_token=single_token)
    return keras.Model([token_ids, *states_in], [x, *states_out], name=f"{model.name}_stepwise")


def make_body(model: keras.Model) -> keras.Model:
    """Return a view of a language model without its output layer: [token_ids, *states] to [features, *states].

    The features, shape (batch, time, size), are what the output layer reads: the place for another head, or for a loss that
    does not hold the scores of the whole vocabulary for all tokens at once. Dropout stays, and works in training only.
    """
    token_ids = keras.Input(shape=(None,), dtype="int32", name="token_ids")
    layers = [layer for layer in model.layers[1:] if layer.name != "logits"]
    x, states_in, states_out = _connect(layers, token_ids, output=False)
    return keras.Model([token_ids, *states_in], [x, *states_out], name=f"{model.name}_body")


def output_weights(model: keras.Model) -> tuple[Any, Any]:
    """Return the matrix, shape (vocab_size, size), and the bias, shape (vocab_size,) or None, that turn features into logits."""
    embedding = model.get_layer("embedding")
    if isinstance(embedding, keras.layers.ReversibleEmbedding):
        return embedding.embeddings, None  # no bias
    logits = model.get_layer("logits")
    return ops.transpose(logits.kernel), logits.bias


def _connect(
    layers: list[keras.layers.Layer], token_ids: Any, *, states_in: bool = True, single_token: bool = False, output: bool = True
) -> tuple[Any, list, list]:
    """Call the layers of a language model one after the other; returns the last output and the states put in and given out."""
    entered: list[Any] = []
    given: list[Any] = []
    x = token_ids
    for layer in layers:
        if not isinstance(layer, _RECURRENT):
            x = layer(x)
            continue
        sizes = _state_sizes(layer) if states_in else []
        states = [keras.Input(shape=(size,), name=f"{layer.name}_state_{i}") for i, size in enumerate(sizes)]
        if single_token:
            x, *new_states = _BareCell(layer)([x, *states])
        else:
            x, *new_states = layer(x, initial_state=states or None)
        entered += states
        given += new_states
    if output and isinstance(layers[0], keras.layers.ReversibleEmbedding):
        x = layers[0](x, reverse=True)
    return x, entered, given


class _BareCell(keras.layers.Layer):
    """[x, *states] -> [output, *states] of the cell of a recurrent layer, under a name of its own: stacked cells share theirs."""

    def __init__(self, layer: keras.layers.Layer):
        super().__init__(name=f"{layer.name}_cell", dtype=layer.dtype_policy)
        self.cell = layer.cell
        self.built = True  # the weights are there already

    def call(self, inputs: list) -> list:
        x, *states = inputs
        output, new_states = self.cell(x, states if len(states) > 1 else states[0])
        return [output, *(new_states if isinstance(new_states, list | tuple) else [new_states])]


def _state_sizes(layer: keras.layers.Layer) -> list[int]:
    return list(layer.state_size) if isinstance(layer.state_size, list | tuple) else [layer.state_size]


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


def check_replaceable(folder: Path) -> None:
    """Raise ValueError if something stands at `folder` that is not a model folder."""
    if folder.exists() and not (folder / "config.json").exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} exists and is no model folder; it is left alone. Choose another name.")


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
    for module in ("taggers", "encoder_decoder"):  # they build on this module, so they cannot be imported above
        if config["builder"] not in BUILDERS:
            importlib.import_module(f"slm_helpers.models.{module}")
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
    available = sorted(p.name for p in PRETRAINED_DIR.glob("*/config.json") for p in [p.parent])
    if name not in available:
        raise ValueError(
            f"{name!r} is not one of the pretrained models ({', '.join(available) or 'none yet'}). For a folder of your own use load_model."
        )
    return load_model(PRETRAINED_DIR / name)


def read_config(folder: Path) -> dict[str, Any]:
    """Return the config.json of a model folder after checking that this package can read it."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: there is no such model folder.")
    if not (folder / "config.json").exists():
        raise FileNotFoundError(f"{folder} has no config.json, so it is not a model folder.")
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        version = config["format_version"]
        missing = [name for name in ("task", "builder", "arguments", "labels", "settings", "sha256") if name not in config]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder / 'config.json'} cannot be read ({error!r}). Copy the folder again.") from error
    if version > FORMAT_VERSION:
        raise ValueError(f"{folder} is of format {version}, but this package reads up to {FORMAT_VERSION}. Update the package.")
    if missing:
        raise ValueError(f"{folder / 'config.json'} lacks {', '.join(missing)}. Copy the folder again.")
    return config


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
