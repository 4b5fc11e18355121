"""Which processor this is, and what a short measurement says it is good at."""

import hashlib
import json
import os
import platform
import re
import time
from collections.abc import Callable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from slm_helpers._paths import cache_dir

_KINDS = {  # (vendor, family, models): name
    ("AuthenticAMD", 23, range(0x00, 0x30)): "AMD Zen",
    ("AuthenticAMD", 23, range(0x30, 0x100)): "AMD Zen 2",
    ("AuthenticAMD", 25, (*range(0x00, 0x10), *range(0x20, 0x60))): "AMD Zen 3",
    ("AuthenticAMD", 25, (*range(0x10, 0x20), *range(0x60, 0xB0))): "AMD Zen 4",
    ("AuthenticAMD", 26, range(0x00, 0x100)): "AMD Zen 5",
    ("GenuineIntel", 6, (0x55,)): "Intel Skylake/Cascade Lake",
    ("GenuineIntel", 6, (0x6A, 0x6C)): "Intel Ice Lake",
    ("GenuineIntel", 6, (0x8F,)): "Intel Sapphire Rapids",
    ("GenuineIntel", 6, (0xCF,)): "Intel Emerald Rapids",
    ("GenuineIntel", 6, (0xAD, 0xAE)): "Intel Granite Rapids",
}
_WIDTHS = {"avx512f": 512, "avx2": 256, "avx": 256, "asimd": 128, "sse2": 128}  # bits of a vector register by flag
_GAIN = 1.15  # by which bfloat16 products must be faster: there is some casting to and fro in training


def describe_machine() -> str:
    """Return what a reader needs to judge a speed: cores, kind of processor, width of its vectors; no name of the machine."""
    facts = _cpu_facts()
    width = next((f", {bits}-bit vectors" for flag, bits in _WIDTHS.items() if flag in facts["flags"].split()), "")
    return f"{_num_cores()} cores, {_kind(facts)}, {platform.machine()}{width}"


@cache
def faster_precision() -> str:
    """Return "float32" or "bfloat16": the one in which matrix products as in recurrent layers take less time on this machine.

    The flags of a processor do not tell: some have the instructions, and multiply more slowly with them. It is measured once, in
    less than a second, and remembered in the cache folder (SLM_CACHE_DIR, else ~/.cache/slm_helpers) for this kind of processor
    and these versions of the libraries. SLM_PRECISION=float32 or bfloat16 overrules it.
    """
    chosen = os.environ.get("SLM_PRECISION") or _remembered()
    if chosen not in ("float32", "bfloat16"):
        chosen = _measure()
        _remember(chosen)
    return chosen


def _measure() -> str:
    """Return the faster precision of three rounds; the rounds of the two take turns, so that other load slows both."""
    from slm_helpers._backend import keras  # heavy: who only describes the machine does without

    times: dict[str, list[float]] = {"float32": [], "bfloat16": []}
    products = {name: _products(keras.ops, name) for name in times}
    products["float32"]()
    for _ in range(3):
        for name, product in products.items():
            started = time.perf_counter()
            product()
            times[name].append(time.perf_counter() - started)
        if min(times["bfloat16"]) > 2 * min(times["float32"]):
            break  # emulated: no need to wait for more of it
    return "bfloat16" if _GAIN * min(times["bfloat16"]) < min(times["float32"]) else "float32"


def _products(ops, dtype: str) -> Callable[[], object]:
    """Return a function that multiplies as a GRU of 512 units does: a state at each of a few steps, then all inputs at once."""
    state, recurrent, inputs, kernel = (ops.cast(ops.ones(shape), dtype) for shape in ((64, 512), (512, 1536), (1024, 256), (256, 1536)))

    def multiply() -> object:
        steps = [ops.matmul(state, recurrent) for _ in range(8)]
        return [ops.convert_to_numpy(ops.sum(ops.cast(each, "float32"))) for each in (*steps, ops.matmul(inputs, kernel))]

    return multiply


def _cache_file() -> Path:
    """Return where the choice for this machine is remembered: its name says kind, cores and versions, not whose machine it is."""
    libraries = {name: _version(name) for name in ("keras", "tensorflow-cpu", "tensorflow", "jax", "torch")}
    about = json.dumps([_cpu_facts(), _num_cores(), libraries, os.environ.get("KERAS_BACKEND", "")])
    return cache_dir() / f"machine-{hashlib.sha256(about.encode()).hexdigest()[:16]}.json"


def _remembered() -> str:
    try:
        return json.loads(_cache_file().read_text(encoding="utf-8")).get("precision", "")
    except (OSError, ValueError, AttributeError):
        return ""


def _remember(chosen: str) -> None:
    path = _cache_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}")
        part.write_text(json.dumps({"precision": chosen}), encoding="utf-8")
        part.replace(path)
    except OSError:
        return  # a folder that cannot be written to costs a measurement each time, nothing else


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


@cache
def _cpu_facts() -> dict[str, str]:
    """Return vendor, family, model, name and flags of the processor as Linux tells them; empty elsewhere."""
    path = Path("/proc/cpuinfo")
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    names = {"vendor": "vendor_id", "family": "cpu family", "model": "model", "name": "model name", "flags": "(?:flags|Features)"}
    found = {key: re.search(rf"^{name}\s*:\s*(.*)$", text, re.MULTILINE) for key, name in names.items()}
    return {key: match.group(1).strip() if match else "" for key, match in found.items()}


def _kind(facts: dict[str, str]) -> str:
    for (vendor, family, models), name in _KINDS.items():
        if facts["vendor"] == vendor and facts["family"] == str(family) and int(facts["model"] or -1) in models:
            return name
    return facts["name"] or platform.processor() or "unknown processor"


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
