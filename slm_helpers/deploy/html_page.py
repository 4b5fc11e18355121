"""A model as one HTML page that needs no server and no network: a language model to write with, a classifier to try texts on.

The page holds the weights (matrices rounded to 8 bits, see `slm_helpers.models.stored.quantize_matrix`; tables of n-grams to 16), the
tokeniser, and the network in plain JavaScript, which computes the logits of the rounded weights to 1e-3.
"""

import base64
import html
import json
from pathlib import Path
from typing import Any

from slm_helpers.data.files import atomic_write
from slm_helpers.models.folders import read_licence
from slm_helpers.models.stored import SavedModel, current_builder, quantize_matrix, read_stored, read_weights, rounding_axis

import numpy as np

PAGES = {"build_language_model": "language_model", "build_text_classifier": "text_classifier"}  # names in the folder page, by builder
_PARTS = Path(__file__).with_name("page")
_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'"  # what is inside runs; nothing is fetched or sent


def export_html(folder: str | Path, target: str | Path) -> list[Path]:
    """Write a model folder as a page.

    Args:
        folder: A language model or a classifier of texts.
        target: The file, with the ending .html. What stands behind # in its address fills in the page, e.g. #text=The%20boy&go.

    Returns:
        What was written.

    Raises:
        FileNotFoundError: If there is no such folder.
        TypeError: If there is no page for such a network.
        ValueError: If the folder is damaged, has no tokeniser, or the ending is another one.
    """
    folder, target = Path(folder), Path(target)
    if target.suffix not in (".html", ".htm"):
        raise ValueError(f"{target}: a page is written to a file with the ending .html.")
    saved, config = read_stored(folder)
    builder = current_builder(config["builder"])
    if builder not in PAGES:
        raise TypeError(f"{folder}: there is no page for models of {builder}, only for those of {', '.join(PAGES)}.")
    if saved.tokenizer is None:
        raise ValueError(f"{folder} has no tokenizer.json, so the page could not read a text. Save the model with its tokeniser.")
    settings = {"max_tokens": 256} | {name: saved.settings[name] for name in ("max_tokens", "temperature") if name in saved.settings}
    model = {
        "arguments": config["arguments"],
        "labels": saved.labels,
        "settings": settings,
        "tokenizer": {"model": json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]},
        "weights": {path: _encoded(path, values) for path, values in read_weights(folder, config).items()},
    }
    with atomic_write(target) as file:
        file.write(_page(PAGES[builder], saved, model))
    return [target]


def page_weights(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the weights as a page holds them, float32, by path."""
    kinds = {path: _kind(path, values) for path, values in weights.items()}
    scaled = {path: rounding_axis(path, values) for path, values in weights.items() if kinds[path] == "int8"}
    rounded = {path: np.multiply(*quantize_matrix(weights[path], axis=axis)) for path, axis in scaled.items()}
    return {path: rounded.get(path, values.astype(kinds[path] if path not in rounded else "float32")) for path, values in weights.items()}


def _kind(path: str, values: np.ndarray) -> str:
    if path.startswith("ngram_scores/"):
        return "float16"
    return "float32" if rounding_axis(path, values) is None else "int8"


def _encoded(path: str, values: np.ndarray) -> dict[str, Any]:
    kind, scales = _kind(path, values), {}
    if kind == "int8":
        axis = rounding_axis(path, values)
        values, factors = quantize_matrix(values, axis=axis)
        scales = {"axis": axis, "scales": _base64(factors.astype("<f4"))}
    numbers = values.astype({"int8": "i1", "float16": "<f2", "float32": "<f4"}[kind])
    return {"shape": list(values.shape), "type": kind, "data": _base64(numbers)} | scales


def _base64(values: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode("ascii")


def _page(kind: str, saved: SavedModel, model: dict[str, Any]) -> str:
    name = html.escape(saved.folder.name)
    css, network, script, body = ((_PARTS / part).read_text("utf-8") for part in ("page.css", "network.js", f"{kind}.js", f"{kind}.html"))
    licence = saved.settings.get("licence") or read_licence(saved.folder)
    licence = f"\nTrained on: {html.escape(licence)}" if licence else ""
    data = json.dumps(model, ensure_ascii=False).replace("<", "\\u003c")  # nothing in it can end the element
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{name}</title>
<style>
{css}</style>
</head>
<body>
<h1>{name}</h1>
<noscript><p>This page computes with JavaScript, which is switched off in this browser. Allow it here: nothing is sent.</p></noscript>
{body}
<footer>The model runs inside this page: nothing is sent or fetched.{licence}</footer>
<script type="application/json" id="model">{data}</script>
<script>
{network}
{script}</script>
</body>
</html>
"""
