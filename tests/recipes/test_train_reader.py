"""The public reader is trained, measured and written."""

import dataclasses

from slm_helpers.data import results
from slm_helpers.models.language_model import build_language_model
from slm_helpers.models.saved import SavedModel, load_model
from slm_helpers.recipes import train_reader
from slm_helpers.tasks.extractive_qa import ExtractiveQA
from slm_helpers.text.tokenizers import train_bpe_tokenizer
from slm_helpers.training.config import TrainConfig
from tests.toys import passages

import keras
import pandas as pd


def small_base(seed: int = 3, **sizes) -> SavedModel:
    """A language model with a vocabulary of the toy passages, as it is after no training at all."""
    keras.utils.set_random_seed(seed)
    rows = passages(60)
    tokenizer = train_bpe_tokenizer([*rows["context"], *rows["question"]], vocab_size=300)
    return SavedModel(model=build_language_model(300, **({"embedding_dim": 32, "units": 32} | sizes)), tokenizer=tokenizer)


def test_the_public_reader_is_trained_measured_and_written(tmp_path, monkeypatch, capsys):
    tales = pd.concat([passages(40, seed=seed).assign(split=split) for seed, split in enumerate(("train", "valid", "test"))])
    tales = tales[tales["answer"] != ""].reset_index(drop=True)
    articles = pd.DataFrame({"text": ["Title\n" + "The old mill stood by the river and the young miller sang. " * 6] * 4, "split": "train"})
    sets = {"fairytaleqa": tales.assign(story=["x", "y"] * (len(tales) // 2)), "wikipedia_en": articles}
    monkeypatch.setattr(train_reader, "load_dataset", lambda name: sets[name].copy())
    monkeypatch.setattr(train_reader, "load_pretrained", lambda name: small_base())
    monkeypatch.setattr(train_reader, "NUM_CLOZE", {"wikipedia_en": 6, "fairytaleqa": 6})
    monkeypatch.setattr(train_reader, "SECOND", dataclasses.replace(train_reader.SECOND, epochs=2))
    monkeypatch.setattr(results, "RESULTS_DIR", tmp_path / "results")
    questions = train_reader.load_questions()
    added = questions[questions["answer"] == ""]
    assert 3 < len(added) < 30 and set(added["split"]) == {"train", "valid"} and len(questions) == len(tales) + len(added)
    train_reader.main(["--out", str(tmp_path / "model")])
    table = results.read_results("public")
    assert set(table["model"]) == {"slm-reader-en", "log-linear model of spans"} and set(table["dataset"]) == {"fairytaleqa"}
    saved = load_model(tmp_path / "model", task="answer")
    assert saved.settings["form"] == "span" and set(saved.metrics) == {"exact_match", "token_f1"}
    assert "30 more questions chose the pass" in (tmp_path / "model" / "card.md").read_text()
    frame = passages(16).assign(split="train")
    again = ExtractiveQA(saved, config=TrainConfig(epochs=1, batch_size=8, learning_rate=1e-4)).fit_frame(frame)
    assert len(again.predict_rows(frame.to_dict("records"))) == 16
    assert train_reader.publish(tmp_path / "other") and set(results.read_results("public")["model"]) == set(table["model"])
