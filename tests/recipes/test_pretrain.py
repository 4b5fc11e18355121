"""Making the base model: a run is trained, made longer, saved half-way, published and scored; trials are run once."""

import dataclasses
import json

from slm_helpers.data import results
from slm_helpers.models.saved import load_model
from slm_helpers.recipes import pretrain as module
from slm_helpers.recipes import pretraining_text
from slm_helpers.recipes.pretraining_text import Source

import numpy as np
import pandas as pd
import pytest

WORDS = ["ant", "bear", "cat", "dog", "elk", "fox", "goat", "hen", "ibis", "jay", "kite", "lark", "mole", "newt", "owl", "pig"]


def book(rng, num_paragraphs):
    return "\n\n".join(" ".join(rng.choice(WORDS, 30)) + "." for _ in range(num_paragraphs))


@pytest.fixture
def small(monkeypatch, tmp_path):
    """Two sources of a few thousand words, a network of eight units, and folders of their own for what is published."""

    def load(name, split=None):
        rng = np.random.default_rng(list(name.encode()))
        frame = pd.DataFrame({"text": [book(rng, 30) for _ in range(18)], "split": ["train"] * 6 + ["valid"] * 6 + ["test"] * 6})
        return frame if split is None else frame[frame["split"] == split]

    monkeypatch.setattr(pretraining_text, "load_dataset", load)
    monkeypatch.setattr(pretraining_text, "SOURCES", {"story_books": Source("public domain"), "wikipedia_en": Source("CC BY-SA 3.0")})
    monkeypatch.setattr(pretraining_text, "VALIDATION_SETS", ("story_books", "wikipedia_en"))
    monkeypatch.setattr(module, "held_out_texts", lambda: pretraining_text.held_out_texts(["story_books", "imdb"]))
    monkeypatch.setattr(module, "NETWORK", {"vocab_size": 300, "cell": "gru", "embedding_dim": 8, "units": 8})
    monkeypatch.setattr(module, "TRAINING", dataclasses.replace(module.TRAINING, batch_size=4, window=16, eval_steps=20, warmup_steps=5))
    monkeypatch.setattr(module, "PRETRAINED_DIR", tmp_path / "pretrained")
    monkeypatch.setattr(results, "RESULTS_DIR", tmp_path / "results")
    return tmp_path / "work"


def test_a_run_is_trained_made_longer_and_scored(small):
    model, tokenizer, history = module.pretrain(small, epochs=1)
    longer = module.pretrain(small, epochs=2)[2]
    assert longer["step"].max() == 2 * history["step"].max()
    assert longer["loss_nats"].iloc[-1] < longer["loss_nats"].iloc[0]
    tokens = np.load(small / "vocab_300" / "tokens.npy", mmap_mode="r")
    scores = module.score_held_out(model, tokenizer, tokens, module.held_out_texts(), work=small)
    scores = scores.set_index(["dataset", "split", "model"]).sort_index()
    row = scores.loc[("story_books", "test", "slm")]
    assert row["ci_low"] < row["bits_per_byte"] < row["ci_high"]
    counted = scores.loc[("story_books", "test")].drop("slm")["bits_per_byte"]
    # One of them is summed over bits, the other over nats: equal but for rounding in float32.
    assert row["reduction"] == pytest.approx(1 - row["bits_per_byte"] / counted.min(), abs=1e-5)
    assert 0 < counted.min() < 8


def test_a_snapshot_holds_the_averaged_weights_and_training_starts_from_it(small, tmp_path):
    _, _, history = module.pretrain(small, epochs=1)
    folder = module.save_snapshot(small, tmp_path / "snapshot")
    saved = load_model(folder, task="lm")
    averaged = module.averaged_model(small)[0]
    for weights, rounded in zip(averaged.get_weights(), saved.model.get_weights(), strict=True):
        np.testing.assert_allclose(rounded, weights, atol=np.abs(weights).max() / 127)
    assert not saved.settings["finished"]
    assert saved.settings["cost"]["tokens_read"] == history["step"].max() * 4 * 16
    card = (folder / "card.md").read_text()
    assert card.startswith("# Unfinished") and "| wikipedia_en | CC BY-SA 3.0 | " in card
    _, _, further = module.pretrain(tmp_path / "elsewhere", epochs=1, start=folder)
    assert further["loss_nats"].iloc[0] < history["loss_nats"].iloc[0]


def test_the_published_folder_is_scored_and_described(small, tmp_path):
    folder = module.publish(small, epochs=1)
    saved = load_model(folder, task="lm")
    config = json.loads((folder / "config.json").read_text())
    assert (config["weights_dtype"], config["format_version"]) == ("int8", 2)
    table = results.read_results("pretraining", folder=tmp_path / "results").set_index(["dataset", "split", "model", "metric"])
    row = table.loc[("story_books", "test", "slm-base-en", "bits_per_byte")]
    assert saved.metrics["bits_per_byte/story_books"]["value"] == pytest.approx(row["value"], rel=1e-4)
    assert f"| story_books (test) | {row['value']:.3f} | " in (folder / "card.md").read_text()
    cost = saved.settings["cost"]
    assert cost["tokens_read"] == pytest.approx(cost["passes"] * row["train_rows"])
    assert cost["operations"] == 6 * (300 * 8 + 2 * 8 * 24) * cost["tokens_read"]


def test_trials_write_their_rows_and_are_not_run_twice(small, tmp_path, monkeypatch):
    attention = {"builder": "build_transformer_language_model", "vocab_size": 300, "size": 8, "num_layers": 1, "num_heads": 2}
    plain = {"carry_state": False, "shuffle_documents": False, "window": 32}
    monkeypatch.setattr(module, "TRIALS", {"small": (module.NETWORK, {}), "attention": (attention, plain)})
    module.run_trials(small, num_tokens=5000)
    table = results.read_results("pretraining_protocol", folder=tmp_path / "results")
    assert table["model"].tolist() == ["small", "small", "attention", "attention"]
    assert table["value"].between(0.5, 8).all() and len(set(table["train_rows"])) == 1
    assert 5000 <= table["train_rows"].iloc[0] < 15_000
    before = (tmp_path / "results" / "pretraining_protocol.csv").read_bytes()
    module.run_trials(small, num_tokens=5000)
    assert (tmp_path / "results" / "pretraining_protocol.csv").read_bytes() == before
