"""One folder for a room without a network: the repository, wheels for its lock, checksums, a start script and a door check."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from slm_helpers._paths import REPO_DIR
from slm_helpers.data.files import sha256_of

CHECKSUMS = "SHA256SUMS"
WHEELS = "wheelhouse"
_LEFT_OUT = {".git", ".venv", ".ci", "reports", "__pycache__", ".pytest_cache", ".ruff_cache", ".ipynb_checkpoints", "runs", WHEELS}
_START_SH = f"""#!/bin/sh
# Sets up the environment without a network (some minutes, 2.3 GB), checks this machine and opens the notebooks.
set -e
cd "$(dirname "$0")"
[ -x .venv/bin/slm ] || {{
    python3 -m venv .venv
    .venv/bin/python -m pip install --quiet --no-index --find-links {WHEELS} --no-compile --require-hashes -r requirements.lock
    .venv/bin/python -m pip install --quiet --no-index --find-links {WHEELS} --no-deps --no-build-isolation --editable .
}}
.venv/bin/slm workshop door
exec .venv/bin/python -m jupyterlab notebooks
"""
_START_BAT = f"""@echo off
rem Sets up the environment without a network (some minutes, 2.3 GB), checks this machine and opens the notebooks.
cd /d "%~dp0"
set OFFLINE=--quiet --no-index --find-links {WHEELS}
if not exist .venv\\Scripts\\slm.exe (
    python -m venv .venv || exit /b 1
    .venv\\Scripts\\python -m pip install %OFFLINE% --no-compile --require-hashes -r requirements.lock || exit /b 1
    .venv\\Scripts\\python -m pip install %OFFLINE% --no-deps --no-build-isolation --editable . || exit /b 1
)
.venv\\Scripts\\slm workshop door || exit /b 1
.venv\\Scripts\\python -m jupyterlab notebooks
"""


def write_bundle(out: Path, *, wheels: Path | None = None, archive: bool = False, say: Callable[[str], None] = lambda line: None) -> Path:
    """Write a folder with all that a room needs, and return it (or the zip file beside it).

    Args:
        out: A folder that is not there yet.
        wheels: A folder of wheels for requirements.lock of this system and Python; without it pip downloads them, which needs a network.
        archive: Pack the folder as out.zip and remove it.
        say: Gets a line before each step.

    Raises:
        FileExistsError: If `out` is there.
        RuntimeError: If pip cannot download the wheels.
    """
    if out.exists():
        raise FileExistsError(f"{out} is there already. Name a new folder.")
    out.mkdir(parents=True)
    try:
        say("the repository")
        for path in sorted(_files()):
            target = out / path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(REPO_DIR / path, target)
        say("wheels")
        if wheels is None:
            _download(out / WHEELS)
        else:
            shutil.copytree(wheels, out / WHEELS)
        (out / "start.sh").write_text(_START_SH, encoding="utf-8", newline="\n")
        (out / "start.sh").chmod(0o755)
        (out / "start.bat").write_text(_START_BAT, encoding="utf-8", newline="\r\n")
        say("checksums")
        lines = [f"{sha256_of(path)}  {path.relative_to(out).as_posix()}\n" for path in sorted(out.rglob("*")) if path.is_file()]
        (out / CHECKSUMS).write_text("".join(lines), encoding="utf-8", newline="\n")
        if archive:
            say("the zip file")
            made = Path(shutil.make_archive(str(out), "zip", root_dir=out.parent, base_dir=out.name))
            shutil.rmtree(out)
            return made
    except BaseException:
        shutil.rmtree(out, ignore_errors=True)
        raise
    return out


def check_bundle(folder: Path) -> list[str]:
    """Return what is wrong with the files of a bundle, a line each: missing or changed ones; none if all is well or it is no bundle."""
    path = folder / CHECKSUMS
    if not path.exists():
        return []
    wrong = []
    for line in path.read_text(encoding="utf-8").splitlines():
        expected, _, name = line.partition("  ")
        if not (folder / name).is_file():
            wrong.append(f"{name} is missing")
        elif hashlib.sha256((folder / name).read_bytes()).hexdigest() != expected:
            wrong.append(f"{name} has changed")
    return wrong


def _files() -> Iterator[Path]:
    """Yield the files of the repository, relative to it, but for what tools have left."""
    for folder, names, files in os.walk(REPO_DIR):
        names[:] = [name for name in names if name not in _LEFT_OUT and not name.endswith(".egg-info")]
        for name in files:
            if not name.endswith((".pyc", ".part")):
                yield (Path(folder) / name).relative_to(REPO_DIR)


def _download(folder: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--require-hashes",
        "-r",
        str(REPO_DIR / "requirements.lock"),
        "-d",
        str(folder),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["no message"]
        raise RuntimeError(f"pip could not download the wheels ({last[0][:200]}). With a folder of them say --wheels FOLDER.")
