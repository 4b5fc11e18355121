"""Import Keras with its backend, without TensorFlow's start-up notes.

TensorFlow writes two notes about rounding straight to the process' error stream, whatever its log level says, and a notebook
would keep them among its outputs. Modules of this package import Keras from here; a page that imports `slm_helpers` modules
first stays clean too. Which backend is chosen in `slm_helpers/__init__.py`.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Send the process' error stream (not Python's) to nowhere; exceptions still arrive."""
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


if "keras" in sys.modules:
    import keras
else:
    with _quiet_stderr():
        import keras

        # The second note comes with the first computation. One process of several must meet the others before it computes anything.
        if not {"TF_CONFIG", "KERAS_DISTRIBUTION_PROCESS_ID"} & set(os.environ):
            keras.ops.zeros(1) + 1


def cached_on(model: keras.Model, key: Any, make: Callable[[], Any]) -> Any:
    """Return what is cached on the model under `key`, made if need be: a network that has been compiled already, features of texts."""
    if not hasattr(model, "_slm_cache"):
        object.__setattr__(model, "_slm_cache", {})  # past Keras, which would count it among the model's layers
    if key not in model._slm_cache:
        model._slm_cache[key] = make()
    return model._slm_cache[key]
