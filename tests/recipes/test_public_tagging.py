"""Taggers are measured on public sets once, beside the linear tagger."""

from slm_helpers.cli import main
from slm_helpers.data import results
from slm_helpers.models.language_model import build_language_model
from slm_helpers.models.saved import SavedModel
from slm_helpers.recipes import public_results as public
from slm_helpers.text.tokenizers import train_bpe_tokenizer
from tests.toys import toy_rows

import keras
import pandas as pd


def small_base(texts, cell: str = "gru") -> SavedModel:
    """A language model with random weights."""
    keras.utils.set_random_seed(3)
    tokenizer = train_bpe_tokenizer(texts, vocab_size=300)
    return SavedModel(build_language_model(tokenizer.vocab_size, cell=cell, embedding_dim=8, units=10), tokenizer)


def test_public_sets_are_measured_beside_the_linear_tagger_once(monkeypatch, tmp_path, capsys):
    parts = [
        toy_rows(num_rows, seed=seed).assign(split=split)
        for seed, (split, num_rows) in enumerate({"train": 40, "valid": 12, "test": 20}.items())
    ]
    monkeypatch.setattr(public, "load_dataset", lambda name: pd.concat(parts, ignore_index=True))
    monkeypatch.setattr(public, "load_pretrained", lambda name: small_base(parts[0]["tokens"]))
    monkeypatch.setattr(results, "RESULTS_DIR", tmp_path)
    run = public.PublicRun(task="tag", seeds=(1,), changes={"epochs": 1})
    public.measure("tiny", run)
    table = results.read_results("public")
    assert set(table["model"]) == {"linear tagger", "slm-base-en", "slm-base-en + n-grams"}
    assert set(table["metric"]) == {"entity_f1", "entity_precision", "entity_recall", "accuracy"}
    assert table.loc[(table["model"] == "linear tagger") & (table["metric"] == "entity_f1"), "value"].item() > 0.9
    capsys.readouterr()
    public.measure("tiny", run)
    assert capsys.readouterr().out == ""
    assert {"conll2003_en", "wnut17", "conll2002_es"} <= {name for name, run in public.RUNS.items() if run.task == "tag"}


def run(capsys, *arguments):
    """Run a command; returns its exit code, what it printed and its message."""
    capsys.readouterr()
    code = main([str(argument) for argument in arguments])
    return code, *capsys.readouterr()
