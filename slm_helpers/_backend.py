"""Import Keras with its backend, without TensorFlow's start-up notes.

TensorFlow writes two notes about rounding straight to the process' error stream, whatever its log level says, and a notebook
would keep them among its outputs. Modules of this package import Keras from here; a page that imports `slm_helpers` modules
first stays clean too. Which backend is chosen in `slm_helpers/__init__.py`.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Send the process' error stream (not Python's) to nowhere; exceptions still arrive."""
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


if "keras" in sys.modules:
    import keras
else:
    with _quiet_stderr():
        import keras

        keras.ops.zeros(1) + 1  # the second note comes with the first computation

__all__ = ["has_bfloat16", "keras"]


def has_bfloat16() -> bool:
    """Return whether the processor multiplies bfloat16 numbers itself (known on Linux only)."""
    cpu = Path("/proc/cpuinfo")
    return cpu.exists() and bool({"avx512_bf16", "amx_bf16"} & set(cpu.read_text(encoding="utf-8").split()))
