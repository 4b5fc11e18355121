"""What the tasks share: the result of an evaluation and how it is kept, the vocabulary to start with, a linear model beside a network."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from slm_helpers._backend import keras
from slm_helpers.data.results import write_results
from slm_helpers.models.registry import start_from
from slm_helpers.models.saved import SavedModel
from slm_helpers.text.hashing import fit_mixture, fit_ngram_table, ngram_scores
from slm_helpers.text.tokenizers import Tokenizer, train_bpe_tokenizer

import numpy as np
import pandas as pd

SCRATCH_VOCAB_SIZE = 4096


@dataclass(frozen=True)
class Evaluation:
    """Scores of a model on labelled rows."""

    rows: int
    metrics: pd.DataFrame  # metric, value, ci_low, ci_high (95 %)
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)  # what stands behind them, by name


def starting_tokenizer(base: SavedModel | None, texts: Iterable[str]) -> Tokenizer:
    """Return the tokeniser of the base, or without one a new byte-level BPE of the training texts."""
    return base.tokenizer if base is not None else train_bpe_tokenizer(texts, vocab_size=SCRATCH_VOCAB_SIZE)


def size_of(saved: SavedModel) -> dict[str, int]:
    """Return num_parameters and size_bytes of a model for a table of results; the size as folders are written, in float16."""
    size = 2 * sum(int(np.prod(weight.shape)) for weight in saved.model.weights)
    return {"num_parameters": saved.model.count_params(), "size_bytes": size}


def round_to_half(saved: SavedModel) -> None:
    """Round the weights to float16, as a model folder may hold them, so that what is scored is what will be loaded."""
    saved.model.set_weights([weight.astype("float16").astype("float32") for weight in saved.model.get_weights()])


def keep_scores(scores: pd.DataFrame, about: dict[str, Any]) -> None:
    """Write scores (metric, value and, where known, ci_low and ci_high) to the table of public results, and print them in a line."""
    rows = scores.to_dict("records")
    write_results("public", [about | {name: value for name, value in row.items() if value == value} for row in rows])
    found = ", ".join(f"{row['metric']} {row['value']:.3f}" for row in rows)
    print(f"{about['dataset']:<22} {about['model']:<30} seed {about['seed']}  {found}  {about['train_seconds']:.0f} s", flush=True)


def put_beside(
    saved: SavedModel,
    build: Callable[..., keras.Model],
    hashed: dict[str, Sequence[np.ndarray]],
    codes: dict[str, np.ndarray],
    *,
    network_scores: np.ndarray | None,
    usual_shares: tuple[float, float],
    keep_valid: bool,
    num_buckets: int,
    head: str = "logits",
    table_layer: str = "ngram_scores",
    buckets: str = "num_buckets",
    num_classes: int | None = None,
    **options: Any,
) -> tuple[SavedModel, np.ndarray | None]:
    """Put a linear model on hashed n-grams beside a network, in the shares that tell the classes of valid best.

    Args:
        saved: With a network made by `build` without num_buckets; it stays as it is.
        build: The builder.
        hashed: N-grams of train and, if there is one, valid: one array for each thing that gets a class.
        codes: The class of each, from 0.
        network_scores: The network's scores on valid.
        usual_shares: Of network and linear model where there is no valid part.
        keep_valid: Do without valid in the end. Else the linear model learns from it too once the shares are found.
        num_buckets: As the n-grams were hashed into.
        head: Name of the network's layer that scores these classes.
        table_layer: Name of the layer of the linear model beside it.
        buckets: Name of the builder's argument that makes that layer.
        num_classes: As many as labels unless given.
        options: Of `fit_ngram_table`: balanced, by_rarity, penalty, seed.

    Returns:
        The same with one network that adds the scores of both, the shares worked into its weights, and what was calibrated for
        the other scores left out of the settings; and its scores on valid, from before the linear model learned from it.
    """
    options |= {"num_classes": num_classes or len(saved.labels), "num_buckets": num_buckets}
    table, bias = fit_ngram_table(hashed["train"], codes["train"], **options)
    shares, mixed = usual_shares, None
    if network_scores is not None:
        linear = ngram_scores(table, hashed["valid"]) + bias
        shares = fit_mixture(network_scores, linear, codes["valid"])
        mixed = shares[0] * network_scores + shares[1] * linear
        if not keep_valid:
            table, bias = fit_ngram_table([*hashed["train"], *hashed["valid"]], np.concatenate([codes["train"], codes["valid"]]), **options)
    model = build(**json.loads(saved.model.recipe)["arguments"] | {buckets: num_buckets})
    start_from(model, saved.model)
    kernel, own_bias = saved.model.get_layer(head).get_weights()
    table[:, :-1] *= shares[1]
    model.get_layer(head).set_weights([shares[0] * kernel, shares[0] * own_bias + shares[1] * bias])
    model.get_layer(table_layer).set_weights([table])
    settings = {name: value for name, value in saved.settings.items() if name not in ("temperature", "caution")}
    return replace(saved, model=model, settings=settings | {"shares": [round(share, 3) for share in shares]}), mixed
