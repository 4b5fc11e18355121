"""One ONNX file of a model folder, for programs in any language that have an ONNX runtime."""

from collections.abc import Callable
from pathlib import Path

from slm_helpers.data.files import atomic_write
from slm_helpers.deploy.graph_writer import check_graph
from slm_helpers.deploy.onnx_decoder import build_decoder_step, build_encoder
from slm_helpers.deploy.onnx_graph import build_graph
from slm_helpers.models.stored import ENCODER_DECODERS, current_builder, read_stored, read_weights

import onnx


def export_onnx(folder: str | Path, target: str | Path) -> list[Path]:
    """Write the graph of a model folder in float32, with its task, labels and tokeniser among the file's metadata.

    Args:
        folder: A model folder.
        target: The file, with the ending .onnx. Of an encoder-decoder two files are written, NAME.encoder.onnx and NAME.step.onnx, the
            second a step of the decoder.

    Returns:
        What was written. Inputs and outputs are those of `slm_helpers.deploy.onnx_graph.build_graph`, or of
        `slm_helpers.deploy.onnx_decoder`.

    Raises:
        FileNotFoundError: If there is no such folder.
        TypeError: If there is no graph for such a network.
        ValueError: If the folder is damaged, its parts do not fit together, or the ending is another one.
    """
    folder, target = Path(folder), Path(target)
    if target.suffix != ".onnx":
        raise ValueError(f"{target}: an ONNX graph is written to a file with the ending .onnx.")
    saved, config = read_stored(folder)
    builder = current_builder(config["builder"])
    graphs: dict[Path, Callable[..., onnx.ModelProto]] = {target: build_graph}
    if builder in ENCODER_DECODERS:
        graphs = {target.with_suffix(".encoder.onnx"): build_encoder, target.with_suffix(".step.onnx"): build_decoder_step}
    weights = read_weights(folder, config)
    models = {path: build(builder, config["arguments"], weights) for path, build in graphs.items()}
    about = {"task": saved.task, "labels": "\n".join(saved.labels), "source": folder.name}
    if (folder / "tokenizer.json").exists():
        about["tokenizer.json"] = (folder / "tokenizer.json").read_text(encoding="utf-8")
    for model in models.values():
        check_graph(model, folder)
        onnx.helper.set_model_props(model, about)
    for path, model in models.items():
        with atomic_write(path, "wb") as file:
            file.write(model.SerializeToString())
    return list(models)
