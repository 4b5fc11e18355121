"""Question answering: spans in passages, facts from memory, their scores, and the way from files to predictions."""

import csv
import dataclasses
import json

from slm_helpers.cli import main
from slm_helpers.metrics.classification import fit_confidence, logit
from slm_helpers.metrics.question_answering import exact_matches
from slm_helpers.models.language_model import build_language_model
from slm_helpers.models.reader import build_span_extractor, make_span_head
from slm_helpers.models.rows import run_rows
from slm_helpers.models.saved import SavedModel
from slm_helpers.tasks import extractive_qa, reading, spans
from slm_helpers.tasks.closed_book_qa import ClosedBookQA
from slm_helpers.tasks.cloze import make_cloze
from slm_helpers.tasks.extractive_qa import ExtractiveQA, new_reader
from slm_helpers.text.tokenizers import train_bpe_tokenizer, train_char_tokenizer
from slm_helpers.training.batches import Examples
from slm_helpers.training.config import TrainConfig
from slm_helpers.training.finetune import fit_examples
from tests.toys import passages

import keras
import numpy as np
import pandas as pd
import pytest

FAST = TrainConfig(epochs=10, batch_size=16, learning_rate=5e-3, precision="float32")


def facts(num_rows: int, *, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    places = {"France": "Paris", "Spain": "Madrid", "Egypt": "Cairo", "Peru": "Lima"}
    wordings = ["What is the capital of {}?", "Which city is the capital of {}?", "Name the capital of {}.", "{}: what is its capital?"]
    rows = []
    for i in range(num_rows):
        country = list(places)[i % 4]
        rows.append(("", f"{rng.choice(wordings).format(country)}", places[country], -1))
    return pd.DataFrame(rows, columns=list(ExtractiveQA.columns))


def train(frame: pd.DataFrame, **options) -> tuple[ExtractiveQA, pd.DataFrame]:
    model = ExtractiveQA(**options).fit_frame(frame)
    return model, model.history_


def learn_facts(frame: pd.DataFrame, **options) -> tuple[ClosedBookQA, pd.DataFrame]:
    model = ClosedBookQA(**options).fit_frame(frame)
    return model, model.history_


@pytest.fixture(scope="module")
def reader():
    """A reader trained from random weights on the toy passages."""
    frame = pd.concat([passages(192).assign(split="train"), passages(40, seed=1).assign(split="valid")], ignore_index=True)
    return train(frame, base=None, config=FAST, dropout=0.1, num_cloze=0)


@pytest.fixture(scope="module")
def knower():
    frame = pd.concat([facts(64).assign(split="train"), facts(16, seed=1).assign(split="valid")], ignore_index=True)
    return learn_facts(frame, base=None, config=FAST, dropout=0.1)


def small_reader(vocab_size: int = 40, **sizes) -> keras.Model:
    keras.utils.set_random_seed(1)
    return build_span_extractor(vocab_size, num_features=3, embedding_dim=6, units=8, head_units=5, dropout=0.0, **sizes)


def reader_rows(lengths: list[int]) -> dict[str, list[np.ndarray]]:
    rng = np.random.default_rng(0)
    passage = [rng.integers(3, 40, length).astype("int32") for length in lengths]
    return {
        "question": [rng.integers(3, 40, 5 + i % 3).astype("int32") for i in range(len(lengths))],
        "question_ends": [np.array([2, 4], dtype="int32")] * len(lengths),
        "passage": passage,
        "passage_ends": [np.arange(1, len(ids), dtype="int32") for ids in passage],
        "features": [rng.integers(0, 100, (len(ids) - 1, 3)).astype("int32") for ids in passage],
    }


# Scores


# Words and places


@pytest.mark.parametrize("kind", ["bpe", "char"])
def test_an_answer_becomes_words_and_comes_back_as_it_stands_in_the_passage(kind):
    context = "Die  Köchin  kocht 🙂🙂 Süppchen – für 3,50 € im Café “Ogród”.  Zwei Gäste  kamen, ein \u200b Hund auch."
    tokenizer = train_bpe_tokenizer([context], vocab_size=280) if kind == "bpe" else train_char_tokenizer([context, "Wo?"])
    read = reading.Reading(tokenizer)
    for found in ("Köchin", "🙂🙂 Süppchen", "3,50 €", "Café “Ogród”", "Zwei Gäste  kamen", "Hund", "Die"):
        row = {"context": context, "question": "Wo?", "answer": found, "answer_start": context.index(found)}
        rows = reading.answer_examples(read, pd.DataFrame([row]), name="train")
        first, last = rows.targets[0]
        places = read.text(context)[0].places
        assert context[places[first - 1, 0] : places[last - 1, 1]] == found
        # The place of a word's last token is the token that holds its last character.
        _, tokens = tokenizer.encode_with_places([context])[0]
        for (_, end), token in zip(places, rows.inputs["passage_ends"][0] - 1, strict=True):
            assert tokens[token, 0] < end <= tokens[token, 1]


def test_an_answer_is_found_at_its_place_or_the_nearest_one():
    context = "one two one two one"
    assert reading.find_answer(context, "one", 8) == 8
    assert reading.find_answer(context, "one", 14) == 16
    assert reading.find_answer(context, "one", -1) == 0
    assert reading.find_answer(context, "three", 3) == -1
    assert reading.find_answer("In 1284, 12 monks came.", "12", -1) == 9  # not the piece of a year
    assert reading.find_answer("In 1284 they came.", "12", -1) == 3  # but that, where there is no other


def test_pieces_of_a_long_passage_hold_every_word_and_every_short_span():
    for num_words in (1, 299, 300, 301, 1234):
        bounds = reading.piece_bounds(num_words)
        assert bounds[0][0] == 0 and bounds[-1][1] == num_words
        assert all(end - start <= reading.PIECE for start, end in bounds)
        for span in (1, spans.MAX_WORDS):
            assert all(any(a <= i and i + span <= b for a, b in bounds) for i in range(num_words - span + 1))


# The network


def test_padding_changes_nothing_and_gets_no_score():
    model, rows = small_reader(num_layers=2), reader_rows([9, 30, 17, 4])
    together = run_rows(model, rows)
    for i in range(4):
        alone = run_rows(model, {name: [part[i]] for name, part in rows.items()})[0]
        num_places = 1 + len(rows["passage_ends"][i])
        np.testing.assert_allclose(together[i][:, :num_places], alone[:, :num_places], atol=1e-5)
        assert (together[i][:, num_places:] < -1e8).all()
    assert together[0].shape[0] == 2


def test_every_word_sees_both_sides_and_the_question():
    model, rows = small_reader(), reader_rows([9])
    plain = run_rows(model, rows)[0]
    for name, place in (("passage", 1), ("passage", 8), ("question", 1)):
        changed = {key: [part.copy() for part in parts] for key, parts in rows.items()}
        changed[name][0][place] = 3 + (changed[name][0][place] + 5) % 37
        assert (np.abs(run_rows(model, changed)[0][:, :9] - plain[:, :9]) > 1e-7).all()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_network_learns_where_a_marked_span_stands(precision):
    rows = reader_rows([12, 15, 9, 20] * 8)
    rng = np.random.default_rng(0)
    targets = [np.sort(rng.integers(1, len(ids), 2)).astype("int32") for ids in rows["passage"]]
    for features, (first, last) in zip(rows["features"], targets, strict=True):
        features[:] = 0
        features[first - 1, 0] = features[last - 1, 1] = 100
    history = fit_examples(
        small_reader(),
        Examples(rows, targets),
        config=TrainConfig(epochs=12, batch_size=8, learning_rate=0.03, precision=precision),
    )
    assert history["loss_nats"].iloc[-1] < 0.3 * history["loss_nats"].iloc[0]


def test_spans_are_scored_by_their_first_and_last_word_against_no_answer(reader):
    saved, _ = reader
    rows = passages(3, seed=8).to_dict("records")
    saved = saved.saved_
    read = reading.Reading(saved.tokenizer)
    for row, found, piece in zip(rows, spans.score_spans(saved, rows), read.pieces(rows), strict=True):
        (scores,) = run_rows(saved.model, {name: [part] for name, part in piece.inputs.items()})
        words = read.text(row["context"])[0]
        wanted = {
            (int(words.places[i, 0]), int(words.places[j, 1])): scores[0, 1 + i] + scores[1, 1 + j] - scores[:, 0].sum()
            for i in range(len(words.forms))
            for j in range(i, min(i + saved.settings["max_words"], len(words.forms)))
            if words.sentences[i] == words.sentences[j]
        }
        assert {tuple(place) for place in found.places.tolist()} == set(wanted)
        np.testing.assert_allclose(found.network, [wanted[tuple(place)] for place in found.places.tolist()], atol=1e-4)
        likely = spans.log_probs(found, saved.settings["shares"])
        assert np.exp(likely).sum() == pytest.approx(1) and len(likely) == len(found.places) + 1


def test_shares_go_to_the_model_that_knows():
    rng = np.random.default_rng(0)
    places = np.array([[0, 1], [2, 3], [4, 5]])
    rows = [{"context": "a b c", "answer": rng.choice(["a", "b", "c", ""])} for _ in range(80)]
    clear = [np.array([2.0 * (row["answer"] == name) for name in ("a", "b", "c", "")]) for row in rows]
    noise = rng.normal(size=(80, 4))
    good = [spans.SpanScores(places, n[:3], known[:3], known[3]) for n, known in zip(noise, clear, strict=True)]
    network, features, _ = spans.fit_shares(good, rows, start=spans.SHARES)
    assert features > 1 and network < 0.35 < features / 2
    bad = [spans.SpanScores(places, known[:3] - known[3], n[:3], 0.0) for n, known in zip(noise, clear, strict=True)]
    network, features, none = spans.fit_shares(bad, rows, start=spans.SHARES_ALONE)
    assert network > 0.5 and features == 0 and none < 1


def test_a_reader_starts_with_the_layers_of_its_base():
    base = build_language_model(300, embedding_dim=8, units=12, num_layers=2)
    model = new_reader(SavedModel(model=base, tokenizer=None), None)
    for name in ("embedding", "gru_0", "gru_1"):
        for ours, theirs in zip(model.get_layer(name).get_weights(), base.get_layer(name).get_weights(), strict=True):
            assert np.array_equal(ours, theirs)
    again = new_reader(SavedModel(model=model, tokenizer=None, task="answer"), None, dropout=0.1)
    assert all(np.array_equal(a, b) for a, b in zip(again.get_weights(), model.get_weights(), strict=True))


def small_base(seed: int = 3, **sizes) -> SavedModel:
    """A language model with a vocabulary of the toy passages, as it is after no training at all."""
    keras.utils.set_random_seed(seed)
    rows = passages(60)
    tokenizer = train_bpe_tokenizer([*rows["context"], *rows["question"]], vocab_size=300)
    return SavedModel(model=build_language_model(300, **({"embedding_dim": 32, "units": 32} | sizes)), tokenizer=tokenizer)


def test_the_head_of_a_reader_scores_what_the_whole_scores():
    base = small_base()
    model = new_reader(base, base.tokenizer)
    examples = reading.answer_examples(reading.Reading(base.tokenizer), passages(11), name="train", same_length=True)
    kept: dict = {}
    described = reading.describe_examples(model, examples, kept)
    whole = run_rows(model, examples.inputs, by="passage", batch_size=4)
    # In batches of another size, so that texts are padded otherwise than they were when described.
    for ours, theirs in zip(run_rows(make_span_head(model), described.inputs, batch_size=3), whole, strict=True):
        width = min(ours.shape[1], theirs.shape[1])
        np.testing.assert_allclose(ours[:, :width], theirs[:, :width], atol=2e-3)
    texts = {ids.tobytes() for name in ("question", "passage") for ids in examples.inputs[name]}
    assert len(kept) == len(texts)
    again = reading.describe_examples(model, examples, kept)
    assert all(a is b for a, b in zip(again.inputs["passage_states"], described.inputs["passage_states"], strict=True))


@pytest.mark.parametrize("limit", [10**9, 10])
def test_the_layers_of_the_base_stay_as_they_are_unless_all_are_to_learn(limit, monkeypatch):
    monkeypatch.setattr(extractive_qa, "_MAX_CACHED", limit)
    base = small_base()
    frame = pd.concat([passages(24).assign(split="train"), passages(8, seed=1).assign(split="valid")], ignore_index=True)
    config = TrainConfig(epochs=2, batch_size=8, learning_rate=5e-3, precision="float32")
    before = [weight.copy() for weight in base.model.get_weights()]
    moved = {}
    for whole in (False, True):
        saved, history = train(frame, base=base, config=config, num_cloze=8, features=False, train_base=whole)
        assert history["epoch"].max() == 2 and {"train", "valid"} == set(history["split"])
        layers = [weight for name in ("embedding", "gru_0") for weight in saved.saved_.model.get_layer(name).get_weights()]
        moved[whole] = max(float(np.abs(new - old).max()) for new, old in zip(layers, before, strict=True))
        assert all(
            row["prediction"] in context
            for row, context in zip(saved.predict_rows(frame.to_dict("records")), frame["context"], strict=True)
        )
    assert moved[False] == 0 and moved[True] > 1e-3


def test_a_head_alone_learns_a_task_that_can_be_learned():
    frame = pd.concat([passages(192).assign(split="train"), passages(40, seed=1).assign(split="valid")], ignore_index=True)
    config = dataclasses.replace(FAST, epochs=3)
    saved, _ = train(frame, base=small_base(embedding_dim=64), config=config, dropout=0.1, num_cloze=0, features=False)
    found = saved.evaluate_frame(passages(60, seed=2)).metrics.set_index("metric")
    assert found.loc["exact_match", "value"] > 0.7


# Training


def test_questions_made_of_passages_ask_for_what_is_missing():
    contexts = [*passages(30)["context"].unique(), "Two short. Words here."]
    rows = make_cloze([f"{context} And later on the old clock stood near the door." for context in contexts], num_rows=50, none_share=0.3)
    assert len(rows) == 50 and 3 < (rows["answer"] == "").sum() < 30
    for row in rows[rows["answer"] != ""].itertuples():
        assert row.context[row.answer_start :].startswith(row.answer) and row.question.endswith("?")
        assert row.answer not in row.question
    assert rows.equals(make_cloze([f"{c} And later on the old clock stood near the door." for c in contexts], num_rows=50, none_share=0.3))


def test_a_reader_learns_a_task_that_can_be_learned(reader):
    saved, history = reader
    scores = saved.evaluate_frame(passages(60, seed=2).assign(kind=["x", "y"] * 30))
    found = scores.metrics.set_index("metric")
    assert found.loc["exact_match", "value"] > 0.8 and found.loc["token_f1", "value"] >= found.loc["exact_match", "value"]
    assert found.loc["no_answer_recall", "value"] > 0.7
    assert (found["ci_low"] <= found["value"]).all() and (found["value"] <= found["ci_high"]).all()
    assert scores.tables["kinds"]["rows"].tolist() == [30, 30]
    assert {"train", "valid"} == set(history["split"])


def test_a_prediction_is_a_piece_of_its_passage_with_a_confidence_that_means_something(reader):
    saved, _ = reader
    rows = passages(60, seed=3)
    found = pd.DataFrame(saved.predict_rows(rows.to_dict("records")))
    assert all(prediction in context for prediction, context in zip(found["prediction"], rows["context"], strict=True))
    right = exact_matches(rows["answer"].tolist(), found["prediction"].tolist())
    assert abs(found["confidence"].mean() - right.mean()) < 0.15
    assert saved.predict_rows([]) == []


def test_the_answer_in_the_middle_of_a_long_passage_is_found(reader):
    saved, _ = reader
    filler = "Nobody has seen it since. "
    for before in (0, 60, 400):
        context = filler * before + "Mia has a red kite. Tom has a blue drum. " + filler * 60
        (found,) = saved.predict_rows([{"context": context, "question": "What does Tom have?"}])
        assert found["prediction"] in context
        assert found["prediction"] == "a blue drum"


def test_without_unanswerable_training_rows_there_is_always_an_answer():
    frame = passages(48, none=False).assign(split="train")
    saved, _ = train(frame, base=None, config=TrainConfig(epochs=1, batch_size=16), num_cloze=16)
    assert all(row["prediction"] for row in saved.predict_rows(passages(12).to_dict("records")))


@pytest.mark.parametrize("name", ["reader", "knower"])
def test_a_saved_model_gives_the_same_answers(name, tmp_path, request):
    saved, _ = request.getfixturevalue(name)
    rows = (passages(20, seed=4) if name == "reader" else facts(12, seed=4)).to_dict("records")
    saved.save(tmp_path / "m")
    assert type(saved).load(tmp_path / "m").predict_rows(rows) == saved.predict_rows(rows)


def test_facts_are_learned_and_known_in_other_words(knower):
    saved, _ = knower
    assert saved.saved_.labels == ["Cairo", "Lima", "Madrid", "Paris"]
    found = saved.predict_rows([{"context": "", "question": "Which city is the capital of Peru?"}])[0]
    assert found["prediction"] == "Lima" and found["confidence"] > 0.5
    assert saved.evaluate_frame(facts(16, seed=2)).metrics["value"].iloc[0] > 0.9


def test_answers_nobody_can_know_lower_the_confidence_only():
    frame = pd.concat([facts(64).assign(split="train"), facts(16, seed=1).assign(split="valid")], ignore_index=True)
    strange = pd.DataFrame([("", f"What is the capital of Land {i}?", f"Town {i}", -1, "valid") for i in range(16)], columns=frame.columns)
    saved, _ = learn_facts(pd.concat([frame, strange], ignore_index=True), base=None, config=FAST, dropout=0.1)
    found = saved.predict_rows(facts(8, seed=3).to_dict("records"))
    assert 0.2 < np.mean([row["confidence"] for row in found]) <= 1


def test_confidence_is_the_share_of_right_answers():
    probs = np.repeat([0.6, 0.9], 500)
    right = np.concatenate([np.arange(500) % 5 == 0, np.arange(500) % 2 == 0])  # 20 % and 50 %: the model is too sure
    slope, shift = fit_confidence(probs, right)
    sure = 1 / (1 + np.exp(-(slope * logit([0.6, 0.9]) + shift)))
    np.testing.assert_allclose(sure, [0.2, 0.5], atol=0.02)
    slope, shift = fit_confidence(np.array([0.9, 0.8]), np.array([1, 1]))
    assert slope >= 0 and np.isfinite(shift)


# What is refused


def test_rows_of_both_kinds_are_refused_with_a_cure(reader, knower):
    both = pd.concat([passages(10), facts(10)], ignore_index=True).assign(split="train")
    with pytest.raises(ValueError, match=r"10 of 20 rows have no context, e\.g\. row 11.*a file of their own"):
        train(both, base=None)
    with pytest.raises(ValueError, match=r"row 1:.*without a context.*Give its context"):
        reader[0].predict_rows(facts(1).to_dict("records"))
    with pytest.raises(ValueError, match=r"row 1:.*with a context.*Leave its context empty"):
        knower[0].evaluate_frame(passages(1))


def test_answers_that_stand_nowhere_are_left_out_and_counted():
    frame = passages(20).assign(split="train")
    frame.loc[[1, 2], "answer"] = "a purple cow"
    with pytest.warns(UserWarning, match=r"train: 2 row\(s\) whose answer does not stand in the context were left out"):
        train(frame, base=None, config=TrainConfig(epochs=1, batch_size=16), num_cloze=0)
    with pytest.raises(ValueError, match="train has no row whose answer stands in its context"), pytest.warns(UserWarning):
        train(frame.assign(answer="a purple cow"), base=None, num_cloze=0)
    with pytest.raises(ValueError, match="two at least"):
        learn_facts(facts(8).assign(answer="Rome", split="train"), base=None)


# Baselines


# From files to predictions


def run(capsys, *arguments):
    capsys.readouterr()
    code = main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return code, out, err


def test_the_commands_train_score_and_predict(tmp_path, capsys):
    passages(120).rename(columns={"context": "text", "answer": "reply"}).to_csv(tmp_path / "train.csv", index=False)
    passages(20, seed=1).rename(columns={"context": "text", "answer": "reply"}).to_csv(tmp_path / "test.csv", index=False)
    columns = ["--context", "text", "--answer", "reply"]
    files = ["--train", tmp_path / "train.csv", "--test", tmp_path / "test.csv"]
    code, out, err = run(
        capsys, "finetune", "answer", *files, *columns, "--base", "none", "--epochs", "2", "--out", tmp_path / "m", "--json"
    )
    assert code == 0, err
    assert set(json.loads(out)["metrics"]) == {"exact_match", "token_f1", "no_answer_recall"}
    code, out, err = run(capsys, "evaluate", "--model", tmp_path / "m", "--test", tmp_path / "test.csv", *columns, "--json")
    assert code == 0 and json.loads(out)["rows"] == 20, err
    arguments = ["--model", tmp_path / "m", "--input", tmp_path / "test.csv", "--output", tmp_path / "out.csv", "--context", "text"]
    code, _, err = run(capsys, "predict", *arguments)
    rows = list(csv.DictReader((tmp_path / "out.csv").open()))
    assert code == 0 and len(rows) == 20, err
    assert all(row["prediction"] in row["text"] and 0 <= float(row["confidence"]) <= 1 for row in rows)


def test_a_file_of_questions_and_answers_is_enough(tmp_path, capsys):
    facts(60)[["question", "answer"]].rename(columns={"answer": "reply"}).to_csv(tmp_path / "facts.csv", index=False)
    (tmp_path / "new.csv").write_text("question\nWhat is the capital of Peru?\n")
    files = ["--train", tmp_path / "facts.csv", "--answer", "reply"]
    code, _, err = run(capsys, "finetune", "answer", *files, "--base", "none", "--epochs", "8", "--out", tmp_path / "m")
    assert code == 0, err
    code, _, err = run(capsys, "predict", "--model", tmp_path / "m", "--input", tmp_path / "new.csv", "--output", tmp_path / "out.csv")
    (row,) = csv.DictReader((tmp_path / "out.csv").open())
    assert code == 0 and set(row) == {"question", "prediction", "confidence"} and row["prediction"] in {"Paris", "Madrid", "Cairo", "Lima"}
    passages(3).to_csv(tmp_path / "passages.csv", index=False)
    code, _, err = run(capsys, "finetune", "answer", *files, "--test", tmp_path / "passages.csv", "--base", "none", "--out", tmp_path / "n")
    assert code == 2 and "there is no column 'reply'" in err
    passages(3).rename(columns={"answer": "reply"}).to_csv(tmp_path / "passages.csv", index=False)
    code, _, err = run(capsys, "finetune", "answer", *files, "--test", tmp_path / "passages.csv", "--base", "none", "--out", tmp_path / "n")
    assert code == 2 and "of 63 rows have no context" in err and not (tmp_path / "n").exists()


@pytest.fixture
def short_first_round(monkeypatch):
    """Let the shell make few questions of the passages themselves: a first round of the usual size takes a minute."""
    monkeypatch.setitem(ExtractiveQA.__init__.__kwdefaults__, "num_cloze", 60)


def test_without_its_place_the_answer_is_looked_for(tmp_path, capsys, short_first_round):
    rows = passages(60, none=False).rename(columns={"answer_start": "place"})
    rows.to_csv(tmp_path / "named.csv", index=False)
    rows.drop(columns="place").to_csv(tmp_path / "bare.csv", index=False)
    options = ["--base", "none", "--epochs", "1"]
    for name, columns in (("named", ["--answer_start", "place"]), ("bare", [])):
        columns = [column.replace("_", "-") for column in columns]
        code, _, err = run(capsys, "finetune", "answer", "--train", tmp_path / f"{name}.csv", *columns, *options, "--out", tmp_path / name)
        assert code == 0, err
    (tmp_path / "facts.csv").write_text("question\nWhat is the capital of Peru?\n")
    code, _, err = run(capsys, "predict", "--model", tmp_path / "bare", "--input", tmp_path / "facts.csv", "--output", tmp_path / "out.csv")
    assert code == 2 and "Give its context" in err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows.drop(columns="answer"), "answer is missing"),
        (lambda rows: rows.assign(answer_start="here"), "not a whole number"),
        (lambda rows: rows.assign(context=[""] * 5 + rows["context"].tolist()[5:], split="train"), "rows have no context"),
        (lambda rows: rows.assign(answer="nothing of the kind"), "Give the answer as it is written there"),
    ],
)
@pytest.mark.filterwarnings("ignore:train. ")
def test_bad_files_are_refused_in_one_line(tmp_path, capsys, change, message):
    change(passages(30, none=False)).to_csv(tmp_path / "bad.csv", index=False)
    code, out, err = run(capsys, "finetune", "answer", "--train", tmp_path / "bad.csv", "--base", "none", "--out", tmp_path / "m")
    assert code == 2 and out == "" and message in err and err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.csv"]


def test_saved_model_of_an_older_run_can_go_on(reader):
    saved, _ = reader
    base = saved.saved_
    frame = passages(32, seed=6).assign(split="train")
    again, _ = train(frame, base=base, config=TrainConfig(epochs=1, batch_size=16, learning_rate=1e-4))
    assert again.evaluate_frame(passages(40, seed=7)).metrics["value"].iloc[0] > 0.7
