"""Generated tokens per second, beside the article's loop and beside feeding the whole prefix anew; and the cost of a cold start.

The article calls `model.predict` on the last token, once a token; that model forgets everything before it. The honest simple way
is `model.predict` on the whole text so far, once a token. Both are given compiled calls and greedy choice, ours samples: as `slm generate`
does, in ONNX Runtime with 8-bit weights, and in the NumPy loop with the exact ones.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.benchmarks.results import REPO_DIR, Parser, median_row, report, run_script

PROMPT = "Once upon a time there was"


def main(arguments: list[str] | None = None) -> None:
    """Measure and report."""
    options = parse(arguments)
    with model_folder(options) as folder:
        cold = [start_cold(folder) for _ in range(options.cold_rounds)]
        rows = [median_row(f"{folder.name}, fresh process", name, [one[name] for one in cold]) for name in (cold[0] if cold else ())]
        from slm_helpers.deploy.engine import open_saved
        from slm_helpers.models.saved import load_model

        saved, rounded = load_model(folder, task="lm"), open_saved(folder, task="lm")
        speeds = {}
        for batch_size in options.batch_sizes:
            name = f"{folder.name}, batch {batch_size}"
            speeds[batch_size], found = measure(saved, rounded, batch_size, options, name)
            rows += found
            if 1 in speeds and batch_size > 1:
                one_text = statistics.median(speeds[1]["the article's loop"])
                ratios = [speed / one_text for speed in speeds[batch_size]["slm_helpers"]]
                rows.append(median_row(f"{name}, slm_helpers against the article's loop with one text", "times_as_fast", ratios))
        num_parameters = saved.model.count_params()
    rows = [one | {"num_parameters": num_parameters} for one in rows]
    report(options, "generation_speed", rows, dataset="one prompt", model=folder.name)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Return the options."""
    parser = Parser("generation_speed", __doc__.split("\n")[0])
    parser.add_argument("--model", type=Path, default=REPO_DIR / "data" / "pretrained" / "slm-base-en", help="a model folder")
    parser.add_argument("--random", action="store_true", help="random weights instead of a model")
    parser.add_argument("--vocab-size", type=int, default=10_000, help="of --random")
    parser.add_argument("--embedding-dim", type=int, default=256, help="of --random")
    parser.add_argument("--units", type=int, default=512, help="of --random")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 64], help="texts written side by side")
    parser.add_argument("--tokens", type=int, default=256, help="tokens of each text that we write")
    parser.add_argument("--slow-tokens", type=int, default=32, help="tokens of each text in the loops compared with")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cold-rounds", type=int, default=3, help="fresh processes started")
    return parser.parse_args(arguments)


@contextmanager
def model_folder(options: argparse.Namespace) -> Iterator[Path]:
    """Give the folder of the model; with --random one that is gone afterwards."""
    if not options.random:
        if not (options.model / "config.json").exists():
            raise ValueError(f"{options.model} is no model folder. Name one with --model, or use --random.")
        yield options.model
        return
    from slm_helpers._backend import keras
    from slm_helpers.models.language_model import build_language_model
    from slm_helpers.models.saved import save_model

    keras.utils.set_random_seed(options.seed)
    model = build_language_model(options.vocab_size, embedding_dim=options.embedding_dim, units=options.units)
    with tempfile.TemporaryDirectory() as folder:
        name = f"random GRU {options.units}"
        yield save_model(Path(folder) / name, model, tokenizer=make_tokenizer(options.vocab_size, options.seed))


def make_tokenizer(vocab_size: int, seed: int):
    """Return a BPE tokeniser with exactly `vocab_size` ids, learnt from made-up words."""
    from slm_helpers.text.tokenizers import train_bpe_tokenizer

    import numpy as np

    letters = np.random.default_rng(seed).integers(97, 123, (vocab_size, 12)).astype("uint8")
    words = [bytes(word).decode() for word in letters]
    tokenizer = train_bpe_tokenizer([" ".join([PROMPT, *words])], vocab_size=vocab_size)
    if tokenizer.vocab_size != vocab_size:
        raise ValueError(f"vocab_size is {vocab_size}, but made-up words gave {tokenizer.vocab_size} ids. Use 300 to 50,000.")
    return tokenizer


def measure(
    saved: Any, rounded: Any, batch_size: int, options: argparse.Namespace, name: str
) -> tuple[dict[str, list[float]], list[dict[str, Any]]]:
    """Return tokens per second of each way and the rows of one batch size; the ways take turns.

    Args:
        saved: The model as Keras has it.
        rounded: The same without Keras.
        batch_size: Texts written side by side.
        options: From `parse`.
        name: Of the rows.
    """
    from slm_helpers.generation.generator import TextGenerator
    from slm_helpers.models.language_model import recurrent_layers

    import numpy as np

    model, tokenizer = saved.model, saved.tokenizer
    generator, exact = TextGenerator(rounded.model, tokenizer), TextGenerator(model, tokenizer)
    settings = {"max_tokens": options.tokens, "num_samples": batch_size, "stop_at_end": False, "seed": options.seed}
    for layer in recurrent_layers(model):
        layer.unrolled = False  # `predict` would compile each length of the prefix for itself
    prompt = np.repeat(tokenizer.encode(PROMPT)[None], batch_size, axis=0)
    first_token_seconds = []

    def ours() -> None:
        result = generator.generate(PROMPT, **settings)
        first_token_seconds.append(result.first_token_seconds)

    def numpy_loop() -> None:
        exact.generate(PROMPT, **settings)

    def articles_loop() -> None:
        last = prompt[:, -1:]
        for _ in range(options.slow_tokens):
            last = model.predict(last, verbose=0).argmax(axis=-1).astype("int32")

    def whole_prefix() -> None:
        text = prompt
        for _ in range(options.slow_tokens):
            new = model.predict(text, verbose=0)[:, -1].argmax(axis=-1).astype("int32")
            text = np.concatenate([text, new[:, None]], axis=1)

    ways: dict[str, tuple[Callable[[], None], int]] = {
        "slm_helpers": (ours, options.tokens),
        "the NumPy loop": (numpy_loop, options.tokens),
        "the article's loop": (articles_loop, options.slow_tokens),
        "whole prefix each time": (whole_prefix, options.slow_tokens),
    }
    speeds = take_turns(ways, batch_size, options.rounds)
    rows = [median_row(f"{name}, {way}", "tokens_per_second", values) for way, values in speeds.items()]
    for way in [way for way in ways if way != "slm_helpers"]:
        ratios = [ours / theirs for ours, theirs in zip(speeds["slm_helpers"], speeds[way], strict=True)]
        rows.append(median_row(f"{name}, slm_helpers against {way}", "times_as_fast", ratios))
    rows.append(median_row(f"{name}, slm_helpers", "first_token_seconds", first_token_seconds[1:]))
    return speeds, rows


def take_turns(ways: dict[str, tuple[Callable[[], None], int]], batch_size: int, rounds: int) -> dict[str, list[float]]:
    """Return by way the tokens per second of each round, after a warm-up that compiles."""
    speeds: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(rounds + 1):
        for way, (write, num_tokens) in ways.items():
            started = time.perf_counter()
            write()
            if number:
                speeds[way].append(batch_size * num_tokens / (time.perf_counter() - started))
    return speeds


def start_cold(folder: Path) -> dict[str, float]:
    """Return the seconds from the start of `slm generate` to the loaded model, to the first text and to the end of 20 tokens."""
    command = [sys.executable, "-m", "slm_helpers", "generate", "--model", str(folder), "--prompt", PROMPT, "--max-tokens", "20", "--json"]
    started = time.perf_counter()
    process = subprocess.Popen(command, cwd=REPO_DIR, stdout=subprocess.PIPE, text=True)
    line = process.stdout.readline()
    written = time.perf_counter() - started
    if process.wait() or not line:
        raise ValueError(f"slm generate ended with exit code {process.returncode}; its error stands above.")
    found = json.loads(line)
    # The command tells how long it generated; what came before that is start, imports and loading.
    loaded = written - found["num_tokens"] / found["tokens_per_second"] if found["num_tokens"] else written
    return {
        "seconds_to_loaded_model": loaded,
        "seconds_to_first_text": loaded + found["first_token_seconds"],
        "seconds_to_20_tokens": written,
    }


if __name__ == "__main__":
    run_script(main)
