"""Run what a model folder holds in ONNX Runtime: no Keras, ready in a fraction of a second.

Graphs are made once a model and kept in the cache folder (SLM_CACHE_DIR, else ~/.cache/slm_helpers) under a name that is made of the
hash of the weights, the settings and the version of the graphs; a folder that cannot be written to costs the making each time.
Sessions may be used from several threads at once.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from slm_helpers._paths import cache_dir
from slm_helpers.data.files import atomic_write
from slm_helpers.models.stored import SavedModel, current_builder, read_stored, read_weights

import numpy as np
import onnxruntime

LANGUAGE_MODEL = "build_language_model"
ROW_NETWORKS = (
    *("build_text_classifier", "build_keyword_spotter", "build_knowledge_tracer"),
    *("build_tagger", "build_intent_slot_model", "build_span_extractor"),
)
_VERSION = 2  # of the graphs; a new one makes all of them anew
_MAX_CACHED = 64  # graphs, the latest used
_MANY_ROWS = 16  # from which on a second thread is worth its waiting

States = list[np.ndarray]


class LanguageModelEngine:
    """A language model with 8-bit weights, with the methods of `slm_helpers.generation.runtime.Runtime`; its features are the logits.

    States are float32 arrays, shape (batch, units). Logits differ from those of the Keras model by the rounding of the weights, see
    `slm_helpers.deploy.quantize`; the same tokens give the same logits, whatever else is read beside them.
    """

    def __init__(self, folder: Path, config: dict[str, Any]):
        self._step, self._reading = (_Graph(folder, config, form) for form in ("step", "reading"))
        self.vocab_size = int(config["arguments"]["vocab_size"])

    def zero_states(self, batch_size: int) -> States:
        """Return the states before the first token."""
        inputs = self._step.session(1).get_inputs()[1:]
        return [np.zeros((batch_size, each.shape[1]), dtype="float32") for each in inputs]

    def advance(self, token_ids: np.ndarray, states: States) -> States:
        """Read tokens, shape (batch, time), for the states behind them alone: the vocabulary is not scored."""
        return self._reading.run([token_ids, *states], [f"next_state_{i}" for i in range(len(states))])

    def read(self, token_ids: np.ndarray, states: States) -> tuple[np.ndarray, States]:
        """Read tokens, shape (batch, time); returns the logits after each, shape (batch, time, vocab_size), and the states."""
        logits, *states = self._reading.run([token_ids, *states])
        return logits, states

    def step(self, token_ids: np.ndarray, states: States) -> tuple[np.ndarray, States]:
        """Read one token a row, shape (batch,); returns the logits, shape (batch, vocab_size), and the states."""
        logits, *states = self._step.run([token_ids, *states])
        return logits, states

    def logits(self, features: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Return the features, which are the logits."""
        return features


class RowNetwork:
    """A network that reads rows, in float32: what `slm_helpers.models.rows.run_rows` needs of a Keras model."""

    def __init__(self, folder: Path, config: dict[str, Any]):
        self._graph = _Graph(folder, config, "rows")
        self.builder_config = json.dumps({"builder": current_builder(config["builder"]), "arguments": config["arguments"]})

    def predict_on_batch(self, inputs: np.ndarray | Sequence[np.ndarray]) -> np.ndarray:
        """Return the output for arrays in the order of the network's inputs."""
        return self._graph.run([inputs] if isinstance(inputs, np.ndarray) else list(inputs))[0]


def runs_without_keras(config: dict[str, Any]) -> bool:
    """Return whether `open_saved` can open a folder with such a config.json."""
    return current_builder(config["builder"]) in (LANGUAGE_MODEL, *ROW_NETWORKS)


def open_saved(folder: str | Path, *, task: str | None = None) -> SavedModel:
    """Open a model folder without Keras: like `slm_helpers.models.saved.load_model`, with another kind of model in it.

    Args:
        folder: Written by `save_model`; everything in it is checked before it is used.
        task: If given, refuse a model of another task.

    Returns:
        What the folder holds; its model is a LanguageModelEngine or a RowNetwork.

    Raises:
        FileNotFoundError: If the folder or one of its files is missing.
        TypeError: If there is no graph for such a network, see `runs_without_keras`.
        ValueError: If a file was changed or cut short, the folder is of a newer format or another task, its parts do not fit
            together, or a weight is NaN or infinite.
    """
    saved, config = read_stored(folder, task=task)
    if not runs_without_keras(config):
        raise TypeError(f"{folder}: models of {config['builder']} run with Keras only. Use load_model, in the shell --engine keras.")
    kind = LanguageModelEngine if current_builder(config["builder"]) == LANGUAGE_MODEL else RowNetwork
    saved.model = kind(saved.folder, config)
    return saved


class _Graph:
    """A graph of a model folder and its sessions: one for few rows, another with a second thread for many; each opened when needed."""

    def __init__(self, folder: Path, config: dict[str, Any], form: str):
        self._folder, self._config, self._form = folder, config, form
        self._sessions: dict[int, onnxruntime.InferenceSession] = {}
        self.session(1)  # what is wrong with a folder is told now

    def run(self, inputs: Sequence[np.ndarray], names: list[str] | None = None) -> list[np.ndarray]:
        """Return the outputs of these names; all unless given."""
        session = self.session(len(inputs[0]))
        feeds = {each.name: values for each, values in zip(session.get_inputs(), inputs, strict=True)}
        options = onnxruntime.RunOptions()
        options.only_execute_path_to_fetches = names is not None
        return session.run(names, feeds, options)

    def session(self, num_rows: int) -> onnxruntime.InferenceSession:
        """Return the session for so many rows."""
        num_threads = 1 if num_rows < _MANY_ROWS else min(2, os.cpu_count() or 1)
        if num_threads not in self._sessions:
            self._sessions[num_threads] = _open_session(self._folder, self._config, self._form, num_threads)
        return self._sessions[num_threads]


def _open_session(folder: Path, config: dict[str, Any], form: str, num_threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = num_threads, 1, 4
    # A thread that waits by spinning would take the time that another program, or the other thread, needs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    path = _cached_path(config, form)
    for graph in (str(path) if path.is_file() else None, None):
        try:
            graph = graph or _make_graph(folder, config, form, path)
            return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        except (ValueError, TypeError):
            raise
        except Exception as error:  # the library raises classes of its own; a damaged file in the cache is made anew
            problem = error
    raise ValueError(f"{folder}: its weights and settings do not fit together ({str(problem)[:200]}). Copy the folder again.")


def _make_graph(folder: Path, config: dict[str, Any], form: str, path: Path) -> bytes:
    """Return a graph, and leave it in the cache if that can be written to."""
    from slm_helpers.deploy.graph_writer import check_graph  # loads onnx, which a cached graph does without
    from slm_helpers.deploy.onnx_graph import build_graph
    from slm_helpers.deploy.quantize import build_reading, build_step

    weights, arguments = read_weights(folder, config), config["arguments"]
    try:
        if form == "rows":
            model = build_graph(current_builder(config["builder"]), arguments, weights)
        else:
            model = {"step": build_step, "reading": build_reading}[form](arguments, weights)
        check_graph(model, folder)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{folder}: the weights or the settings lack {error}. The folder does not fit this package.") from error
    graph = model.SerializeToString()
    try:
        with atomic_write(path, "wb") as file:
            file.write(graph)
        for old in sorted(path.parent.glob("*.onnx"), key=lambda each: each.stat().st_mtime)[:-_MAX_CACHED]:
            old.unlink(missing_ok=True)
    except OSError:
        pass  # a folder that cannot be written to costs this each time, nothing else
    return graph


def _cached_path(config: dict[str, Any], form: str) -> Path:
    about = [_VERSION, form, current_builder(config["builder"]), config["arguments"], config["sha256"]["weights.safetensors"]]
    name = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
    return cache_dir() / "graphs" / f"{name[:32]}.onnx"
