"""Commands: one network for intent and slots, scores by hand, what it refuses, files from end to end, and the assistant's home."""

import csv
import json

from slm_helpers.apps.assistant import REQUIRED_SLOTS, Assistant, as_words, seconds_of
from slm_helpers.cli import main
from slm_helpers.models.saved import SavedModel, load_model
from slm_helpers.models.taggers import build_intent_slot_model
from slm_helpers.tasks import intent_slot
from slm_helpers.tasks.intent_slot import IntentSlotParser
from slm_helpers.tasks.keyword_spotting import KeywordSpotter
from slm_helpers.tasks.token_classification import TokenTagger
from slm_helpers.text.tagging import MAX_CHARACTERS, NUM_CHARACTERS
from slm_helpers.training.config import TrainConfig

import keras
import numpy as np
import pandas as pd
import pytest

FAST = {"epochs": 6, "batch_size": 16, "learning_rate": 0.01, "config": TrainConfig(precision="float32")}
SIZES = {"num_tags": 5, "num_intents": 3, "embedding_dim": 6, "units": 8, "head_units": 7, "filters": 5}


def toy_rows(num_rows: int, *, seed: int = 0) -> pd.DataFrame:
    """Commands of two intents with a slot each: a few steps suffice to learn them."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(num_rows):
        number, room = rng.choice(["two", "three", "ten"]), rng.choice(["kitchen", "hall"])
        if i % 2:
            rows.append((f"please time {number} minutes", "O O B-duration I-duration", "set_timer"))
        else:
            rows.append((f"lights on in the {room} please", "O O O O B-room O", "control_lights"))
    return pd.DataFrame(rows, columns=["tokens", "tags", "intent"])


@pytest.fixture(scope="module")
def toy():
    """A model of the toy commands from random weights, alone and combined with linear models, and its rows."""
    frame = pd.concat([toy_rows(96).assign(split="train"), toy_rows(30, seed=1).assign(split="valid")], ignore_index=True)
    alone = IntentSlotParser(None, dropout=0.1, ngrams=False, num_copies=0, **FAST).fit_frame(frame)
    return alone, alone.add_linear_model(frame), frame


def numpy(value) -> np.ndarray:
    return keras.ops.convert_to_numpy(value)


def a_command(num_words: int = 4, *, seed: int = 0) -> list[np.ndarray]:
    """token_ids, word_ends and characters of one command, its last place standing for the whole, with a batch axis."""
    rng = np.random.default_rng(seed)
    ends = np.cumsum(rng.integers(1, 3, num_words))
    characters = rng.integers(1, NUM_CHARACTERS, (num_words + 1, MAX_CHARACTERS))
    characters[-1] = 0
    return [a[None].astype("int32") for a in (np.r_[2, rng.integers(3, 20, ends[-1])], np.r_[ends, ends[-1]], characters)]


# The network


def test_tags_score_at_words_and_intents_at_the_last_place_only_and_padding_changes_nothing():
    keras.utils.set_random_seed(1)
    model = build_intent_slot_model(20, **SIZES)
    ids, ends, characters = a_command()
    alone = numpy(model([ids, ends, characters]))[0]
    assert alone.shape == (5, 8) and alone.dtype == "float32"
    assert (alone[:4, 5:] == -1e9).all() and (alone[4, :5] == -1e9).all()
    assert (np.abs(alone[:4, :5]) < 100).all() and (np.abs(alone[4, 5:]) < 100).all()
    padded = [np.pad(ids, ((0, 0), (0, 7))), np.pad(ends, ((0, 0), (0, 3))), np.pad(characters, ((0, 0), (0, 3), (0, 0)))]
    np.testing.assert_allclose(numpy(model(padded))[0, :5], alone, atol=1e-4)


def test_intent_and_tags_both_see_the_whole_command():
    keras.utils.set_random_seed(1)
    model = build_intent_slot_model(20, **SIZES)
    ids, ends, characters = a_command()
    before = numpy(model([ids, ends, characters]))[0]
    ids[0, 1] = ids[0, 1] % 17 + 3  # the first word
    after = numpy(model([ids, ends, characters]))[0]
    assert (np.abs(after - before)[:4, :5].max(axis=1) > 1e-6).all() and np.abs(after - before)[4, 5:].max() > 1e-6


def test_too_few_intents_are_named():
    with pytest.raises(ValueError, match="5 tags and 1 intents"):
        build_intent_slot_model(20, **SIZES | {"num_intents": 1})


# The task


def test_toy_commands_are_learned_and_linear_models_add_to_it(toy):
    alone, both, _ = toy
    assert set(alone.history_["split"]) == {"train", "valid"} and both.classes_.tolist() == ["control_lights", "set_timer"]
    test = toy_rows(40, seed=5)
    for parser in (alone, both):
        values = parser.evaluate(test).set_index("metric")
        assert list(values.index) == ["intent_accuracy", "slot_f1", "frame_accuracy", "slot_precision", "slot_recall"]
        assert (values["ci_low"] <= values["value"]).all() and (values["value"] <= values["ci_high"]).all()
        assert values.loc["intent_accuracy", "value"] > 0.95
        tables = parser.evaluation_.tables
        assert tables["intents"]["rows"].sum() == 40 and set(tables["slots"]["type"]) == {"duration", "room"}
    assert both.evaluate(test)["value"].iloc[2] > 0.9  # frames
    assert len(alone.saved_.model.inputs) == 3 and len(both.saved_.model.inputs) == 5
    expected = {"ensemble_weights", "intent_ensemble_weights", "temperature", "intent_temperature", "outside_bias", "intents"}
    assert set(both.saved_.settings) >= expected


def test_slots_are_swapped_for_others_of_their_type():
    rows = pd.DataFrame(
        [
            ("lights on in the kitchen please", "O O O O B-room O", "control_lights", "train"),
            ("lights on in the back hall", "O O O O B-room I-room", "control_lights", "train"),
            ("stop", "O", "stop", "train"),
        ],
        columns=["tokens", "tags", "intent", "split"],
    )
    found = intent_slot.swap_slots(rows, num_copies=20, seed=1)
    assert set(found["tokens"]) == {"lights on in the back hall please", "lights on in the kitchen"}
    assert set(found["tags"]) == {"O O O O B-room I-room O", "O O O O B-room"} and set(found["intent"]) == {"control_lights"}
    assert found.columns.tolist() == rows.columns.tolist() and 0 < len(found) < 40
    assert intent_slot.swap_slots(rows, num_copies=20, seed=1).equals(found)
    assert intent_slot.swap_slots(rows, num_copies=0).empty and intent_slot.swap_slots(rows.iloc[2:], num_copies=3).empty


@pytest.mark.parametrize(("num_copies", "most"), [(None, 36), (0, 12), (1, 24)])
def test_few_commands_are_learned_from_with_copies_unless_told_not_to(num_copies, most):
    frame = pd.concat([toy_rows(12).assign(split="train"), toy_rows(6).assign(split="valid")], ignore_index=True)
    counts = IntentSlotParser(num_copies=num_copies)._with_copies(frame)["split"].value_counts()
    assert counts["valid"] == 6 and 12 <= counts["train"] <= most and (counts["train"] == 12) == (num_copies == 0)


def test_the_linear_logits_are_added_with_their_weight(toy):
    alone, both, frame = toy
    words = [text.split(" ") for text in frame["tokens"].tolist()[:6]]
    (tags, intents), (both_tags, both_intents) = (intent_slot.command_logits(parser.saved_, words) for parser in (alone, both))
    assert [rows.shape for rows in tags] == [rows.shape for rows in both_tags] and intents.shape == both_intents.shape == (6, 2)
    linear = both.saved_.model.get_layer("intent_ngram_scores")
    ids = intent_slot.encode_commands(both.saved_, words)["ngrams"]
    added = np.stack([numpy(linear(row[None]))[0] for row in ids])
    rest = both_intents - added - both.saved_.settings["intent_ensemble_weights"][0] * intents
    np.testing.assert_allclose(rest, np.broadcast_to(rest[0], rest.shape), atol=0.02)  # a bias; weights are rounded in the settings


def test_predictions_are_frames_with_the_words_of_their_slots(toy):
    texts = ["please time ten minutes", "lights on in the hall please"]
    frames = toy[1].predict(texts)
    assert (frames[0]["intent"], frames[0]["slots"]) == (
        "set_timer",
        [{"slot": "duration", "text": "ten minutes", "start": 2, "stop": 4}],
    )
    assert frames[0]["tags"] == ["O", "O", "B-duration", "I-duration"]
    assert frames[1]["intent"] == "control_lights" and frames[1]["slots"][0]["text"] == "hall"
    assert all(0 < row["confidence"] <= 1 for row in frames)
    rows = toy[1].predict_rows([{"tokens": text} for text in texts])
    assert [json.loads(row["prediction"]) for row in rows] == [{name: row[name] for name in ("intent", "slots")} for row in frames]
    probs = toy[1].predict_proba(texts)
    assert probs.shape == (2, 2) and toy[1].classes_[probs.argmax(axis=1)].tolist() == ["set_timer", "control_lights"]
    np.testing.assert_allclose(probs.sum(axis=1), 1)


def test_commands_come_as_strings_lists_and_tables_and_frames_as_pairs_or_tables(toy):
    rows = toy_rows(8, seed=2)
    words = [text.split(" ") for text in rows["tokens"]]
    expected = toy[1].predict(rows)
    for commands in (rows["tokens"].tolist(), words, rows["tokens"], rows.to_dict("records")):
        assert toy[1].predict(commands) == expected
    pairs = list(zip(rows["intent"], rows["tags"], strict=True))
    lists = [(intent, tags.split(" ")) for intent, tags in pairs]
    dicts = [{"intent": intent, "tags": tags} for intent, tags in lists]
    for gold in (pairs, lists, dicts, rows[["tags", "intent"]]):
        assert toy[1].evaluate(words, gold).equals(toy[1].evaluate(rows))


def test_nothing_in_gives_nothing_out(toy):
    for parser in toy[:2]:
        assert parser.predict([]) == parser.predict_rows([]) == [] and parser.predict_proba([]).shape == (0, 2)
        assert parser.predict([""])[0]["slots"] == []


def test_mistakes_are_told(toy):
    with pytest.raises(TypeError, match="one string"):
        toy[1].predict("please time ten minutes")
    with pytest.raises(ValueError, match="X has 1 rows and y 2"):
        toy[1].evaluate(["stop"], [("stop", "O")] * 2)
    with pytest.raises(ValueError, match="'intent' is missing"):
        toy[1].evaluate(pd.DataFrame({"tokens": ["stop"], "tags": ["O"]}))
    with pytest.raises(ValueError, match="has learned nothing yet"):
        IntentSlotParser().predict([])


def test_a_command_longer_than_a_window_is_read_in_several(toy):
    for num_words in (127, 128, 129, 300):
        words = (["please", "time", "ten", "minutes"] * 75)[:num_words]
        (parsed,) = toy[1].predict([words])
        tags, expected = parsed["tags"], (["O", "O", "B-duration", "I-duration"] * 75)[:num_words]
        assert len(tags) == num_words and np.mean([a == b for a, b in zip(tags, expected, strict=True)]) > 0.9
        assert parsed["intent"] == "set_timer" and 0 <= parsed["confidence"] <= 1
        assert parsed["slots"] == intent_slot.slots_of(words, tags)


def test_an_intent_that_train_lacks_counts_as_wrong_and_is_said(toy):
    odd = toy_rows(8).assign(intent=["dance", *toy_rows(8)["intent"][1:]])
    with pytest.warns(UserWarning, match=r"1 command\(s\) have an intent that train lacks \(dance\)"):
        scores = toy[1].evaluate(odd)
    assert scores["value"].iloc[0] == pytest.approx(7 / 8)
    frame = pd.concat([toy[2].head(40), odd.assign(split="valid")], ignore_index=True)
    with pytest.warns(UserWarning, match="dance"):
        IntentSlotParser().check_frame(frame)
    assert "dance" not in intent_slot.intents_of(frame)


def test_rows_without_use_are_refused():
    frame = toy_rows(12).assign(split="train")
    with pytest.raises(ValueError, match="has no intent"):
        IntentSlotParser().check_frame(frame.assign(intent=["", *frame["intent"][1:]]))
    with pytest.raises(ValueError, match="two intents are needed"):
        IntentSlotParser().check_frame(frame.assign(intent="set_timer"))


def test_the_intent_weighs_more_than_a_word_and_padding_nothing(toy):
    saved = toy[0].saved_
    examples = intent_slot._examples(saved, toy[2].head(2))  # six words and four
    _, targets, weights = examples.batch(np.array([0, 1]), 3)
    assert weights[0, :8].tolist() == [1, 1, 1, 1, 1, 1, 5, 0] and weights[1, :6].tolist() == [1, 1, 1, 1, 5, 0] and not weights[2].any()
    assert targets[0, 6] == len(saved.labels) and targets[1, 4] == len(saved.labels) + 1


# Files and shell


def run(capsys, *arguments):
    capsys.readouterr()
    code = main([str(argument) for argument in arguments])
    return code, *capsys.readouterr()


def test_from_files_to_a_folder_scores_and_predictions(tmp_path, capsys):
    for name, rows in (("train", toy_rows(80)), ("test", toy_rows(20, seed=3))):
        rows.rename(columns={"tokens": "said", "tags": "marks", "intent": "goal"}).to_csv(tmp_path / f"{name}.csv", index=False)
    columns = ["--tokens", "said", "--tags", "marks", "--intent", "goal"]
    files = ["--train", tmp_path / "train.csv", "--test", tmp_path / "test.csv"]
    code, out, _ = run(capsys, "finetune", "command", *files, *columns, "--base", "none", "--epochs", 2, "--out", tmp_path / "m", "--json")
    result = json.loads(out)
    assert code == 0 and result["task"] == "command" and result["rows"] == 80
    assert set(result["metrics"]) == {"intent_accuracy", "slot_f1", "frame_accuracy", "slot_precision", "slot_recall"}
    assert load_model(tmp_path / "m").settings["intents"] == ["control_lights", "set_timer"]
    code, out, _ = run(capsys, "evaluate", "--model", tmp_path / "m", "--test", tmp_path / "test.csv", *columns, "--json")
    found = json.loads(out)
    assert code == 0 and found["metrics"] == result["metrics"] and len(found["intents"]) == 2
    files = ["--input", tmp_path / "test.csv", "--output", tmp_path / "out.csv"]
    assert run(capsys, "predict", "--model", tmp_path / "m", *files, "--tokens", "said")[0] == 0
    rows = list(csv.DictReader((tmp_path / "out.csv").open()))
    assert len(rows) == 20 and all(json.loads(row["prediction"])["intent"] in ("set_timer", "control_lights") for row in rows)
    code, out, err = run(capsys, "finetune", "command", "--train", tmp_path / "train.csv", *columns[:4], "--out", tmp_path / "x")
    assert code == 2 and "intent is missing" in err and "--intent NAME" in err and not (tmp_path / "x").exists()


# The assistant


def test_numbers_and_time_spans_are_read():
    assert as_words("Set a timer for 25 minutes, please!") == ["set", "a", "timer", "for", "twenty", "five", "minutes", "please"]
    spans = {"an hour and a half": 5400, "three quarters of an hour": 2700, "five minutes thirty": 330, "half an hour": 1800}
    assert {text: seconds_of(text) for text in spans} == spans
    assert seconds_of("a while") is None and seconds_of("zero minutes") is None and seconds_of("ten") is None


def test_a_command_changes_the_home_and_a_missing_detail_is_asked_for(toy, monkeypatch):
    assistant = Assistant(toy[1])
    action = assistant.read("Please time 10 minutes!")
    assert action.done and action.intent == "set_timer" and assistant.home.timers == [600]
    assert assistant.read("lights on in the hall please").done and assistant.home.lights == {"hall": "on"}
    monkeypatch.setattr(IntentSlotParser, "predict", lambda parser, texts: [{"intent": "set_timer", "slots": [], "confidence": 0.9}])
    asked = assistant.read("start a timer")
    assert not asked.done and asked.reply == REQUIRED_SLOTS["set_timer"][1] and assistant.home.timers == [600]
    assert not assistant.read("a while").done  # not a time span: the question stays open
    assert assistant.read("seven").done and assistant.home.timers == [600, 420]
    monkeypatch.setattr(IntentSlotParser, "predict", lambda parser, texts: [{"intent": "set_timer", "slots": [], "confidence": 0.1}])
    unsure = assistant.read("mumble")
    assert not unsure.done and "another way" in unsure.reply and assistant.home.timers == [600, 420]


def test_a_light_is_switched_as_said_and_both_of_two_items_are_kept(toy, monkeypatch):
    tags = {
        "hall light off": ("control_lights", ["B-room", "O", "B-state"]),
        "lights out": ("control_lights", ["O", "B-state"]),
        "hall light on": ("control_lights", ["B-room", "O", "B-state"]),
        "too dark in here": ("control_lights", ["O"] * 4),
        "heating off": ("set_temperature", ["O", "B-state"]),
        "write down milk and eggs": ("add_to_list", ["O", "O", "B-item", "O", "B-item"]),
    }

    def parse(parser, texts):
        intent, marks = tags[texts[0]]
        return [{"intent": intent, "slots": intent_slot.slots_of(texts[0].split(" "), marks), "confidence": 0.9}]

    monkeypatch.setattr(IntentSlotParser, "predict", parse)
    assistant, lights = Assistant(toy[1]), []
    for text in tags:
        assert assistant.read(text).done
        lights.append(dict(assistant.home.lights))
    assert lights[0] == {"hall": "off"}  # it was not on: what is said counts
    assert lights[1] == {"hall": "off", "house": "off"} and lights[2] == {"hall": "on", "house": "off"}
    assert lights[3] == {"hall": "on", "house": "on"}  # no place named: all of them
    assert assistant.home.heating == {"house": "off"} and assistant.home.lists == {"shopping": ["milk and eggs"]}


def test_a_spoken_digit_answers_the_open_question(toy, monkeypatch):
    spotter = KeywordSpotter.from_saved(SavedModel(model=None, task="listen", labels=["4", "7"]))
    monkeypatch.setattr(KeywordSpotter, "predict_proba", lambda spotter, sounds: np.array([[1 - sounds[0][0], sounds[0][0]]]))
    assistant = Assistant(toy[1], spotter)
    assert "not asked for a number" in assistant.hear(np.array([0.9])).reply
    monkeypatch.setattr(IntentSlotParser, "predict", lambda parser, texts: [{"intent": "set_timer", "slots": [], "confidence": 0.9}])
    assistant.read("start a timer")
    assert assistant.hear(np.array([0.9])).done and assistant.home.timers == [420]
    assistant.read("start a timer")
    assistant.min_confidence = 0.95
    assert "did not catch" in assistant.hear(np.array([0.9])).reply and assistant.home.timers == [420]


def test_the_assistant_refuses_wrong_models_and_empty_words(toy):
    with pytest.raises(TypeError, match="IntentSlotParser is needed here, but this is a TokenTagger"):
        Assistant(TokenTagger())
    with pytest.raises(ValueError, match="digits 0 to 9"):
        Assistant(toy[1], KeywordSpotter.from_saved(SavedModel(model=None, task="listen", labels=["yes", "no"])))
    with pytest.raises(ValueError, match="empty"):
        Assistant(toy[1]).read(" ?! ")
    with pytest.raises(ValueError, match="no keyword spotter"):
        Assistant(toy[1]).hear(np.zeros(10))
