"""Run what a model folder holds in ONNX Runtime: no Keras, ready in a fraction of a second.

Graphs are made once a model and kept in the cache folder (SLM_CACHE_DIR, else ~/.cache/slm_helpers) under a name that is made of the
hash of the weights, the settings and the version of the graphs; a folder that cannot be written to costs the making each time.
Sessions may be used from several threads at once.
"""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from slm_helpers._paths import cache_dir
from slm_helpers.data.files import atomic_write
from slm_helpers.models.stored import ENCODER_DECODERS, SavedModel, current_builder, read_stored, read_weights

import numpy as np
import onnxruntime

LANGUAGE_MODEL = "build_language_model"
ROW_NETWORKS = (
    *("build_text_classifier", "build_keyword_spotter", "build_knowledge_tracer"),
    *("build_tagger", "build_intent_slot_model", "build_span_extractor"),
)
_VERSION = 3  # of the graphs; a new one makes all of them anew
_MAX_CACHED = 64  # graphs, the latest used
_MANY_ROWS = 16  # from which on a second thread is worth its waiting
_NUM_WORKERS = min(2, os.cpu_count() or 1)

States = list[np.ndarray]


class LanguageModelEngine:
    """A language model with 8-bit weights, with the methods of `slm_helpers.generation.runtime.Runtime`; its features are the logits.

    States are float32 arrays, shape (batch, units). Logits differ from those of the Keras model by the rounding of the weights, see
    `slm_helpers.deploy.quantize`; the same tokens give the same logits, whatever else is read beside them.
    """

    def __init__(self, folder: Path, config: dict[str, Any]):
        self._step, self._reading = (_stored_graph(folder, config, form, most_threads=_NUM_WORKERS) for form in ("step", "reading"))
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

    num_workers = _NUM_WORKERS  # batches worth running side by side, one thread each

    def __init__(self, folder: Path, config: dict[str, Any]):
        self._graph = _stored_graph(folder, config, "rows")
        self.builder_config = _recipe(config)

    def predict_on_batch(self, inputs: np.ndarray | Sequence[np.ndarray]) -> np.ndarray:
        """Return the output for arrays in the order of the network's inputs."""
        return self._graph.run([inputs] if isinstance(inputs, np.ndarray) else list(inputs))[0]


class EncoderDecoderEngine:
    """A network that reads a sequence and writes another, in float32: what `slm_helpers.generation.sequences.decode_sequences` needs."""

    num_workers = _NUM_WORKERS  # batches worth running side by side, one thread each

    def __init__(self, encoder: "_Graph", step: "_Graph", builder_config: str):
        self._encoder, self._step, self.builder_config = encoder, step, builder_config
        self.vocab_size = int(json.loads(builder_config)["arguments"]["vocab_size"])

    @classmethod
    def from_folder(cls, folder: Path, config: dict[str, Any]) -> "EncoderDecoderEngine":
        """Return the engine of a model folder."""
        return cls(*(_stored_graph(folder, config, form) for form in ("encoder", "search_step")), _recipe(config))

    @classmethod
    def from_weights(cls, builder_config: str, weights: dict[str, np.ndarray]) -> "EncoderDecoderEngine":
        """Return the engine of a network in memory; `weights` by path, `builder_config` as the builder leaves it on the model."""
        recipe = json.loads(builder_config)
        graphs = []
        for form in ("encoder", "search_step"):
            graph = _build(form, recipe["builder"], recipe["arguments"], weights).SerializeToString()
            graphs.append(_Graph(partial(_session, graph)))
        return cls(*graphs, builder_config)

    def encode(self, source_ids: np.ndarray) -> tuple[States, States]:
        """Read sources, int32, shape (batch, time), padded with 0; returns the decoder's first states, and what each step reads besides."""
        *states, memory = self._encoder.run([source_ids])
        wanted = [each for each in self._step.session(1).get_inputs() if each.name.startswith("state_")][len(states) :]
        states += [np.zeros((len(source_ids), each.shape[1]), dtype="float32") for each in wanted]
        return states, [memory, source_ids]

    def expand(
        self, token_ids: np.ndarray, states: States, fixed: States, num_best: int, penalties: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, States]:
        """Write one token a row: the likeliest ones, as `slm_helpers.generation.beam.Expand` has it, `penalties` added to all."""
        best = np.array([min(num_best, self.vocab_size)])
        log_probs, ids, *states = self._step.run([token_ids, *states, *fixed, penalties, best])
        return log_probs, ids, states


def runs_without_keras(config: dict[str, Any]) -> bool:
    """Return whether `open_saved` can open a folder with such a config.json."""
    return current_builder(config["builder"]) in (LANGUAGE_MODEL, *ROW_NETWORKS, *ENCODER_DECODERS)


def open_saved(folder: str | Path, *, task: str | None = None) -> SavedModel:
    """Open a model folder without Keras: like `slm_helpers.models.saved.load_model`, with another kind of model in it.

    Args:
        folder: Written by `save_model`; everything in it is checked before it is used.
        task: If given, refuse a model of another task.

    Returns:
        What the folder holds; its model is a LanguageModelEngine, a RowNetwork or an EncoderDecoderEngine.

    Raises:
        FileNotFoundError: If the folder or one of its files is missing.
        TypeError: If there is no graph for such a network, see `runs_without_keras`.
        ValueError: If a file was changed or cut short, the folder is of a newer format or another task, its parts do not fit
            together, or a weight is NaN or infinite.
    """
    saved, config = read_stored(folder, task=task)
    if not runs_without_keras(config):
        raise TypeError(f"{folder}: models of {config['builder']} run with Keras only. Use load_model, in the shell --engine keras.")
    builder = current_builder(config["builder"])
    kind = {LANGUAGE_MODEL: LanguageModelEngine} | dict.fromkeys(ENCODER_DECODERS, EncoderDecoderEngine.from_folder)
    saved.model = kind.get(builder, RowNetwork)(saved.folder, config)
    return saved


def _recipe(config: dict[str, Any]) -> str:
    return json.dumps({"builder": current_builder(config["builder"]), "arguments": config["arguments"]})


class _Graph:
    """A graph and its sessions: one for few rows, another with more threads, if it may have them, for many; opened when needed."""

    def __init__(self, open_session: Callable[[int], onnxruntime.InferenceSession], *, most_threads: int = 1):
        self._open, self._most_threads, self._sessions = open_session, most_threads, {}
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
        num_threads = 1 if num_rows < _MANY_ROWS else self._most_threads
        if num_threads not in self._sessions:
            self._sessions[num_threads] = self._open(num_threads)
        return self._sessions[num_threads]


def _stored_graph(folder: Path, config: dict[str, Any], form: str, *, most_threads: int = 1) -> _Graph:
    return _Graph(partial(_stored_session, folder, config, form), most_threads=most_threads)


def _session(graph: str | bytes, num_threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = num_threads, 1, 4
    # A thread that waits by spinning would take the time that another program, or the other thread, needs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def _stored_session(folder: Path, config: dict[str, Any], form: str, num_threads: int) -> onnxruntime.InferenceSession:
    path = _cached_path(config, form)
    for graph in (str(path) if path.is_file() else None, None):
        try:
            return _session(graph or _make_graph(folder, config, form, path), num_threads)
        except (ValueError, TypeError):
            raise
        except Exception as error:  # the library raises classes of its own; a damaged file in the cache is made anew
            problem = error
    raise ValueError(f"{folder}: its weights and settings do not fit together ({str(problem)[:200]}). Copy the folder again.")


def _build(form: str, builder: str, arguments: dict[str, Any], weights: dict[str, np.ndarray]) -> Any:
    """Return a graph of one of the forms; this loads onnx, which a cached graph does without."""
    from slm_helpers.deploy.onnx_decoder import build_encoder, build_search_step
    from slm_helpers.deploy.onnx_graph import build_graph
    from slm_helpers.deploy.quantize import build_reading, build_step

    if form in ("step", "reading"):
        return {"step": build_step, "reading": build_reading}[form](arguments, weights)
    return {"rows": build_graph, "encoder": build_encoder, "search_step": build_search_step}[form](builder, arguments, weights)


def _make_graph(folder: Path, config: dict[str, Any], form: str, path: Path) -> bytes:
    """Return a graph, and leave it in the cache if that can be written to."""
    from slm_helpers.deploy.graph_writer import check_graph

    weights = read_weights(folder, config)
    try:
        model = _build(form, current_builder(config["builder"]), config["arguments"], weights)
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
