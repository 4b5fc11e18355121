"""Thin helpers around Keras, NumPy and pandas for small recurrent language models.

Modules read upwards only: checks, progress, backend < files < data < corpora, public_data, simulation < tokenizers < evaluation,
baselines < models < training, generation < plots < reports, machine < cli.
Import what you need from the module that holds it, e.g. `from slm_helpers.data.loading import load_dataset`.
"""

import os

__version__ = "0.1.0"

# The one place where the backend is chosen, and the one thing that importing this package changes: Keras reads the variable
# once, on its first import, so a later choice would be too late. TensorFlow trains recurrent layers fastest on a CPU.
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
# TensorFlow's start-up notes (about instruction sets and rounding) would end up in saved notebook outputs.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
