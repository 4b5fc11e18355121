"""What the recipes share: cards, folders and the command line."""

from types import SimpleNamespace

from slm_helpers.recipes import publishing, train_question_generator, train_translator

import pandas as pd

SAVED = SimpleNamespace(
    model=SimpleNamespace(count_params=lambda: 1234),
    tokenizer=SimpleNamespace(vocab_size=99),
    task="translate",
    labels=["es", "fr"],
    settings={"beam_size": 3},
)
METRICS = {"bleu": {"value": 12.345, "ci_low": 11.0, "ci_high": 13.0}}


def test_a_card_holds_every_part_and_the_scores_in_their_digits():
    parts = {name: f"{name} text" for name in ("network", "data", "training", "scored", "limits")}
    card = publishing.model_card("slm-x", "What it does.", seconds=120.0, metrics=METRICS, digits=1, **parts)
    lines = card.split("\n")
    assert lines[:2] == ["# slm-x", "What it does."] and "| bleu | 12.3 | 11.0 to 13.0 |" in lines
    assert all(text in card for text in parts.values()) and "- **Cost.** 2 minutes (" in card


def test_a_model_goes_into_the_folder_that_was_asked_for(monkeypatch, tmp_path, capsys):
    calls = []
    monkeypatch.setattr(publishing, "save_model", lambda folder, model, **options: calls.append((folder, options)) or folder)
    history, shared = pd.DataFrame({"epoch": [1.5], "seconds": [60.0]}), {"seconds": 60.04, "metrics": METRICS, "card": "text"}
    publishing.publish_model(SAVED, "slm-x", out=None, history=history, settings={"training": {}}, **shared)
    folder, options = calls.pop()
    assert folder.name == "slm-x" and options["task"] == "translate" and options["labels"] == ["es", "fr"]
    assert options["settings"] == {"beam_size": 3, "training": {}, "train_seconds": 60.0} and options["weights_dtype"] == "float16"
    publishing.run_recipe(
        lambda out: publishing.publish_model(SAVED, "slm-x", out=out, history=history, **shared),
        ["--out", str(tmp_path)], module="train_x", doc="Train x.\n\nMore.", name="slm-x",
    )  # fmt: skip
    assert calls.pop()[0] == tmp_path and capsys.readouterr().out == f"Written: {tmp_path}\n"


def test_the_cards_of_generator_and_translator_can_be_written():
    frame, history = pd.DataFrame({"split": ["train", "valid", "test"]}), pd.DataFrame({"epoch": [1.5], "seconds": [60.0]})
    card = train_translator._card("slm-en-many", SAVED, frame, history, 12, METRICS)
    assert "into Spanish, French" in card and "1 train, 1 valid, 1 test pairs" in " ".join(card.split()) and "1.5 of 12 passes" in card
    rows = {"sentences": [{}] * 3, "train": [{}] * 2, "valid": [{}], "test": [{}]}
    card = train_question_generator._card(SAVED, rows, 60.0, METRICS)
    assert "3 sentences of Wikipedia" in card and "On the 1 questions" in card and "1,234 weights" in card
