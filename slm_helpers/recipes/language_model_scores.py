"""Compare language models on held-out texts (bits per byte) and on grammar (BLiMP minimal pairs).

SLM_DATA_DIR=... python -m slm_helpers.recipes.language_model_scores slm-base-en runs/pretrain/slm-base-en --split test --blimp
"""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

from slm_helpers.data.loading import load_dataset
from slm_helpers.generation.generator import TextGenerator
from slm_helpers.metrics.intervals import mean_interval, ratio_interval
from slm_helpers.models.folders import model_folder
from slm_helpers.models.saved import load_model
from slm_helpers.recipes.pretraining_text import PART_CHARS, SCORED_ONLY, held_out_texts

import numpy as np
import pandas as pd

# Six kinds of text, each with the sets it is scored on.
TEXTS = {
    "children's book": ("childrens_books", "story_books"),
    "novel for the young": ("story_books_2",),
    "textbook": ("textbooks",),
    "dialogues": ("self_dialogue", "topical_chat", "taskmaster4", "multiwoz21", "schema_guided_dialogue"),
    "film reviews": ("imdb",),
    "Wikipedia": ("wikipedia_en",),
}
SCORED_CHARS = 200_000  # of each kind of text
SCORED_PART_CHARS = 5_000  # long documents are scored in parts of about this length, so that intervals rest on many of them


def text_scores(models: dict[str, TextGenerator], *, split: str = "valid", num_chars: int = SCORED_CHARS) -> pd.DataFrame:
    """Score each model on the same parts of the held-out texts of TEXTS.

    Args:
        models: By name. Vocabularies may differ: bits per byte compare.
        split: "valid" or "test". Sets that are only scored have one part for both.
        num_chars: Of each kind of text, drawn evenly from all its documents, long ones in parts.

    Returns:
        One row a kind of text and model: text, model, bits_per_byte, ci_low, ci_high (95 %, over documents), ratio, ratio_low,
        ratio_high (against the first model, paired), num_documents, num_bytes.
    """
    rows = []
    for kind, names in TEXTS.items():
        texts = sample_texts(names, split=split, num_chars=num_chars)
        sizes = np.array([len(text.encode()) for text in texts])
        bits = {name: np.array([loss.sum() for loss in model.text_losses(texts)]) / math.log(2) for name, model in models.items()}
        first = bits[next(iter(models))]
        for name in models:
            value, low, high = ratio_with_interval(bits[name], sizes)
            ratio, ratio_low, ratio_high = ratio_with_interval(bits[name], first)
            row = {"text": kind, "model": name, "bits_per_byte": value, "ci_low": low, "ci_high": high}
            row |= {"ratio": ratio, "ratio_low": ratio_low, "ratio_high": ratio_high}
            rows.append(row | {"num_documents": len(texts), "num_bytes": int(sizes.sum())})
    return pd.DataFrame(rows)


def sample_texts(names: Sequence[str], *, split: str, num_chars: int) -> list[str]:
    """Return documents of several held-out sets, about the same number of characters of each, at most `num_chars` together."""
    sample = []
    for name in names:
        documents = held_out_texts([name])[f"{name}/{SCORED_ONLY.get(name, split)}"]
        parts = [part for document in documents for part in cut_parts(document, SCORED_PART_CHARS)]
        share = min(1.0, num_chars / len(names) / sum(map(len, parts)))
        sample += [parts[int(i / share)] for i in range(max(1, int(len(parts) * share)))]
    return sample


def cut_parts(text: str, num_chars: int = PART_CHARS) -> list[str]:
    """Cut a text at ends of lines into parts of about `num_chars` characters; nothing is lost but blank parts."""
    parts = []
    while len(text) > num_chars:
        end = text.find("\n", num_chars) + 1 or len(text)
        parts.append(text[:end])
        text = text[end:]
    return [part for part in (*parts, text) if part.strip()]


def ratio_with_interval(above: np.ndarray, below: np.ndarray) -> tuple[float, float, float]:
    """Return sum(above) / sum(below) with its 95 % bootstrap interval; nan bounds for fewer than five documents."""
    if len(above) < 5:
        return float(above.sum() / below.sum()), math.nan, math.nan
    return ratio_interval(above, below)


def minimal_pair_accuracy(model: TextGenerator, pairs: pd.DataFrame) -> pd.DataFrame:
    """Return how often the good sentence of a pair gets the higher probability, read from the start of a document.

    Args:
        model: A language model.
        pairs: Columns good, bad and phenomenon, e.g. `load_dataset("blimp")`.

    Returns:
        One row a phenomenon and one "overall" (all pairs): phenomenon, accuracy, ci_low, ci_high (95 %, over pairs), num_pairs.

    Reference:
        Warstadt et al. (2020), "BLiMP: The Benchmark of Linguistic Minimal Pairs for English", arXiv:1912.00582.
    """
    losses = [loss.sum() for loss in model.text_losses([*pairs["good"], *pairs["bad"]])]
    correct = np.array(losses[: len(pairs)]) < np.array(losses[len(pairs) :])
    groups = {name: correct[(pairs["phenomenon"] == name).to_numpy()] for name in sorted(set(pairs["phenomenon"]))}
    rows = []
    for name, values in (groups | {"overall": correct}).items():
        low, high = mean_interval(values)
        rows.append({"phenomenon": name, "accuracy": values.mean(), "ci_low": low, "ci_high": high, "num_pairs": len(values)})
    return pd.DataFrame(rows)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m slm_helpers.recipes.language_model_scores", description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", help="names of pretrained models or model folders; ratios are against the first")
    parser.add_argument("--split", choices=("valid", "test"), default="valid")
    parser.add_argument("--chars", type=int, default=SCORED_CHARS, help="characters of each kind of text")
    parser.add_argument("--blimp", action="store_true", help="score BLiMP as well")
    options = parser.parse_args(arguments)
    models = {}
    for name in options.models:
        saved = load_model(model_folder(name), task="lm")
        models[Path(name).name if Path(name).name not in models else name] = TextGenerator(saved.model, saved.tokenizer)
    print(text_scores(models, split=options.split, num_chars=options.chars).round(4).to_string(index=False))
    if options.blimp:
        pairs = load_dataset("blimp")
        tables = {name: minimal_pair_accuracy(model, pairs).set_index("phenomenon")["accuracy"] for name, model in models.items()}
        print((100 * pd.DataFrame(tables)).round(1).to_string())


if __name__ == "__main__":
    main()
