"""Comparing language models: bits per byte of kinds of text, and minimal pairs."""

import math

from slm_helpers.generation.generator import TextGenerator
from slm_helpers.models.language_model import build_language_model
from slm_helpers.models.saved import save_model
from slm_helpers.recipes import language_model_scores as module
from slm_helpers.text.tokenizers import train_char_tokenizer

import keras
import numpy as np
import pandas as pd
import pytest

LETTERS = "abcdefgh \n"


@pytest.fixture(scope="module")
def tokenizer():
    return train_char_tokenizer([LETTERS])


def new_model(tokenizer, seed):
    keras.utils.set_random_seed(seed)
    return build_language_model(tokenizer.vocab_size, embedding_dim=8, units=8)


@pytest.fixture
def held_out(monkeypatch):
    rng = np.random.default_rng(0)
    texts = {name: ["".join(rng.choice(list(LETTERS), 90)) for _ in range(12)] for names in module.TEXTS.values() for name in names}
    monkeypatch.setattr(module, "held_out_texts", lambda names: {f"{names[0]}/{part}": texts[names[0]] for part in ("valid", "test")})
    return texts


def test_parts_end_at_lines_and_nothing_is_lost():
    text = "\n".join(["abc def"] * 100)
    parts = module.cut_parts(text, 50)
    assert "".join(parts) == text
    assert all(part.endswith("\n") and 50 < len(part) <= 58 for part in parts[:-1])
    assert module.cut_parts("short") == ["short"] and module.cut_parts(" \n") == []


def test_a_sample_takes_about_the_same_of_each_set(held_out):
    sample = module.sample_texts(["story_books", "childrens_books"], split="valid", num_chars=900)
    assert sum(text in held_out["story_books"] for text in sample) == 5 and len(sample) == 10
    assert len(module.sample_texts(["imdb"], split="valid", num_chars=10**6)) == 12


def test_scores_are_bits_per_byte_with_ratios_to_the_first_model(tokenizer, held_out):
    models = {name: TextGenerator(new_model(tokenizer, seed), tokenizer) for seed, name in enumerate(("old", "new"))}
    table = module.text_scores(models, split="test", num_chars=2000).set_index(["text", "model"])
    assert len(table) == 2 * len(module.TEXTS)
    text = held_out["imdb"]
    nats = sum(models["new"].token_losses(each).sum() for each in text)
    new, old = table.loc[("film reviews", "new")], table.loc[("film reviews", "old")]
    assert new["bits_per_byte"] == pytest.approx(nats / math.log(2) / sum(map(len, text)), rel=1e-4)
    assert new["ratio"] == pytest.approx(new["bits_per_byte"] / old["bits_per_byte"], rel=1e-4) and old["ratio"] == 1
    assert new["ci_low"] < new["bits_per_byte"] < new["ci_high"] and new["ratio_low"] < new["ratio"] < new["ratio_high"]


def test_minimal_pairs_count_the_more_probable_good_sentences(tokenizer):
    model = TextGenerator(new_model(tokenizer, 3), tokenizer)
    rng = np.random.default_rng(1)
    sentences = ["".join(rng.choice(list(LETTERS), rng.integers(3, 9))) for _ in range(40)]
    losses = [model.token_losses(sentence).sum() for sentence in sentences]
    pairs = pd.DataFrame({"good": sentences[:20], "bad": sentences[20:], "phenomenon": ["b"] * 5 + ["a"] * 15})
    right = [good < bad for good, bad in zip(losses[:20], losses[20:], strict=True)]
    table = module.minimal_pair_accuracy(model, pairs).set_index("phenomenon")
    assert table["accuracy"].to_dict() == pytest.approx({"a": np.mean(right[5:]), "b": np.mean(right[:5]), "overall": np.mean(right)})
    assert table["num_pairs"].tolist() == [15, 5, 20]
    assert (table["ci_low"] <= table["accuracy"]).all() and (table["accuracy"] <= table["ci_high"]).all()


def test_the_command_compares_folders(tokenizer, held_out, tmp_path, monkeypatch, capsys):
    folders = [save_model(tmp_path / name, new_model(tokenizer, 1), tokenizer=tokenizer, weights_dtype=dtype)
               for name, dtype in (("exact", "float32"), ("rounded", "int8"))]  # fmt: skip
    pairs = pd.DataFrame({"good": ["ab", "bc"], "bad": ["ba", "cb"], "phenomenon": ["order"] * 2})
    monkeypatch.setattr(module, "load_dataset", lambda name: pairs)
    module.main([*map(str, folders), "--chars", "1000", "--blimp"])
    out = capsys.readouterr().out
    assert "Wikipedia" in out and "rounded" in out and "overall" in out
