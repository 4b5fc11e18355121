"""The public translator: how its data are made, and that it is trained, measured and written once."""

from slm_helpers.data import results
from slm_helpers.models.saved import load_model
from slm_helpers.recipes import train_translator
from tests.toys import toy_pairs

import numpy as np
import pandas as pd
import pytest

SMALL = {"embedding_dim": 24, "encoder_units": 24, "units": 32}


def test_pairs_are_joined_with_a_comma_and_only_names_keep_their_capital():
    pairs = [("Hello!", "¡Hola!"), ("How are you?", "¿Cómo estás?"), ("Tom is here, I know how.", "Tom está aquí, ya sé cómo.")]
    rows = pd.DataFrame(pairs, columns=["source", "target"]).assign(target_language="es")
    found = train_translator.join_pairs(rows, 40)
    assert set(zip(found["source"], found["target"], strict=True)) == {
        ("Hello, Hello!", "Hola, ¡Hola!"),  # neither word stands inside of a sentence in lower case
        ("Hello, how are you?", "Hola, ¿cómo estás?"),
        ("Hello, Tom is here, I know how.", "Hola, Tom está aquí, ya sé cómo."),
    }
    pd.testing.assert_frame_equal(found, train_translator.join_pairs(rows, 40))
    chinese = pd.DataFrame([("Hello!", "你好。")], columns=["source", "target"]).assign(target_language="zh")
    assert train_translator.join_pairs(chinese, 1)["target"].tolist() == ["你好，你好。"]
    assert not len(train_translator.join_pairs(rows.tail(2), 3))


def test_the_public_translator_is_trained_measured_and_written_once(tmp_path, monkeypatch, capsys):
    frame = toy_pairs(["es"])
    splits = np.where(np.arange(len(frame)) % 6 == 0, "test", np.where(np.arange(len(frame)) % 6 == 1, "valid", "train"))
    frame = frame.assign(split=splits)
    # One pair more to learn from, one that public test asks for, and one of test that public train has.
    own = [("the bird sees me!", "train"), (frame.loc[0, "source"].upper(), "train"), (frame.loc[2, "source"], "test")]
    own = [{"source": source, "target": "x", "target_language": "es", "split": split} for source, split in own]
    monkeypatch.setattr(train_translator, "load_dataset", lambda name: pd.DataFrame(own) if name == "translations" else frame)
    train = train_translator.load_pairs(("es",)).query("split == 'train'")["source"].tolist()
    words = frame["source"].str.strip(".!?")
    left = frame[(frame["split"] == "train") & (words != words[2])]["source"].tolist()
    assert train == [*left, "the bird sees me!"]
    monkeypatch.setattr(train_translator, "NETWORK", SMALL | {"num_decoder_layers": 2})
    monkeypatch.setattr(train_translator, "VOCAB_SIZE", {False: 300})
    monkeypatch.setattr(results, "RESULTS_DIR", tmp_path / "results")
    arguments = ["--epochs", "2", "--work", str(tmp_path / "work"), "--out", str(tmp_path / "model")]
    train_translator.main(arguments)
    table = results.read_results("public")
    assert set(table["model"]) == {"copy", "nearest sentence", "phrase lookup", "slm-en-es", "slm-en-es, greedy"}
    assert set(table["metric"]) == {"bleu", "chrf", "sentences_per_second"} and (table["dataset"] == "tatoeba_en_es").all()
    saved = load_model(tmp_path / "model", task="translate")
    assert saved.labels == ["es"] and set(saved.metrics) == {"bleu/es", "chrf/es"}
    assert f"{len(train)} train, 12 valid, 12 test" in (tmp_path / "model" / "card.md").read_text()
    capsys.readouterr()
    train_translator.main(arguments)  # nothing is trained again, and the baselines are known
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()] == ["slm-en-es,", "slm-en-es", str(tmp_path / "model")]
    for one, other in zip(saved.model.get_weights(), load_model(tmp_path / "model").model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(SystemExit):
        train_translator.main(["it"])
