"""The builders a saved folder may name, and weights that pass from one network to another."""

import functools
import inspect
import json
from collections.abc import Callable
from typing import Any

from slm_helpers._backend import keras

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
