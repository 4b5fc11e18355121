"""The builders a saved folder may name, and weights that pass from one network to another."""

import functools
import inspect
import json
from collections.abc import Callable
from typing import Any

from slm_helpers._backend import keras
from slm_helpers._checks import check_choice, check_positive, check_share

CELL_NAMES = ("rnn", "gru", "lstm")  # rnn: tanh
BUILDERS: dict[str, Callable[..., keras.Model]] = {}


def builder(function: Callable[..., keras.Model]) -> Callable[..., keras.Model]:
    """Register a model builder by its name, check its arguments and note them on the model as `model.builder_config`.

    Arguments of type int are sizes of at least 1 (0 where that is the default), of type float shares in [0, 1), and `cell` is one of
    CELL_NAMES; numpy integers, which Keras refuses, become int.
    """
    parameters = inspect.signature(function).parameters

    @functools.wraps(function)
    def build(*args: Any, **kwargs: Any) -> keras.Model:
        bound = inspect.signature(function).bind(*args, **kwargs)
        bound.apply_defaults()
        for name, value in bound.arguments.items():
            bound.arguments[name] = _checked(parameters[name], value)
        model = function(*bound.args, **bound.kwargs)
        # As text: Keras would wrap a dictionary attribute in its own tracking class.
        model.builder_config = json.dumps({"builder": function.__name__, "arguments": bound.arguments})
        return model

    BUILDERS[function.__name__] = build
    return build


def backbone_config(base: keras.Model) -> dict[str, Any]:
    """Return what a builder has to be told so that its network has the layers of a language model, see `load_backbone_weights`."""
    arguments = json.loads(base.builder_config)["arguments"]
    return {name: arguments[name] for name in ("vocab_size", "cell", "embedding_dim", "units", "num_layers")}


def load_backbone_weights(model: keras.Model, base: keras.Model) -> list[str]:
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


def _checked(parameter: inspect.Parameter, value: Any) -> Any:
    if parameter.annotation is int:
        if parameter.default != 0 or value != 0:
            check_positive(**{parameter.name: value})
        return int(value)
    if parameter.annotation is float:
        check_share(**{parameter.name: value})
    if parameter.name == "cell":
        check_choice(CELL_NAMES, cell=value)
    return value
