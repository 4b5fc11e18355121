"""Facts to text: records, placeholders and slot errors by hand; baselines; a small writer, its errors and the shell."""

import json
from dataclasses import replace

from slm_helpers.cli import main
from slm_helpers.data import results
from slm_helpers.data.loading import load_dataset
from slm_helpers.generation.constrained import PlaceholderConstraint
from slm_helpers.metrics.data_to_text import missing_values
from slm_helpers.recipes import public_data_to_text as public_writing
from slm_helpers.recipes import public_results as public
from slm_helpers.tasks import data_to_text
from slm_helpers.tasks.data_to_text import DataToText, _learn_settings, best_candidate, tones_of
from slm_helpers.text.records import delexicalise, parse_facts

import numpy as np
import pandas as pd
import pytest

LAMP = "name: Aurora | type: desk lamp | price: 20 euros"
FAST = replace(DataToText.default_config, epochs=40, batch_size=12, learning_rate=1e-2, patience=0, precision="float32")


def toy_records(tones=("plain", "gay")) -> pd.DataFrame:
    """Twelve lamps and their texts: three facts each, in a plain tone and in one that shouts."""
    rows = []
    for name in ("Aurora", "Boreas", "Cleo", "Dune"):
        for price in ("20 euros", "30 euros", "45 euros"):
            source = f"name: {name} | type: lamp | price: {price}"
            said = {"plain": f"{name} is a lamp for {price}.", "gay": f"Buy {name} now! What a lamp, and only {price}!"}
            rows += [(source, said[tone], tone, "valid" if name == "Dune" else "train") for tone in tones]
    return pd.DataFrame(rows, columns=["source", "target", "tone", "split"])


@pytest.fixture(scope="module")
def writer():
    """A writer of two tones with a network of its own, and its rows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data_to_text, "SCRATCH", {"cell": "gru", "embedding_dim": 24, "units": 48, "num_layers": 1})
        patch.setattr(data_to_text, "SCRATCH_VOCAB_SIZE", 320)
        saved = DataToText(None, config=FAST, dropout=0.0).fit_frame(toy_records())
        history = saved.history_
    assert history["loss_nats"].iloc[-1] < history["loss_nats"].iloc[0]
    return saved


def test_it_states_the_facts_of_records_it_has_not_seen(writer):
    held_out = toy_records().query("split == 'valid'")
    scores = writer.evaluate_frame(held_out)
    values = scores.metrics.set_index("metric")["value"]
    assert values["slot_error_rate"] < 0.1 and values["bleu"] > 60 and scores.rows == 6
    found = writer.write([held_out["source"].iloc[0]] * 2, ["plain", "gay"], num_candidates=4)
    assert found[1]["prediction"].endswith("!") and found[0]["prediction"].endswith(".")
    assert 0 < found[0]["confidence"] <= 1


def test_more_drafts_have_no_more_errors_and_the_same_seed_writes_the_same(writer):
    sources = toy_records().query("split == 'valid'")["source"].unique().tolist()
    drafts = writer.candidates(sources, "gay", num_candidates=6, temperature=1.5)
    assert drafts == writer.candidates(sources, "gay", num_candidates=6, temperature=1.5)
    alone = writer.candidates(sources[:1], "gay", num_candidates=6, temperature=1.5)
    assert [text for text, _ in alone[0]] == [text for text, _ in drafts[0]]
    errors = [sum(row["errors"] for row in writer.write(sources, "gay", num_candidates=number, temperature=1.5)) for number in (1, 3, 6)]
    assert errors == sorted(errors, reverse=True)


def test_the_best_draft_has_the_fewest_errors_then_the_length_that_is_wanted():
    drafts = [("Aurora!", -0.1), ("Aurora, a desk lamp, 20 euros.", -0.9), ("The desk lamp Aurora costs 20 euros a piece.", -0.5)]
    places = {length: best_candidate(drafts, parse_facts(LAMP), length=length) for length in ("", "short", "medium", "long")}
    assert places == {"": (2, 0), "short": (1, 0), "medium": (2, 0), "long": (2, 0)}
    assert best_candidate(drafts[:1], parse_facts(LAMP)) == (0, 2)


def test_a_guide_leaves_only_placeholders_that_are_right(writer):
    records = [parse_facts(LAMP, writer.saved_.settings["letters"])]
    guide = PlaceholderConstraint(writer.saved_.tokenizer, records, repeated=["type"], left_out=["price"])
    vocabulary = writer.saved_.tokenizer.vocabulary
    letter = {name: vocabulary.index(sign) for name, sign in zip(records[0].names, records[0].letters, strict=True)}
    opening, end = int(np.flatnonzero(guide.opens)[0]), writer.saved_.tokenizer.end_id

    def allowed(*token_ids, by=guide):
        logits = np.zeros((1, len(vocabulary)), "float32")
        by(logits, np.array([token_ids], "int32").reshape(1, -1), np.array([0]))
        return set(np.flatnonzero(np.isfinite(logits[0])))

    def said(*names):
        return [token for name in names for token in (opening, letter[name])] + [9]

    assert allowed(9, opening) == set(letter.values())
    assert allowed(*said("name", "type"), opening) == {letter["type"], letter["price"]}
    assert end not in allowed(*said("type"), 9) and end in allowed(*said("type", "name"), 9)
    assert letter["name"] not in allowed(opening, letter["type"]) and vocabulary.index(" ") in allowed(opening, letter["type"])
    assert end not in allowed() and opening in allowed()  # nothing is written yet
    found = allowed(*said(*letter), 9, by=PlaceholderConstraint(writer.saved_.tokenizer, records))
    assert opening not in found and end in found


def test_guided_drafts_of_a_bad_writer_hold_each_fact_once(writer):
    sources = toy_records()["source"].unique().tolist()[:4]
    free = [text for rows in writer.candidates(sources, "gay", num_candidates=5, temperature=4.0, constrained=False) for text, _ in rows]
    guided = [text for rows in writer.candidates(sources, "gay", num_candidates=5, temperature=4.0) for text, _ in rows]
    records = [parse_facts(source) for source in sources for _ in range(5)]
    missed = [sum(len(missing_values(t, r)) for t, r in zip(texts, records, strict=True)) for texts in (free, guided)]
    assert missed[1] < 0.5 * missed[0]


def test_the_score_of_a_draft_is_the_mean_log_probability_of_its_tokens(writer):
    from slm_helpers.generation.generator import TextGenerator

    source = toy_records()["source"].iloc[0]
    ((text, score),) = writer.candidates([source], "plain", temperature=0.0)[0]
    prompt = writer.prompt_of(source, tone="plain", length="medium")
    written = f" {delexicalise(text, parse_facts(source, writer.saved_.settings['letters']))}"
    losses = TextGenerator(writer.saved_.model, writer.saved_.tokenizer).token_losses(prompt + written)
    number = len(writer.saved_.tokenizer.encode(written))
    assert abs(-losses[-number:].sum() / (number + 1) - score) < 0.3  # the end token is not among the losses


def test_what_cannot_be_written_about_is_refused(writer):
    for arguments, message in (
        (([""], "plain"), "row 1: The record has no facts"),
        ((["name: A | colour: red"], "plain"), "row 1: the fact 'colour' never stands in train, which knows name, price, type"),
        (([LAMP], "sad"), "the tone 'sad' is unknown to this model, which knows gay, plain"),
        (([LAMP],), "no tone is given, but this model knows gay, plain"),
        (([LAMP], "plain", "huge"), "the length is 'huge', but must be one of short, medium, long"),
    ):
        with pytest.raises(ValueError, match=message):
            writer.write(*arguments)
    frame = toy_records()
    for changed, message in (
        (frame.assign(source=["", *frame["source"][1:]]), "train, row 1: The record has no facts"),
        (frame.assign(target=["a", " ", *frame["target"][2:]]), "train, row 2: the text is empty"),
        (frame.assign(tone=np.where(frame["split"] == "valid", "sad", "gay")), "valid, row 19: the tone 'sad' never stands in train"),
        (frame.assign(tone=["", *frame["tone"][1:]]), "Some rows of train have no tone"),
        (frame.assign(split="valid"), "train has no rows"),
    ):
        with pytest.raises(ValueError, match=message):
            tones_of(changed)


def test_names_are_closed_and_values_familiar_only_where_train_says_so(writer):
    assert writer.saved_.settings["names"] == ["name", "price", "type"] and writer.saved_.settings["not_copied"] == []
    assert "stove" not in writer.prompt_of("name: Aurora | type: stove | price: 20 euros", tone="gay")
    rows = load_dataset("fact_records")
    assert _learn_settings(rows[rows["split"] == "train"], True, 0.8)["names"] == []  # each product has facts of its own


def test_saved_and_loaded_it_writes_the_same(writer, tmp_path):
    sources = toy_records()["source"].unique().tolist()
    writer.save(tmp_path / "m")
    assert DataToText.load(tmp_path / "m").write(sources, "gay") == writer.write(sources, "gay")


def test_from_files_to_texts(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(data_to_text, "SCRATCH", {"cell": "gru", "embedding_dim": 16, "units": 24, "num_layers": 1})
    monkeypatch.setattr(data_to_text, "SCRATCH_VOCAB_SIZE", 300)
    toy_records().rename(columns={"source": "facts", "target": "text", "tone": "voice"}).to_csv(tmp_path / "rows.csv", index=False)
    columns = ["--source", "facts", "--tone", "voice"]
    model = str(tmp_path / "m")
    train = ["finetune", "write", "--train", str(tmp_path / "rows.csv"), "--out", model, "--base", "none", "--epochs", "1", "--json"]
    assert main([*train, *columns, "--target", "text"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["rows"] == 18 and set(printed["metrics"]) == {"slot_error_rate", "missing_rate", "invented_rate", "bleu", "chrf"}
    assert main(["evaluate", "--model", model, "--test", str(tmp_path / "rows.csv"), *columns, "--target", "text", "--json"]) in (0, 2)
    capsys.readouterr()
    pd.DataFrame({"facts": [LAMP], "voice": ["gay"]}).to_csv(tmp_path / "new.csv", index=False)
    order = ["predict", "--model", model, "--input", str(tmp_path / "new.csv"), "--output", str(tmp_path / "out.csv"), *columns]
    assert main(order) == 0
    assert pd.read_csv(tmp_path / "out.csv").columns.tolist() == ["facts", "voice", "prediction", "confidence"]
    pd.DataFrame({"facts": ["colour: red"], "voice": ["gay"]}).to_csv(tmp_path / "new.csv", index=False)
    capsys.readouterr()
    assert main(order) == 2 and "the fact 'colour' never stands in train" in capsys.readouterr().err


def test_a_public_set_is_measured_once(monkeypatch, tmp_path, capsys, writer):
    frame = toy_records(("plain",)).drop(columns="tone")
    frame = pd.concat([frame, frame[frame["split"] == "valid"].assign(split="test")], ignore_index=True)
    frame = pd.concat([frame, frame[frame["split"] == "test"].assign(target="A lamp it is.")], ignore_index=True)
    monkeypatch.setattr(public_writing, "load_dataset", lambda name: frame)
    monkeypatch.setattr(public_writing, "load_pretrained", lambda name: None)
    monkeypatch.setattr(results, "RESULTS_DIR", tmp_path)
    monkeypatch.setattr(data_to_text, "SCRATCH", {"cell": "gru", "embedding_dim": 16, "units": 24, "num_layers": 1})
    monkeypatch.setattr(data_to_text, "SCRATCH_VOCAB_SIZE", 300)
    run = public.PublicRun(task="write", seeds=(1,), changes={"epochs": 1})
    public.measure("webnlg", run)
    table = results.read_results("public")
    assert set(table["model"]) == {"people", "template", "nearest record", "slm-base-en, one draft", "slm-base-en"}
    assert len(capsys.readouterr().out.splitlines()) == 5
    public.measure("webnlg", run)
    assert capsys.readouterr().out == ""
