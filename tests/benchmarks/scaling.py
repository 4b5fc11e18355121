"""How the cost of training grows: with the corpus, the length of the windows and the size of the batch.

Each measurement is a fresh process that trains on a memory-mapped file of random token ids: a whole epoch for the corpus, a fixed
number of tokens for the others. A linear cost shows as equal seconds per 1,000 tokens.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from tests.benchmarks.results import Parser, in_fresh_process, peak_memory_mb, report, row, run_script


def main(arguments: list[str] | None = None) -> None:
    """Measure and report."""
    options = parse(arguments)
    if options.one:
        print(json.dumps(measure(json.loads(options.one))))
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, settings in plan(options):
            found = in_fresh_process("scaling", settings | {"folder": folder, "seed": options.seed})
            columns = {"train_rows": found["num_tokens"], "train_seconds": found["seconds"], "num_parameters": found["num_parameters"]}
            rows.append(row(name, "seconds_per_1000_tokens", 1000 * found["seconds"] / found["num_tokens"], **columns))
            rows.append(row(name, "peak_memory_mb", found["peak_memory_mb"], **columns))
    report(options, "scaling", rows, dataset=f"random tokens of {options.vocab_size}")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Return the options."""
    parser = Parser("scaling", __doc__.split("\n")[0])
    parser.add_argument("--vocab-size", type=int, default=2048)
    parser.add_argument("--embedding-dim", type=int, default=64)
    parser.add_argument("--units", type=int, default=128)
    parser.add_argument("--tokens", type=int, default=250_000, help="tokens of the smallest corpus, and of each other measurement")
    parser.add_argument("--multiples", type=int, nargs="+", default=[1, 4, 16], help="sizes of the corpus")
    parser.add_argument("--windows", type=int, nargs="+", default=[32, 64, 128, 256], help="tokens in a window")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[16, 64, 256], help="windows in a batch")
    parser.add_argument("--one", help=argparse.SUPPRESS)  # settings of one measurement, in its own process
    return parser.parse_args(arguments)


def plan(options: argparse.Namespace) -> list[tuple[str, dict[str, Any]]]:
    """Return name and settings of each measurement; corpus 1x, window 64 and batch 64 are the common point."""
    sizes = {name: getattr(options, name) for name in ("vocab_size", "embedding_dim", "units")}
    common = sizes | {"num_tokens": options.tokens, "window": 64, "batch_size": 64}
    return [
        *((f"corpus {n}x ({n * options.tokens:,} tokens)", common | {"num_tokens": n * options.tokens}) for n in options.multiples),
        *((f"window {n}", common | {"window": n}) for n in options.windows),
        *((f"batch {n}", common | {"batch_size": n}) for n in options.batch_sizes),
    ]


def measure(settings: dict[str, Any]) -> dict[str, Any]:
    """Train one epoch on the token file; its first steps, which compile, are left out of the time."""
    from slm_helpers._backend import keras
    from slm_helpers.models.language_model import build_language_model
    from slm_helpers.training.config import TrainConfig
    from slm_helpers.training.streams import fit_model

    path = write_tokens(settings)
    keras.utils.set_random_seed(settings["seed"])
    model = build_language_model(settings["vocab_size"], embedding_dim=settings["embedding_dim"], units=settings["units"])
    config = TrainConfig(epochs=1, batch_size=settings["batch_size"], window=settings["window"], eval_steps=2, seed=settings["seed"])

    import numpy as np

    history = fit_model(model, np.load(path, mmap_mode="r"), config=config)
    steps, seconds = (history[name].to_numpy() for name in ("step", "seconds"))
    return {
        "num_tokens": int(steps[-1] - steps[0]) * config.batch_size * config.window,
        "seconds": float(seconds[-1] - seconds[0]),
        "num_parameters": model.count_params(),
        "peak_memory_mb": peak_memory_mb(),
    }


def write_tokens(settings: dict[str, Any]) -> Path:
    """Write the stream piece by piece, so that writing takes no memory either; a stream that is there already is used again."""
    import numpy as np

    path = Path(settings["folder"]) / f"{settings['num_tokens']}.npy"
    if not path.exists():
        stream = np.lib.format.open_memmap(path, mode="w+", dtype="uint16", shape=(settings["num_tokens"],))
        rng = np.random.default_rng(settings["seed"])
        for start in range(0, len(stream), 100_000):
            part = stream[start : start + 100_000]
            part[:] = rng.integers(3, settings["vocab_size"], len(part))
        stream.flush()
    return path


if __name__ == "__main__":
    run_script(main)
