"""Open a model folder for use, with the engine that is asked for."""

from pathlib import Path

from slm_helpers._checks import check_choice
from slm_helpers.deploy.engine import LANGUAGE_MODEL, open_saved, runs_without_keras
from slm_helpers.generation.runtime import Runtime
from slm_helpers.models.folders import read_config
from slm_helpers.models.stored import ENCODER_DECODERS, SavedModel, current_builder, read_stored, read_weights

ENGINES = ("onnx", "numpy", "keras")


def open_model(folder: str | Path, *, task: str | None = None, engine: str = "onnx", exact: bool = False) -> SavedModel:
    """Open a model folder to predict with it.

    Args:
        folder: Written by `slm_helpers.models.saved.save_model`.
        task: If given, refuse a model of another task.
        engine: "onnx" runs networks without loading Keras, which takes seconds: language models with 8-bit weights, all others with the
            same numbers to 1e-5. "numpy" runs language models with the weights of the folder, without Keras too. "keras" runs all in
            Keras, to check the others by. What an engine cannot run is opened with Keras.
        exact: Take "numpy" for a language model where the engine is "onnx".

    Raises:
        FileNotFoundError: If the folder or one of its files is missing.
        ValueError: If the engine is unknown, or something is wrong with the folder, see `load_model`.
    """
    check_choice(ENGINES, engine=engine)
    config = read_config(Path(folder))  # what can be wrong with it is told before Keras is loaded
    builder = current_builder(config["builder"])
    if builder == LANGUAGE_MODEL and (engine == "numpy" or (exact and engine == "onnx")):
        saved, config = read_stored(folder, task=task)
        saved.model = Runtime(config["arguments"], read_weights(folder, config))
        return saved
    if engine == "onnx" and runs_without_keras(config):
        return open_saved(folder, task=task)
    from slm_helpers.models.saved import load_model

    saved = load_model(folder, task=task)
    if engine == "keras" and builder in ENCODER_DECODERS:
        from slm_helpers.generation.sequences import KerasDecoder

        saved.model = KerasDecoder(saved.model)
    return saved
