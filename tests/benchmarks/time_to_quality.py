"""What a character language model reaches in a given time: nats per character on text it has not seen, everything counted.

The first 90 % of the characters of a text are for training, the rest for validation, read in windows of 256 that each start from
a zero state. The clock starts with the process: imports, reading, compiling, training and the evaluation are all in it.
"""

import argparse
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.results import Parser, report, row, run_script

import psutil

EVALUATION_WINDOW = 256  # characters


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What to train when a certain time is given."""

    up_to_seconds: float  # of the whole run
    units: int
    num_layers: int = 1
    embedding_dim: int = 64
    dropout: float
    learning_rate: float
    optimizer: str = "muon"
    schedule: str = "cosine"
    warmup_steps: int = 50
    weight_decay: float = 0.01
    batch_size: int = 64  # windows
    window: int = 64  # characters
    carry_state: bool = True
    precision: str = "auto"
    eval_steps: int = 0  # steps between looks at valid, the best of which is kept; 0: no look, the last weights count


# The first whose time suffices is taken. Each character of tiny_shakespeare is seen 4 times in 100 s: dropout would only hinder.
# In 20 minutes it is seen 40 times, and without much dropout the network would learn the text by heart.
RECIPES = (
    Recipe(up_to_seconds=200, units=384, dropout=0.05, learning_rate=0.012),
    Recipe(up_to_seconds=600, units=512, dropout=0.2, learning_rate=0.012),
    Recipe(up_to_seconds=math.inf, units=512, dropout=0.35, learning_rate=0.01, weight_decay=0.05, eval_steps=500),
)


def main(arguments: list[str] | None = None) -> None:
    """Train, evaluate and report."""
    options = parse(arguments)
    started = process_start()
    recipe = recipe_for(options.seconds)
    deadline = started + options.seconds - options.margin
    text = options.text.read_text(encoding="utf-8") if options.text else bundled_text()
    # Keras comes in only now: the options were cheap to check.
    from slm_helpers._backend import keras
    from slm_helpers.models.language_model import build_language_model
    from slm_helpers.training.config import TrainConfig
    from slm_helpers.training.streams import count_tokens_trained, evaluate_loss, fit_model

    train_ids, valid_ids, vocab_size = split_characters(text)
    keras.utils.set_random_seed(options.seed)
    model = build_language_model(vocab_size, **pick(recipe, "embedding_dim", "units", "num_layers", "dropout"))
    # The same evaluation on the first windows tells how long the whole will take; the first ones also compile.
    batch_size, sample = 128, 512 * EVALUATION_WINDOW + 1
    before = time.time()
    evaluate_loss(model, valid_ids[:sample], window=EVALUATION_WINDOW, batch_size=batch_size)
    reserve = 1.1 * (time.time() - before) * max(1.0, len(valid_ids) / sample)
    max_seconds = deadline - reserve - time.time()
    if max_seconds <= 0:
        raise ValueError(f"{options.seconds:g} seconds are too few: start and evaluation alone take them. Allow 30 at least.")
    names = ("optimizer", "learning_rate", "schedule", "warmup_steps", "weight_decay", "batch_size", "window", "carry_state", "precision")
    config = TrainConfig(
        epochs=1_000_000,  # the time ends it
        eval_steps=recipe.eval_steps or 100,
        max_seconds=max_seconds,
        seed=options.seed,
        **pick(recipe, *names),
    )
    history = fit_model(model, train_ids, valid_ids if recipe.eval_steps else None, config=config)
    valid_loss = evaluate_loss(model, valid_ids, window=EVALUATION_WINDOW, batch_size=batch_size)
    looks = history.pivot(index="seconds", columns="split", values="loss_nats").round(4).reset_index()
    name = f"GRU {' + '.join([str(recipe.units)] * recipe.num_layers)} in {options.seconds:g} s"
    facts = {
        "valid_loss_nats": valid_loss,
        "seconds": time.time() - started,
        "train_seconds": float(history["seconds"].max()),
        "num_parameters": model.count_params(),
        "vocab_size": vocab_size,
        "num_steps": int(history["step"].max()),
        "epochs": count_tokens_trained(history, config) / len(train_ids),
        "train_loss_nats": float(looks["train"].iloc[-1]),
        "recipe": {name: value for name, value in asdict(recipe).items() if name != "up_to_seconds"},
        "looks": looks.to_dict("records"),
    }
    columns = {"split": "valid", "train_rows": len(train_ids), "train_seconds": facts["train_seconds"]}
    columns |= {"num_parameters": facts["num_parameters"]}
    rows = [row(name, "nats_per_character", valid_loss, **columns), row(name, "seconds", facts["seconds"], **columns)]
    report(options, "time_to_quality", rows, dataset=dataset_name(options.text), **facts)


def process_start() -> float:
    """Return when this process began, in seconds since 1970 like time.time()."""
    return psutil.Process().create_time()


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Return the options."""
    parser = Parser("time_to_quality", __doc__.split("\n")[0])
    parser.add_argument("--text", type=Path, help="a UTF-8 text file (default: the bundled stories)")
    parser.add_argument("--seconds", type=float, default=100.0, help="for everything, from the start of the process to the result")
    parser.add_argument("--margin", type=float, default=1.5, help="seconds of it kept back for printing and the end of the process")
    options = parser.parse_args(arguments)
    if options.text and not options.text.is_file():
        parser.error(f"{options.text}: there is no such file")
    return options


def recipe_for(seconds: float) -> Recipe:
    """Return the recipe for a run of this many seconds."""
    return next(recipe for recipe in RECIPES if seconds <= recipe.up_to_seconds)


def pick(recipe: Recipe, *names: str) -> dict[str, Any]:
    """Return some of the settings by name."""
    return {name: getattr(recipe, name) for name in names}


def split_characters(text: str):
    """Return token ids of the first 90 % of the characters and of the rest, and the number of different characters.

    The alphabet is that of the whole text, so that no validation character lacks an id; nothing else is read off the rest.
    """
    import numpy as np

    codes = np.frombuffer(text.encode("utf-32-le"), dtype="uint32")
    alphabet, token_ids = np.unique(codes, return_inverse=True)
    cut = int(0.9 * len(token_ids))
    if len(token_ids) - cut <= EVALUATION_WINDOW:
        raise ValueError(f"The text has {len(token_ids):,} characters, but at least {11 * EVALUATION_WINDOW:,} are needed.")
    token_ids = token_ids.astype("int32")
    return token_ids[:cut], token_ids[cut:], len(alphabet)


def bundled_text() -> str:
    """Return the bundled stories, one after the other."""
    from slm_helpers.data.loading import load_dataset

    return "\n\n".join(load_dataset("stories")["text"])


def dataset_name(text: Path | None) -> str:
    """Return folder and file of a text, e.g. tiny_shakespeare/input.txt."""
    return "bundled stories" if text is None else "/".join(text.absolute().parts[-2:])


if __name__ == "__main__":
    run_script(main)
