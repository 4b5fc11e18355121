"""Thin helpers around Keras, NumPy and pandas for small recurrent language models.

A module lives in the folder of what it returns, and imports from folders above it only:

    data       the outside world to DataFrames          text      strings to token ids and features
    metrics    predictions to tables with intervals     models    sizes to networks, and folders of saved ones
    training   a network and arrays to weights          generation  a network to a text
    baselines  what a network has to beat               tasks     one task a module: train, evaluate, predict
    apps, recipes, reports, cli   what is built on all of it
"""

import os

__version__ = "0.1.0"

# The one place where the backend is chosen, and the one thing that importing this package changes: Keras reads the variable
# once, on its first import, so a later choice would be too late. TensorFlow trains recurrent layers fastest on a CPU.
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
# TensorFlow's start-up notes (about instruction sets and rounding) would end up in saved notebook outputs.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
