"""Fine-tuning a language model on a person's own texts: from a file to a model that scores and writes."""

import json

from slm_helpers.cli import main
from slm_helpers.data.loading import load_dataset
from slm_helpers.generation.generator import TextGenerator
from slm_helpers.models.language_model import build_language_model
from slm_helpers.models.saved import SavedModel, load_model, save_model
from slm_helpers.tasks.language_modelling import LanguageModel
from slm_helpers.text.tokenizers import train_bpe_tokenizer
from slm_helpers.training.config import TrainConfig

import numpy as np
import pandas as pd
import pytest

COLOURS, BIRDS = ["red", "grey", "white", "black"], ["owl", "gull", "crow", "wren"]


def diary(num_rows: int, *, seed: int = 0) -> list[str]:
    """Return texts of a pattern that a few steps suffice to learn."""
    rng = np.random.default_rng(seed)
    names = ["".join(rng.choice(list("abcdefghij"), 4)) for _ in range(num_rows)]
    return [f"Dear diary, today {name} saw a {rng.choice(COLOURS)} {rng.choice(BIRDS)}.\nThen I slept." for name in names]


@pytest.fixture(scope="module")
def base():
    tokenizer = train_bpe_tokenizer(diary(50), vocab_size=300)
    return SavedModel(model=build_language_model(tokenizer.vocab_size, embedding_dim=16, units=24), tokenizer=tokenizer)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, base):
    """Files, a base, and a writer fine-tuned from it in the shell."""
    folder = tmp_path_factory.mktemp("lm")
    rows = [{"body": text, "mood": "calm"} for text in diary(60)]
    (folder / "diary.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    save_model(folder / "base", base.model, tokenizer=base.tokenizer)
    arguments = ["--train", str(folder / "diary.jsonl"), "--text", "body", "--base", str(folder / "base"), "--out", str(folder / "writer")]
    assert main(["finetune", "lm", *arguments, "--epochs", "4", "--learning-rate", "0.02"]) == 0
    return folder


def run(capsys, *arguments):
    capsys.readouterr()
    code = main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return code, out, err


def test_finetuned_writer_predicts_such_texts_better_than_its_base(folder, capsys):
    options = ("--test", folder / "diary.jsonl", "--text", "body", "--json")
    code, out, _ = run(capsys, "evaluate", "--model", folder / "writer", *options)
    found = json.loads(out)
    assert code == 0 and found["task"] == "lm" and set(found["metrics"]) == {"bits_per_byte", "bits_per_char", "perplexity"}
    for values in found["metrics"].values():
        assert values["ci_low"] <= values["value"] <= values["ci_high"]
    before = json.loads(run(capsys, "evaluate", "--model", folder / "base", *options)[1])
    assert found["metrics"]["bits_per_byte"]["value"] < before["metrics"]["bits_per_byte"]["value"] - 0.5
    assert before["rows"] == found["rows"] == 60  # all rows of a test file count


def test_folder_writes_and_scores_from_the_shell(folder, capsys):
    code, out, _ = run(capsys, "generate", "--model", folder / "writer", "--prompt", "Dear diary,", "--max-tokens", "12", "--json")
    assert code == 0 and len(json.loads(out)["samples"]) == 1
    card = (folder / "writer" / "card.md").read_text()
    assert "word for word" in card and "| bits_per_byte |" in card and "48 train, 6 valid, 6 test" in card
    saved = load_model(folder / "writer", task="lm")
    assert saved.settings["start"] == "base"


def test_predict_is_refused_and_names_the_command(folder, tmp_path, capsys):
    out = tmp_path / "out.csv"
    code, printed, err = run(capsys, "predict", "--model", folder / "writer", "--input", folder / "diary.jsonl", "--output", out)
    assert code == 2 and printed == "" and not out.exists()
    assert f"slm generate --model {folder / 'writer'}" in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--text", "nothing"), "there is no column 'nothing'"),
        (("--text", "body", "--label", "mood"), "--label names a column that the task lm does not use"),
        (("--text", "body", "--balanced"), "has no setting balanced"),
        (("--text", "body", "--no-ngrams"), "has no setting no-ngrams"),
        (("--text", "body", "--epochs", "0"), "epochs is 0"),
    ],
)
def test_options_that_do_not_fit_are_refused(folder, tmp_path, capsys, options, message):
    arguments = ("--train", folder / "diary.jsonl", "--base", folder / "base", "--out", tmp_path / "out")
    code, _, err = run(capsys, "finetune", "lm", *arguments, *options)
    assert code == 2 and message in err and not (tmp_path / "out").exists()


def test_scores_are_those_of_the_generator(base):
    texts = diary(9, seed=3)
    table = LanguageModel.from_saved(base).evaluate(texts).set_index("metric")["value"]
    losses = np.concatenate(TextGenerator(base.model, base.tokenizer).text_losses(texts)).astype("float64")
    assert table["bits_per_byte"] == pytest.approx(losses.sum() / np.log(2) / sum(map(len, texts)), rel=1e-5)
    assert table["bits_per_char"] == pytest.approx(table["bits_per_byte"])  # ASCII
    assert table["perplexity"] == pytest.approx(np.exp(losses.mean()), rel=1e-5)


def test_base_stays_as_it_is_and_little_text_still_trains(base):
    before = [weight.copy() for weight in base.model.get_weights()]
    model = LanguageModel(base, epochs=2).fit(diary(1), validation_data=(diary(1, seed=1), None))
    assert {"train", "valid"} == set(model.history_["split"]) and model.saved_.tokenizer is base.tokenizer
    for old, new in zip(before, base.model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_settings_that_equal_the_usual_ones_are_used_too():
    usual = LanguageModel.default_config
    model = LanguageModel(None, epochs=usual.epochs, batch_size=usual.batch_size, learning_rate=usual.learning_rate)
    config = model.training_config()
    assert (config.epochs, config.batch_size, config.learning_rate) == (usual.epochs, usual.batch_size, usual.learning_rate)
    assert config.window == LanguageModel.scratch_config.window != usual.window
    assert LanguageModel(None).training_config().epochs == LanguageModel.scratch_config.epochs
    assert LanguageModel("slm-base-en").training_config() == TrainConfig().with_defaults(usual)
    assert LanguageModel("slm-base-en", config=TrainConfig(patience=0)).training_config().patience == 0
    history = model.set_params(learning_rate=1e-4).fit(diary(8)).history_
    assert history["epoch"].max() == pytest.approx(usual.epochs) and history["learning_rate"].max() <= 1e-4


def test_a_batch_size_that_is_given_is_not_made_smaller(base):
    ids = {"train": np.zeros(400, dtype="int32")}
    few = LanguageModel(base)
    assert few._for_little_text(ids, few.training_config()).batch_size < 8
    given = LanguageModel(base, batch_size=8)
    assert given._for_little_text(ids, given.training_config()).batch_size == 8


def test_without_a_base_a_vocabulary_is_learned_from_train_alone():
    model = LanguageModel(None, epochs=1).fit(diary(20), validation_data=(["ZZZ qqq " * 9], None))
    tokenizer = model.saved_.tokenizer
    assert 260 < tokenizer.vocab_size < 600
    assert len(tokenizer.encode(" diary")) == 1 < len(tokenizer.encode(" qqq"))


def test_too_little_text_is_refused_by_name(base):
    with pytest.raises(ValueError, match="split valid has 2 tokens"):
        LanguageModel(base).fit(diary(4), validation_data=(["a"], None))
    with pytest.raises(ValueError, match="split train has 2 tokens"):
        LanguageModel(base).fit(["a"])
    with pytest.raises(ValueError, match="no row of the split train"):
        LanguageModel(base).fit_frame(pd.DataFrame({"text": ["a"], "split": ["valid"]}))


def test_it_writes_and_scores_but_predicts_no_row(base):
    model = LanguageModel.from_saved(base)
    assert model.generate("Dear", max_tokens=4) == TextGenerator(base.model, base.tokenizer).generate("Dear", max_tokens=4).samples
    assert model.score(diary(3)) == -model.evaluate(diary(3))["value"].iloc[0]
    with pytest.raises(ValueError, match="no prediction"):
        model.predict(["Dear"])


def test_a_run_that_was_cut_off_goes_on_and_ends_equal(base, tmp_path):
    model = LanguageModel(base, epochs=2, batch_size=2)
    whole = model.fit_frame(pd.DataFrame({"text": diary(12), "split": "train"})).saved_.model.get_weights()
    frame = pd.DataFrame({"text": diary(12), "split": "train"})
    again = LanguageModel(base, epochs=2, batch_size=2)
    again.fit_frame(frame, checkpoint_dir=tmp_path)
    loaded = LanguageModel(base, epochs=2, batch_size=2).fit_frame(frame, checkpoint_dir=tmp_path)
    for a, b, c in zip(whole, again.saved_.model.get_weights(), loaded.saved_.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, c)


def test_bundled_stories_have_the_columns_of_the_task():
    assert set(LanguageModel.columns) <= set(load_dataset("stories"))
