"""Making the base model: what text goes in, what stays out, and that the run ends in a scored model."""

import dataclasses
import json

from slm_helpers.data import results
from slm_helpers.models import saved as models
from slm_helpers.models.saved import load_model
from slm_helpers.recipes import pretrain as module

import numpy as np
import pandas as pd
import pytest

WORDS = ["ant", "bear", "cat", "dog", "elk", "fox", "goat", "hen", "ibis", "jay", "kite", "lark", "mole", "newt", "owl", "pig"]


def sentence(rng, length=30):
    return " ".join(rng.choice(WORDS, length)) + "."


@pytest.fixture
def sets(monkeypatch):
    """Stand-ins for all sources; story_books has two long train books, the second with a paragraph of a test book in it."""
    rng = np.random.default_rng(0)
    test_books = ["\n\n".join(sentence(rng) for _ in range(30)) for _ in range(6)]
    stolen = "It said: " + test_books[0].split("\n\n")[3]
    repeated = " ".join(sentence(rng) for _ in range(4))
    books = ["\n\n".join([*(sentence(rng) for _ in range(400)), repeated]) for _ in range(2)]
    books[1] += "\n\n" + stolen + "\n\n" + repeated
    frames = {
        "story_books": pd.DataFrame({"text": [*books, sentence(rng), *test_books], "split": ["train"] * 2 + ["valid"] + ["test"] * 6})
    }

    def load(name):
        rng = np.random.default_rng(list(name.encode()))
        short = pd.DataFrame({"text": [sentence(rng, 60) for _ in range(8)], "split": ["train"] * 6 + ["valid", "test"]})
        return frames.get(name, short.assign(split="test") if name in ("wikitext2", "ptb") else short)

    monkeypatch.setattr(module, "load_dataset", load)
    monkeypatch.setattr(module, "NETWORK", {"vocab_size": 300, "cell": "gru", "embedding_dim": 8, "units": 8})
    monkeypatch.setattr(module, "TRAINING", dataclasses.replace(module.TRAINING, batch_size=8, window=16, eval_steps=20, warmup_steps=5))
    return stolen, repeated


def test_text_shared_with_held_out_documents_and_repeats_are_left_out(sets):
    stolen, repeated = sets
    texts, held_out, counts = module.gather_text()
    together = "\n\n".join(texts)
    assert stolen not in together
    assert together.count(repeated) == 1
    assert counts["paragraphs_left_out"] == 3
    assert counts["bytes"] == sum(len(text.encode()) for text in texts)
    assert {"story_books/valid", "story_books/test", "imdb/test", "wikitext2/test", "ptb/test"} <= set(held_out)
    assert not {text for texts in held_out.values() for text in texts} & set(texts)


def test_books_are_cut_at_paragraphs_and_nothing_is_lost(sets):
    texts, _, counts = module.gather_text()
    assert max(map(len, texts)) < module.PIECE_CHARS + 1000
    assert sum(text.count("\n\n") + 1 for text in texts) == counts["paragraphs"] - counts["paragraphs_left_out"]
    assert texts == module.gather_text()[0]  # same seed, same order
    assert texts != module.gather_text(seed=1)[0]


def test_a_run_is_prepared_trained_made_longer_and_scored(sets, tmp_path):
    model, tokenizer, history = module.pretrain(tmp_path, epochs=[2])
    tokens = np.load(tmp_path / "tokens.npy", mmap_mode="r")
    counts = json.loads((tmp_path / "sources.json").read_text())
    assert tokens.dtype == np.uint16 and counts["tokens"] == len(tokens)
    assert (tokens == tokenizer.end_id).sum() == len(module.gather_text()[0])
    longer = module.pretrain(tmp_path, epochs=[3])[2]
    assert longer["step"].max() == 1.5 * history["step"].max()
    assert longer["loss_nats"].iloc[-1] < longer["loss_nats"].iloc[0]
    scores = (
        module.score_held_out(model, tokenizer, tokens, module.gather_text()[1], work=tmp_path)
        .set_index(["dataset", "split", "model"])
        .sort_index()
    )
    row = scores.loc[("story_books", "test", "slm")]
    assert row["ci_low"] < row["bits_per_byte"] < row["ci_high"]
    counted = scores.loc[("story_books", "test")].drop("slm")["bits_per_byte"]
    # One of them is summed over bits, the other over nats: equal but for rounding in float32.
    assert row["reduction"] == pytest.approx(1 - row["bits_per_byte"] / counted.min(), abs=1e-5)
    assert 0 < counted.min() < 8


def test_the_published_folder_is_scored_and_described(sets, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PRETRAINED_DIR", tmp_path / "pretrained")
    monkeypatch.setattr(results, "RESULTS_DIR", tmp_path / "results")
    folder = module.publish(tmp_path / "work", epochs=[1])
    saved = load_model(folder, task="lm")
    table = results.read_results("pretraining", folder=tmp_path / "results").set_index(["dataset", "split", "model", "metric"])
    row = table.loc[("story_books", "test", "slm-base-en", "bits_per_byte")]
    assert saved.metrics["bits_per_byte/story_books"]["value"] == pytest.approx(row["value"], rel=1e-4)
    card = (folder / "card.md").read_text()
    assert f"| story_books (test) | {row['value']:.3f} | " in card
    assert saved.settings["cost"]["tokens_read"] == saved.settings["cost"]["passes"] * row["train_rows"]
    assert saved.settings["cost"]["operations"] == 6 * (300 * 8 + 2 * 8 * 24) * saved.settings["cost"]["tokens_read"]


def test_trials_write_a_row_each_and_are_not_run_twice(sets, tmp_path, monkeypatch):
    trials = {
        "small": (module.NETWORK, {}),
        "attention": (
            {"builder": "build_transformer_language_model", "vocab_size": 300, "size": 8, "num_layers": 1, "num_heads": 2},
            {"window": 32, "carry_state": False},
        ),
    }
    monkeypatch.setattr(module, "TRIALS", trials)
    monkeypatch.setattr(results, "RESULTS_DIR", tmp_path / "results")
    module.run_trials(tmp_path, seconds=1.0)
    table = results.read_results("pretraining_trials", folder=tmp_path / "results")
    assert table["model"].tolist() == ["small", "small", "attention", "attention"]
    bits = table.loc[table["metric"] == "bits_per_byte", "value"]
    assert bits.between(0.5, 8).all()
    before = (tmp_path / "results" / "pretraining_trials.csv").read_bytes()
    module.run_trials(tmp_path, seconds=1.0)
    assert (tmp_path / "results" / "pretraining_trials.csv").read_bytes() == before


def test_a_second_round_goes_on_from_the_first_or_from_its_published_model(sets, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "FURTHER", dataclasses.replace(module.TRAINING, learning_rate=2e-3, schedule="linear", seed=1))
    monkeypatch.setattr(module, "PRETRAINED_DIR", tmp_path / "pretrained")
    monkeypatch.setattr(models, "PRETRAINED_DIR", tmp_path / "pretrained")
    monkeypatch.setattr(results, "RESULTS_DIR", tmp_path / "results")
    module.publish(tmp_path / "work", epochs=[2])
    whole, _, history = module.pretrain(tmp_path / "work", epochs=[2, 1])
    assert history["step"].is_monotonic_increasing and history["epoch"].iloc[-1] == 3
    assert history["learning_rate"].iloc[-1] < module.FURTHER.learning_rate / 10
    # The published weights are rounded to half precision, so the ways part a little.
    from_published, _, short = module.pretrain(tmp_path / "elsewhere", epochs=[2, 1], start="slm-base-en")
    assert short["step"].tolist() == history["step"].tolist()
    assert short["loss_nats"].iloc[-1] == pytest.approx(history["loss_nats"].iloc[-1], abs=0.01)
    for ours, theirs in zip(whole.get_weights(), from_published.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=0.02)
    module.publish(tmp_path / "work", epochs=[2, 1])
    assert load_model(tmp_path / "pretrained" / "slm-base-en").settings["cost"]["passes"] == pytest.approx(3, rel=0.05)
    with pytest.raises(ValueError, match="has read the text 3 times"):
        module.pretrain(tmp_path / "third", epochs=[2, 1], start="slm-base-en")
