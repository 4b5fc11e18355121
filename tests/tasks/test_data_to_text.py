"""Facts to text: records, placeholders and slot errors by hand; baselines; a small writer, its errors and the shell."""

import json

from slm_helpers.baselines.data_to_text import NearestRecord, TemplateWriter
from slm_helpers.cli import main
from slm_helpers.data import results
from slm_helpers.data.loading import load_dataset
from slm_helpers.generation.constrained import PlaceholderGuide
from slm_helpers.metrics.data_to_text import count_slot_errors, slot_error_table
from slm_helpers.metrics.translation import translation_table
from slm_helpers.models.saved import load_model, save_model
from slm_helpers.recipes import public_data_to_text as public_writing
from slm_helpers.recipes import public_results as public
from slm_helpers.tasks import data_to_text as write
from slm_helpers.text.records import delexicalise, fill, invented_terms, missing_values, parse_facts, states
from slm_helpers.training.config import TrainConfig

import numpy as np
import pandas as pd
import pytest

LAMP = "name: Aurora | type: desk lamp | price: 20 euros"
FAST = TrainConfig(epochs=40, batch_size=12, learning_rate=1e-2, patience=0, precision="float32")


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
        patch.setattr(write, "SCRATCH", {"cell": "gru", "embedding_dim": 24, "units": 48, "num_layers": 1})
        patch.setattr(write, "SCRATCH_VOCAB_SIZE", 320)
        saved, history = write.train(toy_records(), base=None, config=FAST, dropout=0.0)
    assert history["loss_nats"].iloc[-1] < history["loss_nats"].iloc[0]
    return saved


def test_a_record_is_read_from_text_dictionary_and_triples():
    record = parse_facts(LAMP, {"price": "p"})
    assert record.names == ("name", "type", "price") and record.contents == ("Aurora", "desk lamp", "20 euros")
    assert record.letters == ("A", "B", "p")
    assert parse_facts({"opening hours": "8.30: always"}) == parse_facts("opening hours: 8.30: always")
    triples = parse_facts('Alan Bean : crew member of : Apollo 12 | Apollo 12 : operator : "NASA"')
    assert triples.contents == ("Alan Bean", "Apollo 12", "NASA") and triples.names == ("subject", "crew member of", "operator")
    assert triples.relations == ("#A crew member of #B", "#B operator #C")


@pytest.mark.parametrize(
    ("source", "message"),
    [("", "no facts"), (" | ", "no facts"), ({}, "no facts"), ("Aurora", "'Aurora' is no fact"), ("name: ", "is no fact"),
     ("name: A | name: B", "'name' stands twice"), ("a: b | c : d : e", "mixes"),
     (" | ".join(f"fact {n}: {n}" for n in range(27)), "27 values, but at most 26")],
)  # fmt: skip
def test_what_is_no_record_is_refused(source, message):
    with pytest.raises(ValueError, match=message):
        parse_facts(source)


def test_values_are_found_as_whole_words_only():
    assert states("Costs 20\n EUROS.", "20 euros") and not states("Costs 120 euros.", "20 euros") and not states("plums", "plum")
    assert states("for £20-25 a head", "£20-25") and states("(Café Rouge)", "café rouge")


def test_placeholders_go_in_and_out():
    record = parse_facts("type: umbrella | price: 20 euros | note: 2 euros | club: eu club")
    text = "An umbrella for 20 euros. Umbrella, a eu club, 2 euros."
    assert delexicalise(text, record) == "A #A for #B. #A, a #D, #C."
    assert fill(delexicalise(text, record), record) == text
    assert delexicalise("A lamp, 20 euros", record, copied=[True, False, True, True]) == "A lamp, 20 euros"
    assert fill("#E and a #A", record) == "#E and an umbrella"
    for value, article in {
        "hourglass": "an",
        "unicycle": "a",
        "8 am walk": "an",
        "18 km run": "an",
        "1800 m run": "a",
        "one-off": "a",
    }.items():
        assert fill("See a #A", parse_facts({"walk": value})) == f"See {article} {value}"


def test_bundled_texts_come_back_whole_and_have_hardly_an_error():
    frame = load_dataset("fact_records")
    records = [parse_facts(source) for source in frame["source"]]
    assert [fill(delexicalise(t, r), r) for t, r in zip(frame["target"], records, strict=True)] == frame["target"].tolist()
    counts = count_slot_errors(frame["target"].tolist(), records)
    assert counts[:, 0].sum() == 0 and counts[:, 1].sum() / counts[:, 2].sum() < 0.005


def test_errors_are_counted_by_hand():
    record = parse_facts(LAMP)
    assert missing_values("The Aurora costs 30 euros.", record) == ["desk lamp", "20 euros"]
    assert invented_terms("The Aurora costs 30 euros.", record) == ["30"]
    assert invented_terms("Desk lamp Aurora by Lumo, 20 euros, on Mondays. Buy it! I did. #D", record) == ["#D", "Lumo", "Mondays"]
    counts = count_slot_errors(["Aurora, a desk lamp, 20 euros.", "The Aurora costs 30 euros."], [record, record])
    assert counts.tolist() == [[0, 0, 3], [2, 1, 3]]
    table = slot_error_table(counts).set_index("metric")
    assert table["value"].round(3).tolist() == [0.5, 0.333, 0.167]
    assert table.loc["slot_error_rate", ["ci_low", "ci_high"]].tolist() == [0.0, 1.0]


def test_several_right_texts_count_as_sacrebleu_counts_them():
    from sacrebleu.metrics import BLEU, CHRF

    right = [["the cat sat on the mat", "a cat was on the mat"], ["a dog barked at me"]]
    found = ["a cat sat on the mat", "the dog barked at me"]
    streams = [[texts[0] for texts in right], [texts[-1] for texts in right]]
    table = translation_table(right, found, num_samples=5).set_index("metric")["value"]
    assert table["bleu"] == pytest.approx(BLEU(force=True).corpus_score(found, streams).score)
    assert table["chrf"] == pytest.approx(CHRF().corpus_score(found, streams).score)


def test_baselines_fill_in_the_facts():
    template = TemplateWriter({"price": "for {}"}, frames={"gay": ("Look!", "Buy it!")})
    assert template.predict([f"{LAMP} | age: 3 years"], ["gay"]) == ["Look! Aurora is a desk lamp for 20 euros. Age: 3 years. Buy it!"]
    assert template.predict(['Alan Bean : crewMember : "Apollo 12"']) == ["The crew member of Alan Bean is Apollo 12."]
    nearest = NearestRecord().fit([LAMP, "name: X | date: Monday"], ["Aurora: a desk lamp, 20 euros.", "X is on Monday."])
    assert nearest.predict(["name: Bo | type: oil stove | price: 9 euros"]) == ["Bo: an oil stove, 9 euros."]
    assert nearest.predict(["name: Bo | type: oil stove | weight: 2 kg"]) == ["Bo: an oil stove, 2 kg."]
    assert nearest.predict(["name: Bo | type: oil stove"]) == ["Bo: an oil stove,."]


def test_it_states_the_facts_of_records_it_has_not_seen(writer):
    held_out = toy_records().query("split == 'valid'")
    scores = write.evaluate(writer, held_out)
    values = scores.metrics.set_index("metric")["value"]
    assert values["slot_error_rate"] < 0.1 and values["bleu"] > 60 and scores.rows == 6
    found = write.write(writer, [held_out["source"].iloc[0]] * 2, ["plain", "gay"], num_candidates=4)
    assert found[1]["prediction"].endswith("!") and found[0]["prediction"].endswith(".")
    assert 0 < found[0]["confidence"] <= 1


def test_more_drafts_have_no_more_errors_and_the_same_seed_writes_the_same(writer):
    sources = toy_records().query("split == 'valid'")["source"].unique().tolist()
    drafts = write.candidates(writer, sources, "gay", num_candidates=6, temperature=1.5)
    assert drafts == write.candidates(writer, sources, "gay", num_candidates=6, temperature=1.5)
    alone = write.candidates(writer, sources[:1], "gay", num_candidates=6, temperature=1.5)
    assert [text for text, _ in alone[0]] == [text for text, _ in drafts[0]]
    errors = [
        sum(row["errors"] for row in write.write(writer, sources, "gay", num_candidates=number, temperature=1.5)) for number in (1, 3, 6)
    ]
    assert errors == sorted(errors, reverse=True)


def test_the_best_draft_has_the_fewest_errors_then_the_length_that_is_wanted():
    drafts = [("Aurora!", -0.1), ("Aurora, a desk lamp, 20 euros.", -0.9), ("The desk lamp Aurora costs 20 euros a piece.", -0.5)]
    places = {length: write.best_candidate(drafts, parse_facts(LAMP), length=length) for length in ("", "short", "medium", "long")}
    assert places == {"": (2, 0), "short": (1, 0), "medium": (2, 0), "long": (2, 0)}
    assert write.best_candidate(drafts[:1], parse_facts(LAMP)) == (0, 2)


def test_a_guide_leaves_only_placeholders_that_are_right(writer):
    records = [parse_facts(LAMP, writer.settings["letters"])]
    guide = PlaceholderGuide(writer.tokenizer, records, repeated=["type"], left_out=["price"])
    vocabulary = writer.tokenizer.vocabulary
    letter = {name: vocabulary.index(sign) for name, sign in zip(records[0].names, records[0].letters, strict=True)}
    opening, end = int(np.flatnonzero(guide.opens)[0]), writer.tokenizer.end_id

    def allowed(last, used):
        logits = np.zeros(len(vocabulary), "float32")
        guide.mask(logits, 0, last, used)
        return set(np.flatnonzero(np.isfinite(logits)))

    assert allowed([9, opening], set()) == set(letter.values())
    assert allowed([9, opening], {letter["name"], letter["type"]}) == {letter["type"], letter["price"]}
    assert end not in allowed([9, 9], {letter["type"]}) and end in allowed([9, 9], {letter["type"], letter["name"]})
    assert letter["name"] not in allowed([opening, letter["type"]], set()) and vocabulary.index(" ") in allowed(
        [opening, letter["type"]], set()
    )
    strict = PlaceholderGuide(writer.tokenizer, records)
    logits = np.zeros(len(vocabulary), "float32")
    strict.mask(logits, 0, [9, 9], set(letter.values()))
    assert not np.isfinite(logits[opening]) and np.isfinite(logits[end])


def test_guided_drafts_of_a_bad_writer_hold_each_fact_once(writer):
    sources = toy_records()["source"].unique().tolist()[:4]
    free = [text for rows in write.candidates(writer, sources, "gay", num_candidates=5, temperature=4.0, guided=False) for text, _ in rows]
    guided = [text for rows in write.candidates(writer, sources, "gay", num_candidates=5, temperature=4.0) for text, _ in rows]
    records = [parse_facts(source) for source in sources for _ in range(5)]
    missed = [sum(len(missing_values(t, r)) for t, r in zip(texts, records, strict=True)) for texts in (free, guided)]
    assert missed[1] < 0.5 * missed[0]


def test_the_score_of_a_draft_is_the_mean_log_probability_of_its_tokens(writer):
    from slm_helpers.generation.generator import TextGenerator

    source = toy_records()["source"].iloc[0]
    ((text, score),) = write.candidates(writer, [source], "plain", temperature=0.0)[0]
    prompt = write.prompt_of(writer, source, tone="plain", length="medium")
    written = f" {delexicalise(text, parse_facts(source, writer.settings['letters']))}"
    losses = TextGenerator(writer.model, writer.tokenizer).token_losses(prompt + written)
    number = len(writer.tokenizer.encode(written))
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
            write.write(writer, *arguments)
    frame = toy_records()
    for changed, message in (
        (frame.assign(source=["", *frame["source"][1:]]), "train, row 1: The record has no facts"),
        (frame.assign(target=["a", " ", *frame["target"][2:]]), "train, row 2: the text is empty"),
        (frame.assign(tone=np.where(frame["split"] == "valid", "sad", "gay")), "valid, row 19: the tone 'sad' never stands in train"),
        (frame.assign(tone=["", *frame["tone"][1:]]), "Some rows of train have no tone"),
        (frame.assign(split="valid"), "train has no rows"),
    ):
        with pytest.raises(ValueError, match=message):
            write.check_rows(changed)


def test_names_are_closed_and_values_familiar_only_where_train_says_so(writer):
    assert writer.settings["names"] == ["name", "price", "type"] and writer.settings["not_copied"] == []
    assert "stove" not in write.prompt_of(writer, "name: Aurora | type: stove | price: 20 euros", tone="gay")
    rows = load_dataset("fact_records")
    assert write._learn_settings(rows[rows["split"] == "train"], True)["names"] == []  # each product has facts of its own


def test_saved_and_loaded_it_writes_the_same(writer, tmp_path):
    sources = toy_records()["source"].unique().tolist()
    save_model(
        tmp_path / "m", writer.model, tokenizer=writer.tokenizer, task="write", labels=writer.labels, settings=writer.settings, card="# m\n"
    )
    assert write.write(load_model(tmp_path / "m"), sources, "gay") == write.write(writer, sources, "gay")


def test_from_files_to_texts(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(write, "SCRATCH", {"cell": "gru", "embedding_dim": 16, "units": 24, "num_layers": 1})
    monkeypatch.setattr(write, "SCRATCH_VOCAB_SIZE", 300)
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


def test_restaurants_are_checked_by_what_is_said_of_each_fact():
    record = parse_facts(
        "name: The Mill | eatType: pub | food: Fast food | priceRange: less than £20 | customer rating: 1 out of 5 | area: city centre | "
        "familyFriendly: no | near: Café Rouge"
    )
    right = "The Mill, a pub near Café Rouge in the centre of the city, has cheap fast food, one star, and is not for children."
    assert public_writing.check_restaurant(right, record) == (0, 0)
    assert public_writing.check_restaurant(right.replace("not for", "good for"), record) == (1, 0)
    assert public_writing.check_restaurant(right.replace("centre of the city", "riverside"), record) == (1, 0)
    assert public_writing.check_restaurant("The Mill is near Café Rouge.", record) == (6, 0)
    less = parse_facts("name: The Mill | eatType: pub")
    assert public_writing.check_restaurant("The Mill is a family friendly pub by the river with Chinese food.", less) == (0, 3)
    assert public_writing.check_restaurant(public_writing.RestaurantTemplate().predict(
        ["name: The Mill | eatType: pub | food: Indian | priceRange: high | customer rating: low | familyFriendly: yes"])[0],
        parse_facts("name: The Mill | eatType: pub | food: Indian | priceRange: high | customer rating: low | familyFriendly: yes"),
    ) == (0, 0)  # fmt: skip


def test_a_public_set_is_measured_once(monkeypatch, tmp_path, capsys, writer):
    frame = toy_records(("plain",)).drop(columns="tone")
    frame = pd.concat([frame, frame[frame["split"] == "valid"].assign(split="test")], ignore_index=True)
    frame = pd.concat([frame, frame[frame["split"] == "test"].assign(target="A lamp it is.")], ignore_index=True)
    monkeypatch.setattr(public_writing, "load_dataset", lambda name: frame)
    monkeypatch.setattr(public_writing, "load_pretrained", lambda name: None)
    monkeypatch.setattr(results, "RESULTS_DIR", tmp_path)
    monkeypatch.setattr(write, "SCRATCH", {"cell": "gru", "embedding_dim": 16, "units": 24, "num_layers": 1})
    monkeypatch.setattr(write, "SCRATCH_VOCAB_SIZE", 300)
    run = public.PublicRun(task="write", seeds=(1,), changes={"epochs": 1})
    public.measure("webnlg", run)
    table = results.read_results("public")
    assert set(table["model"]) == {"people", "template", "nearest record", "slm-base-en, one draft", "slm-base-en"}
    assert len(capsys.readouterr().out.splitlines()) == 5
    public.measure("webnlg", run)
    assert capsys.readouterr().out == ""
