"""Our side of training_speed, and the machine's peak: `fit_model` as a reader calls it, one round of steps for each line of stdin.

Settings and answers are those of torch_training.py.
"""

import json
import sys
import time

from slm_helpers._backend import keras
from slm_helpers.models.language_model import build_language_model
from slm_helpers.training.config import TrainConfig
from slm_helpers.training.streams import fit_model

import numpy as np


class Rounds(keras.callbacks.Callback):
    """Answer each line of stdin with the seconds of a round of steps; everything between two steps counts, making the batches too."""

    def __init__(self, settings: dict):
        super().__init__()
        self.settings, self.done, self.started = settings, 0, 0.0

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Close a round and wait for the next."""
        self.done += 1
        trained = self.done - self.settings["warm_up_steps"]
        if trained < 0 or trained % self.settings["steps"]:
            return
        if trained == 0:
            version = f"slm_helpers (Keras {keras.__version__}, {keras.backend.backend()})"
            print(json.dumps({"version": version, "num_parameters": self.model.count_params()}), flush=True)
        else:
            print(json.dumps({"seconds": time.perf_counter() - self.started}), flush=True)
        self.model.stop_training = not sys.stdin.readline()
        self.started = time.perf_counter()


def train(settings: dict) -> None:
    """Train on random tokens until stdin ends."""
    keras.utils.set_random_seed(settings["seed"])
    sizes = {name: settings[name] for name in ("cell", "embedding_dim", "units")}
    model = build_language_model(settings["vocab_size"], **sizes)
    config = TrainConfig(
        epochs=1_000_000,
        batch_size=settings["batch_size"],
        window=settings["window"],
        precision=settings["precision"],
        seed=settings["seed"],
    )
    rng = np.random.default_rng(settings["seed"])
    token_ids = rng.integers(3, settings["vocab_size"], settings["num_tokens"]).astype("uint16")
    fit_model(model, token_ids, config=config, callbacks=[Rounds(settings)])


def measure_peak(settings: dict) -> None:
    """Print the fastest product of two square matrices: operations per second by library and precision."""
    import tensorflow as tf

    size = settings["size"]
    numbers = np.random.default_rng(0).random((size, size), dtype="float32")
    single = tf.constant(numbers)
    half = tf.cast(single, tf.bfloat16)
    products = {
        "NumPy float32": lambda: numbers @ numbers,
        "TensorFlow float32": lambda: tf.matmul(single, single).numpy(),
        "TensorFlow bfloat16": lambda: tf.matmul(half, half).numpy(),
    }
    print(json.dumps({"version": "", "num_parameters": 0}), flush=True)
    for _ in sys.stdin:
        found = {}
        for name, product in products.items():
            product()
            seconds = []
            for _ in range(settings["steps"]):
                started = time.perf_counter()
                product()
                seconds.append(time.perf_counter() - started)
            found[name] = 2 * size**3 / min(seconds)
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    settings = json.loads(sys.argv[1])
    (measure_peak if settings.get("peak") else train)(settings)
