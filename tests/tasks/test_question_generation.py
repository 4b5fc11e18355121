"""Questions on passages: templates, a decoder that copies from its source, the task from rows to questions, and the shell."""

import csv
import dataclasses
import json

from slm_helpers.cli import main
from slm_helpers.data import results
from slm_helpers.generation.sequences import decode_sequences
from slm_helpers.models.encoder_decoder import build_pointer_generator, make_decoder_step, make_encoder
from slm_helpers.models.language_model import build_language_model
from slm_helpers.models.layers import PointerGenerator
from slm_helpers.models.registry import backbone_config, load_backbone_weights
from slm_helpers.models.saved import SavedModel, load_model
from slm_helpers.recipes import train_question_generator as recipe
from slm_helpers.tasks.question_generation import CONTINUED_LEARNING_RATE, QuestionGenerator, _best_question, gives_away, question_examples
from slm_helpers.text.tokenizers import train_bpe_tokenizer
from slm_helpers.training.batches import Examples
from slm_helpers.training.config import TrainConfig
from slm_helpers.training.finetune import fit_examples

import keras
import numpy as np
import pandas as pd
import pytest

END = 2
CONTEXT = "The mill stands by the Orr. In 1284 the monks of Wendle built a wooden bridge. It had 12 arches. Mr Finch mends it."


# The network


def numpy(value) -> np.ndarray:
    return keras.ops.convert_to_numpy(value)


def new_network(**options) -> keras.Model:
    keras.utils.set_random_seed(1)
    model = build_pointer_generator(20, **{"embedding_dim": 6, "units": 8, "memory_dim": 5} | options)
    model.get_layer("context_projection").kernel.assign(np.random.default_rng(0).normal(size=(model.get_layer("memory").units, 6)))
    return model


def some_ids(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(3, 20, shape).astype("int32")


def test_scores_of_copies_are_a_mixture_of_two_distributions():
    rng = np.random.default_rng(0)
    logits, gate = rng.normal(size=(2, 3, 7)), rng.normal(size=(2, 3, 1))
    shares = rng.dirichlet(np.ones(4), (2, 3))
    source = np.array([[4, 5, 4, 6], [1, 1, 1, 1]])
    found = numpy(PointerGenerator()([logits, shares, gate, source]))
    for row in range(2):
        for time in range(3):
            drawn, copies = np.exp(logits[row, time]) / np.exp(logits[row, time]).sum(), 1 / (1 + np.exp(-gate[row, time, 0]))
            wanted = (1 - copies) * drawn
            for place, token in enumerate(source[row]):
                wanted[token] += copies * shares[row, time, place]
            np.testing.assert_allclose(np.exp(found[row, time]), wanted, atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"num_layers": 2}, {"cell": "rnn"}, {"units": 6}])
def test_padding_changes_no_score_and_steps_give_those_of_the_whole_pass(options):
    model = new_network(**options)
    source, target = some_ids(3, 5), some_ids(3, 4, seed=1)
    source[1, 3:] = 0
    whole = numpy(model([source, target]))
    assert whole.shape == (3, 4, 20) and whole.dtype == "float32"
    np.testing.assert_allclose(np.exp(whole).sum(axis=2), 1, atol=1e-5)
    padded = numpy(model([np.pad(source, ((0, 0), (0, 7))), np.pad(target, ((0, 0), (0, 3)))]))
    np.testing.assert_allclose(padded[:, :4], whole, atol=1e-5)
    *first, memory = make_encoder(model)(source)
    step, states = make_decoder_step(model), [*map(numpy, first), numpy(memory), source]
    for place in range(4):
        scores, *states = map(numpy, step([target[:, place], *states]))
        np.testing.assert_allclose(scores, whole[:, place], atol=1e-5)


def test_it_starts_as_the_language_model_that_it_is_made_of():
    keras.utils.set_random_seed(3)
    base = build_language_model(20, embedding_dim=6, units=8)
    model = build_pointer_generator(**backbone_config(base))
    assert load_backbone_weights(model, base) == ["embedding", "gru_0", "projection"]
    source, target = some_ids(2, 5), some_ids(2, 4, seed=1)
    scores = numpy(base(np.concatenate([source, target], axis=1)))[:, 5:]
    wanted = np.exp(scores) / np.exp(scores).sum(axis=2, keepdims=True)
    found = np.exp(numpy(model([source, target])))
    for row in range(2):
        others = np.setdiff1d(np.arange(20), source[row])  # these can only be drawn
        shares = found[row][:, others] / wanted[row][:, others]
        np.testing.assert_allclose(shares, np.broadcast_to(shares[:, :1], shares.shape), rtol=1e-4)
        assert ((shares > 0.2) & (shares < 1)).all()


def test_an_lstm_is_refused():
    with pytest.raises(ValueError, match="cell is 'lstm'"):
        build_pointer_generator(20, cell="lstm")


def test_it_copies_tokens_that_no_target_of_train_held():
    keras.utils.set_random_seed(5)
    rng = np.random.default_rng(5)

    def rows(tokens):
        before = [rng.integers(4, 10, rng.integers(1, 5)) for _ in tokens]
        sources = [np.array([*some, 3, token, *rng.integers(4, 10, 2)], "int32") for some, token in zip(before, tokens, strict=True)]
        return sources, [np.array([token, END], "int32") for token in tokens]

    sources, targets = rows(rng.integers(10, 50, 800))
    model = build_pointer_generator(60, embedding_dim=16, units=24, memory_dim=16, dropout=0.0)
    inputs = [np.array([3, target[0]], "int32") for target in targets]
    config = TrainConfig(epochs=12, batch_size=16, learning_rate=1e-2)
    fit_examples(model, Examples({"source_ids": sources, "target_ids": inputs}, targets, along="target_ids"), config=config)
    sources, targets = rows(rng.integers(50, 60, 50))  # ids that stand nowhere in train
    found = decode_sequences(model, sources, start_id=3, end_id=END, suppress_token_ids=(0, 1))
    assert np.mean([best.token_ids == [target[0]] for (best,), target in zip(found, targets, strict=True)]) > 0.8


# The task

TOY = TrainConfig(epochs=30, batch_size=8, learning_rate=1e-2)


def passages() -> pd.DataFrame:
    rows = []
    for number, (who, what) in enumerate(
        (who, what) for who in ("cat", "owl", "dog", "hen") for what in ("mat", "wall", "bed", "box", "hill")
    ):
        context = f"It rained. The {who} sat on the {what}. It was late."
        split = "test" if number % 5 == 4 else "valid" if number % 5 == 3 else "train"
        rows.append({"context": context, "question": f"What did the {who} sit on?", "answer": what, "split": split})
    return pd.DataFrame(rows).assign(answer_start=-1)


def train(frame: pd.DataFrame, **options) -> tuple[QuestionGenerator, pd.DataFrame]:
    model = QuestionGenerator(**options).fit_frame(frame)
    return model, model.history_


@pytest.fixture(scope="module")
def toy():
    frame = passages()
    tokenizer = train_bpe_tokenizer([*frame["context"], *frame["question"], "Answer: Question:"], vocab_size=320)
    keras.utils.set_random_seed(0)
    base = SavedModel(model=build_language_model(tokenizer.vocab_size, units=32, embedding_dim=24), tokenizer=tokenizer)
    before = [w.copy() for w in base.model.get_weights()]
    saved, history = train(frame, base=base, config=TOY, dropout=0.1)
    assert all((a == b).all() for a, b in zip(before, base.model.get_weights(), strict=True)), "the base was changed"
    assert set(history["split"]) == {"train", "valid"}
    return saved, base, frame


def test_a_question_is_learned_behind_its_sentence_and_answer(toy):
    saved, _, frame = toy
    rows = frame.head(1).to_dict("records")
    examples = question_examples(saved.saved_, [row | {"answer_start": row["context"].index(row["answer"])} for row in rows], name="train")
    decode = saved.saved_.tokenizer.decode
    source, read, written = examples.inputs["source_ids"][0], examples.inputs["target_ids"][0], examples.targets[0]
    assert decode(np.append(source[1:], read[0])) == "The cat sat on the mat.\nAnswer: mat\nQuestion:"
    assert decode(written[:-1]) == " What did the cat sit on?" and written[-1] == saved.saved_.tokenizer.end_id
    np.testing.assert_array_equal(read[1:], written[:-1])


def test_it_asks_what_it_was_taught_to_ask(toy):
    saved, _, frame = toy
    test = frame[frame["split"] == "test"]
    scores = saved.evaluate_frame(test)
    assert scores.rows == 4 and scores.metrics.set_index("metric").loc["bleu", "value"] > 60
    assert scores.tables["questions"]["question"].tolist() == test["question"].tolist()
    found = saved.predict_rows(test.to_dict("records"))
    assert [row["prediction"] for row in found] == scores.tables["questions"]["prediction"].tolist()
    assert all(0 < row["confidence"] <= 1 for row in found)
    assert saved.predict_rows([]) == []


def test_what_is_taught_often_is_asked_word_for_word():
    text = [f"The {a} cat sat on the {b} mat. It was {c}." for a in ("old", "big") for b in ("red", "new") for c in ("late", "dark")]
    rows = [{"context": t, "question": "What sat there?", "answer": "cat", "answer_start": t.index("cat"), "split": "train"} for t in text]
    tokenizer = train_bpe_tokenizer([*text, "Answer: Question: What sat there?\n"], vocab_size=300)
    keras.utils.set_random_seed(0)
    base = SavedModel(model=build_language_model(tokenizer.vocab_size, units=16, embedding_dim=16), tokenizer=tokenizer)
    saved, _ = train(pd.DataFrame(rows), base=base, config=TrainConfig(epochs=40, batch_size=8, learning_rate=2e-2))
    assert [row["prediction"] for row in saved.predict_rows(rows[:2])] == ["What sat there?"] * 2


def test_of_several_questions_one_that_does_not_give_its_answer_away_is_taken():
    assert gives_away("Did the Cat sit?", "the cat") and not gives_away("Who sat?", "the cat") and not gives_away("Who?", "")
    texts = ["", "Did the cat sit?", "Who sat?", "Who was it?"]
    assert _best_question(texts, "the cat") == 2 and _best_question(texts, "") == 1
    assert _best_question(texts[:2], "the cat") == 1 and _best_question(["", ""], "the cat") == 0


def test_a_saved_writer_asks_the_same_and_can_be_taught_further(toy, tmp_path):
    saved, base, frame = toy
    rows = frame.head(3).to_dict("records")
    saved.save(tmp_path / "m")
    loaded = load_model(tmp_path / "m", task="ask")
    assert QuestionGenerator.from_saved(loaded).predict_rows(rows) == saved.predict_rows(rows)
    again, _ = train(frame, base=loaded, config=TrainConfig(epochs=1, learning_rate=1e-9))
    assert [row["prediction"] for row in again.predict_rows(rows)] == [row["prediction"] for row in saved.predict_rows(rows)]
    rates = []
    for start in (base, loaded):
        config = TrainConfig(epochs=1, schedule="constant", warmup_share=0.0)
        rates.append(train(frame, base=start, config=config)[1]["learning_rate"].max())
    assert rates == [QuestionGenerator.default_config.learning_rate, CONTINUED_LEARNING_RATE]
    given = dataclasses.replace(config, learning_rate=QuestionGenerator.default_config.learning_rate)
    assert train(frame, base=loaded, config=given)[1]["learning_rate"].max() == given.learning_rate, "a rate that was given was replaced"
    with pytest.raises(ValueError, match="asks for an answer in a context, but the data has no answers"):
        train(frame.assign(answer=""), base=loaded)
    with pytest.raises(ValueError, match="a model for the task 'tag'"):
        train(frame, base=SavedModel(model=base.model, tokenizer=base.tokenizer, task="tag"))


def test_without_any_answer_it_asks_of_the_whole_context(toy):
    _, base, frame = toy
    saved, _ = train(frame.assign(answer=""), base=base, config=TOY)
    assert saved.predict_rows([{"context": frame["context"][0]}])[0]["prediction"]
    with pytest.raises(ValueError, match="has an answer, but this model asks of a context as a whole"):
        saved.predict_rows([{"context": CONTEXT, "answer": "Orr"}])


def test_rows_that_cannot_be_asked_of_are_named(toy):
    saved, base, frame = toy
    with pytest.raises(ValueError, match=r"Row 1: 'The mill stands by the Orr\. In 1284 the '\.\.\. has no answer"):
        saved.predict_rows([{"context": CONTEXT}])
    with pytest.raises(ValueError, match="Row 1: the context is empty"):
        saved.predict_rows([{"context": " ", "answer": "x"}])
    with pytest.raises(ValueError, match="Row 1: the answer 'the sea' does not stand in its context"):
        saved.predict_rows([{"context": CONTEXT, "answer": "the sea", "answer_start": 4}])
    assert saved.predict_rows([{"context": CONTEXT, "answer": "12", "answer_start": "3"}])
    some = frame.copy()
    some.loc[0, "answer"], some.loc[1, "answer"] = "", "a purple cow"
    with pytest.warns(UserWarning) as warned:
        train(some, base=base, config=TrainConfig(epochs=1))
    assert {message for each in warned if (message := str(each.message)).startswith("train")} == {
        "train: 1 row(s) without an answer were left out.",
        "train: 1 row(s) whose answer does not stand in the context were left out.",
    }
    with pytest.raises(ValueError, match="train has no question with a context"):
        train(frame.assign(answer="a purple cow"), base=base)


# From files to questions


def run(capsys, *arguments):
    capsys.readouterr()
    code = main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return code, out, err


def test_the_commands_train_score_and_ask(tmp_path, capsys):
    frame = pd.concat([passages()] * 3, ignore_index=True).drop(columns=["answer_start"])
    frame.drop(columns="split").rename(columns={"context": "text"}).to_csv(tmp_path / "rows.csv", index=False)
    new = frame.head(4).rename(columns={"context": "text"})[["text", "answer"]]
    new.to_csv(tmp_path / "new.csv", index=False)
    options = ["--base", "none", "--epochs", "2", "--out", tmp_path / "m", "--json"]
    code, out, err = run(capsys, "finetune", "ask", "--train", tmp_path / "rows.csv", "--context", "text", *options)
    assert code == 0 and set(json.loads(out)["metrics"]) == {"bleu", "chrf"}, err
    code, out, err = run(capsys, "evaluate", "--model", tmp_path / "m", "--test", tmp_path / "rows.csv", "--context", "text", "--json")
    assert code == 0 and len(json.loads(out)["questions"]) == json.loads(out)["rows"], err
    files = ["--model", tmp_path / "m", "--context", "text", "--output", tmp_path / "out.csv"]
    code, _, err = run(capsys, "predict", *files, "--input", tmp_path / "new.csv")
    rows = list(csv.DictReader((tmp_path / "out.csv").open()))
    assert code == 0 and [row["answer"] for row in rows] == new["answer"].tolist() and all(row["prediction"] for row in rows), err
    (tmp_path / "out.csv").unlink()
    new.assign(answer=[*new["answer"][:-1], "the moon"]).to_csv(tmp_path / "new.csv", index=False)
    code, _, err = run(capsys, "predict", *files, "--input", tmp_path / "new.csv")
    assert code == 2 and f"new.csv, line {len(new) + 1}: the answer 'the moon' does not stand in its context" in err
    assert not (tmp_path / "out.csv").exists()
    new[["text"]].to_csv(tmp_path / "new.csv", index=False)
    code, _, err = run(capsys, "predict", *files, "--input", tmp_path / "new.csv")
    assert code == 2 and "has no answer, but this model asks for an answer" in err


def test_a_file_without_answers_asks_of_whole_contexts(tmp_path, capsys):
    passages()[["context", "question"]].to_csv(tmp_path / "rows.csv", index=False)
    files = ["--train", tmp_path / "rows.csv", "--base", "none", "--epochs", "1", "--out", tmp_path / "m"]
    assert run(capsys, "finetune", "ask", *files)[0] == 0
    code, _, err = run(capsys, "predict", "--model", tmp_path / "m", "--input", tmp_path / "rows.csv", "--output", tmp_path / "out.csv")
    assert code == 0 and all(row["prediction"] for row in csv.DictReader((tmp_path / "out.csv").open())), err
    passages()[["context", "question"]].assign(context="").to_csv(tmp_path / "rows.csv", index=False)
    code, _, err = run(capsys, "finetune", "ask", *files)
    assert code == 2 and "nothing to learn from" in err


# Public sets


def test_the_public_writer_is_trained_measured_and_written(toy, tmp_path, monkeypatch):
    _, base, frame = toy
    tales = frame.assign(answer_start=[row["context"].index(row["answer"]) for row in frame.to_dict("records")])
    pairs = frame.assign(answer="", context="the cat sat on the mat .", question="what did the cat sit on ?")
    monkeypatch.setattr(recipe, "load_question_rows", {recipe.TALES: tales, recipe.SENTENCES: pairs}.__getitem__)
    monkeypatch.setattr(recipe, "load_pretrained", lambda name: base)
    monkeypatch.setattr(recipe, "FIRST", TOY)
    monkeypatch.setattr(results, "RESULTS_DIR", tmp_path / "results")
    recipe.main(["--out", str(tmp_path / "model")])
    table = results.read_results("public")
    assert set(table["model"]) == {"slm-asker-en"} and set(table["metric"]) == {"bleu", "chrf"} and set(table["train_rows"]) == {16 + 12}
    saved = load_model(tmp_path / "model", task="ask")
    assert QuestionGenerator.from_saved(saved).predict_rows(tales.head(2).to_dict("records"))[0]["prediction"]
    assert set(saved.metrics) == {
        "bleu",
        "chrf",
    }
    assert "4 more questions on tales chose the" in (tmp_path / "model" / "card.md").read_text()
    again, _ = train(frame, base=saved, config=TrainConfig(epochs=1))
    assert again.saved_.settings["answers"]
