"""Model folders as files, without Keras: replaced whole or not at all, and read with care, for they may come from anywhere."""

import json
import math
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from slm_helpers._paths import PRETRAINED_DIR

FORMAT_VERSION = 2  # 2 came with int8 weights; folders without them are still written as 1
FILES = ("config.json", "weights.safetensors", "tokenizer.json", "metrics.json", "history.csv", "card.md")
_ENTRIES = {"task": str, "builder": str, "arguments": dict, "labels": list, "settings": dict, "sha256": dict}  # of config.json
_MAX_JSON_BYTES = 50_000_000


@contextmanager
def atomic_folder(folder: str | Path) -> Iterator[Path]:
    """Make a folder under a temporary name; if the block ends well it takes the place of `folder`, else nothing has changed.

    What stands at `folder` is removed, so check it first, see `check_replaceable`.
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    room = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    new, old = room / "new", room / "old"
    try:
        new.mkdir()
        yield new
        if folder.exists():
            os.replace(folder, old)
        try:
            os.replace(new, folder)
        except BaseException:
            if old.exists():
                os.rename(old, folder)
            raise
    finally:
        shutil.rmtree(room, ignore_errors=True)


def check_replaceable(folder: str | Path) -> None:
    """Raise ValueError unless `folder` is free, empty, or a model folder that holds nothing else."""
    folder = Path(folder)
    if folder.is_symlink():
        raise ValueError(f"{folder} is a link, and a model would take its place. Give the folder itself, or another name.")
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not folder.is_dir() or not _is_ours(folder):
        raise ValueError(f"{folder} exists and is no model folder; it is left alone. Choose another name.")
    foreign = sorted(path.name for path in folder.iterdir() if path.name not in FILES or path.is_dir())
    if foreign:
        raise ValueError(
            f"{folder} holds {', '.join(foreign[:3])} beside a model, which would be lost; it is left alone. Choose another name."
        )


def model_folder(name: str | Path) -> Path:
    """Return the folder of the pretrained model of that name, or else the path that was given; raise if neither is there."""
    if (PRETRAINED_DIR / name / "config.json").exists():
        return PRETRAINED_DIR / name
    if not Path(name).exists():
        available = ", ".join(sorted(path.parent.name for path in PRETRAINED_DIR.glob("*/config.json"))) or "none yet"
        raise FileNotFoundError(f"{name} is neither a model folder nor a pretrained model ({available}). Check the path that was given.")
    return Path(name)


def read_config(folder: str | Path) -> dict[str, Any]:
    """Return the config.json of a model folder after checking that this package can read it.

    Raises:
        FileNotFoundError: If there is no such folder or no config.json in it.
        ValueError: If it cannot be read, is of a newer format, or an entry is missing or of another type.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: there is no such model folder.")
    if not (folder / "config.json").exists():
        raise FileNotFoundError(f"{folder} has no config.json, so it is not a model folder.")
    config = read_json(folder / "config.json")
    version = config.get("format_version") if isinstance(config, dict) else None
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise ValueError(f"{folder / 'config.json'} cannot be read (it has no format_version). Copy the folder again.")
    if version > FORMAT_VERSION:
        raise ValueError(f"{folder} is of format {version}, but this package reads up to {FORMAT_VERSION}. Update the package.")
    missing = [name for name in _ENTRIES if name not in config]
    if missing:
        raise ValueError(f"{folder / 'config.json'} lacks {', '.join(missing)}. Copy the folder again.")
    _check_entries(config, folder / "config.json")
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


def read_json(path: Path, *, strict: bool = True) -> Any:
    """Return what a JSON file holds.

    Args:
        path: Of the file.
        strict: Refuse NaN and infinite numbers; else they become None.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no regular file, no JSON, or too large or too deep.
    """
    check_regular(path)
    if path.stat().st_size > _MAX_JSON_BYTES:
        raise ValueError(f"{path} has {path.stat().st_size / 1e6:,.0f} MB, but at most {_MAX_JSON_BYTES / 1e6:,.0f} are read.")
    try:
        value = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse if strict else lambda name: None, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read ({error or type(error).__name__}). Copy the folder again.") from error
    return value


def write_json(path: Path, value: Any, *, strict: bool = True) -> None:
    """Write JSON; NaN and infinite numbers raise ValueError, or become null if not `strict`."""
    try:
        text = json.dumps(value if strict else _without_nan(value), indent=1, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise ValueError(f"{path.name}: a number is NaN or infinite, and JSON has neither. Leave it out.") from error
    path.write_text(text + "\n", encoding="utf-8")


def check_regular(path: Path) -> None:
    """Raise FileNotFoundError if there is no file, and ValueError if it is a pipe, a device or a folder: reading might never end."""
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing. Copy the model folder again.")
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError(f"{path} is no regular file. Copy the model folder again.")


def _is_ours(folder: Path) -> bool:
    try:
        return isinstance(read_json(folder / "config.json")["format_version"], int)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _check_entries(config: dict[str, Any], path: Path) -> None:
    for name, kind in _ENTRIES.items():
        if not isinstance(config[name], kind):
            raise ValueError(f"{path}: {name} is {config[name]!r:.40}, but must be a {kind.__name__}. Copy the folder again.")
    if not all(isinstance(label, str) for label in config["labels"]):
        raise ValueError(f"{path}: a label is no text. Copy the folder again.")
    hashes = config["sha256"]
    if not set(hashes) <= set(FILES) or not all(isinstance(value, str) for value in hashes.values()):
        raise ValueError(f"{path}: sha256 must hold hashes of files of the folder. Copy it again.")
    temperature = config["settings"].get("temperature", 1.0)
    if isinstance(temperature, bool) or not isinstance(temperature, int | float) or temperature <= 0:
        raise ValueError(f"{path}: temperature is {temperature!r}, but must be above 0. Copy the folder again.")


def _refuse(name: str) -> None:
    raise ValueError(f"it holds {name}")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"it holds {text}, which is too large")
    return value


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nan(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
