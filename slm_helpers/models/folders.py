"""What stands in a model folder, read and checked without loading Keras."""

import json
import re
from pathlib import Path
from typing import Any

from slm_helpers._paths import PRETRAINED_DIR

FORMAT_VERSION = 1
FILES = ("config.json", "weights.safetensors", "tokenizer.json", "metrics.json", "history.csv", "card.md")


def model_folder(name: str | Path) -> Path:
    """Return the folder of the pretrained model of that name, or else the path that was given."""
    return PRETRAINED_DIR / name if (PRETRAINED_DIR / name / "config.json").exists() else Path(name)


def read_config(folder: Path) -> dict[str, Any]:
    """Return the config.json of a model folder after checking that this package can read it."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: there is no such model folder.")
    if not (folder / "config.json").exists():
        raise FileNotFoundError(f"{folder} has no config.json, so it is not a model folder.")
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        version = config["format_version"]
        missing = [name for name in ("task", "builder", "arguments", "labels", "settings", "sha256") if name not in config]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder / 'config.json'} cannot be read ({error!r}). Copy the folder again.") from error
    if version > FORMAT_VERSION:
        raise ValueError(f"{folder} is of format {version}, but this package reads up to {FORMAT_VERSION}. Update the package.")
    if missing:
        raise ValueError(f"{folder / 'config.json'} lacks {', '.join(missing)}. Copy the folder again.")
    return config


def read_licence(folder: Path | None) -> str:
    """Return what the card of a model says about the licence of its weights, else about the texts it learned from; "" if nothing."""
    if folder is None or not (folder / "card.md").is_file():
        return ""
    card = (folder / "card.md").read_text(encoding="utf-8")
    for heading in ("Licence", "Licence of the base", "Data"):
        if found := re.search(rf"^- \*\*{heading}\.\*\* (.*(?:\n  .*)*)", card, re.MULTILINE):
            return f"{folder.name}: {' '.join(found[1].split())}"
    return ""


def check_replaceable(folder: Path) -> None:
    """Raise ValueError if something stands at `folder` that is not a model folder."""
    if folder.exists() and not (folder / "config.json").exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} exists and is no model folder; it is left alone. Choose another name.")
