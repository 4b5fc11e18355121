"""Translation: a network that padding cannot change, steps that equal the whole pass, scores as sacrebleu counts them, and the shell."""

import io
import json

from slm_helpers._paths import PRETRAINED_DIR
from slm_helpers.cli import main
from slm_helpers.data.loading import load_dataset, skipped_rows
from slm_helpers.generation.beam import beam_search, expand_logits, greedy_search
from slm_helpers.generation.sequences import decode_sequences
from slm_helpers.models.encoder_decoder import build_encoder_decoder, make_attention, make_decoder_step, make_encoder
from slm_helpers.models.language_model import build_language_model
from slm_helpers.models.saved import save_model
from slm_helpers.tasks.translation import Translator, encode_sources, target_languages
from slm_helpers.text.tokenizers import train_bpe_tokenizer
from slm_helpers.training.config import TrainConfig
from slm_helpers.training.pairs import PairBatches, fit_pairs, pair_losses
from tests.toys import toy_pairs

import keras
import numpy as np
import pandas as pd
import pytest

END = 2
SMALL = {"embedding_dim": 24, "encoder_units": 24, "units": 32}
FAST = TrainConfig(epochs=45, batch_size=32, learning_rate=0.01, warmup_steps=10, schedule="linear", precision="float32")


def numpy(value) -> np.ndarray:
    return keras.ops.convert_to_numpy(value)


@pytest.fixture(scope="module")
def toy():
    """A translator into two languages, its rows and history."""
    frame = toy_pairs().assign(split="train")
    held_out = np.random.default_rng(0).permutation(len(frame) // 2)[:8]
    frame.loc[[*(2 * held_out), *(2 * held_out + 1)], "split"] = "valid"
    saved = Translator(config=FAST, dropout=0.1, vocab_size=320, network=SMALL).fit_frame(frame)
    history = saved.history_
    return saved, frame, history


@pytest.fixture(scope="module")
def folder(toy, tmp_path_factory):
    saved, *_ = toy
    return save_model(
        tmp_path_factory.mktemp("translate") / "model",
        saved.saved_.model,
        tokenizer=saved.saved_.tokenizer,
        task="translate",
        labels=saved.saved_.labels,
        settings=saved.saved_.settings,
    )


# The network


def new_network(**options) -> keras.Model:
    keras.utils.set_random_seed(1)
    return build_encoder_decoder(20, embedding_dim=6, encoder_units=5, units=8, **options)


def some_ids(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(3, 20, shape).astype("int32")


@pytest.mark.parametrize("num_decoder_layers", [1, 2])
def test_padding_of_either_side_changes_no_score(num_decoder_layers):
    model = new_network(num_decoder_layers=num_decoder_layers)
    source, target = some_ids(1, 5), some_ids(1, 4, seed=1)
    alone = numpy(model([source, target]))
    padded = numpy(model([np.pad(source, ((0, 0), (0, 7))), np.pad(target, ((0, 0), (0, 3)))]))
    assert alone.shape == (1, 4, 20) and alone.dtype == "float32"
    np.testing.assert_allclose(padded[:, :4], alone, atol=1e-5)


def test_the_decoder_sees_all_of_the_source_and_nothing_of_what_is_to_come():
    model = new_network()
    source, target = some_ids(1, 5), some_ids(1, 4, seed=1)
    before = numpy(model([source, target]))
    changed = target.copy()
    changed[0, 2] = changed[0, 2] % 17 + 3
    after = numpy(model([source, changed]))
    np.testing.assert_allclose(after[:, :2], before[:, :2], atol=1e-6)
    assert np.abs(after - before)[:, 2:].max() > 1e-5
    for place in (0, 4):
        changed = source.copy()
        changed[0, place] = changed[0, place] % 17 + 3
        assert (np.abs(numpy(model([changed, target])) - before).max(axis=2) > 1e-7).all()


def test_attention_gives_shares_of_the_true_places_only():
    model = new_network()
    source = np.pad(some_ids(2, 5), ((0, 0), (0, 3)))
    source[1, 3:] = 0
    shares = numpy(make_attention(model)([source, some_ids(2, 4, seed=1)]))
    assert shares.shape == (2, 4, 8)
    np.testing.assert_allclose(shares.sum(axis=2), 1, atol=1e-5)
    assert (shares[0, :, 5:] == 0).all() and (shares[1, :, 3:] == 0).all() and (shares[1, :, :3] > 0).all()


@pytest.mark.parametrize("num_decoder_layers", [1, 2])
def test_steps_give_the_logits_of_the_whole_pass(num_decoder_layers):
    model = new_network(num_decoder_layers=num_decoder_layers)
    source, target = np.pad(some_ids(3, 5), ((0, 0), (0, 2))), some_ids(3, 4, seed=1)
    whole = numpy(model([source, target]))
    step = make_decoder_step(model)
    first, memory = map(numpy, make_encoder(model)(source))
    states = [first, *([np.zeros((3, 6), "float32")] * (num_decoder_layers - 1)), memory, source]
    for place in range(4):
        logits, *states = map(numpy, step([target[:, place], *states]))
        np.testing.assert_allclose(logits, whole[:, place], atol=1e-5)


def test_wrong_sizes_are_named():
    with pytest.raises(ValueError, match="num_decoder_layers is 3"):
        build_encoder_decoder(20, num_decoder_layers=3)
    with pytest.raises(ValueError, match="dropout"):
        build_encoder_decoder(20, dropout=1.0)


# Decoding


def test_greedy_search_is_a_beam_of_one_that_stops_at_the_first_end():
    model = new_network()
    sources = [some_ids(n, seed=n) for n in (3, 7, 2)]
    found = decode_sequences(model, sources, start_id=END, end_id=END, suppress_token_ids=(0, 1), max_ratio=0.0, batch_size=2)
    for source, (best,) in zip(sources, found, strict=True):
        target, log_prob = [END], 0.0
        for _ in range(10):
            logits = numpy(model([source[None], np.array([target], "int32")]))[0, -1].astype("float64")
            token = int(logits[2:].argmax()) + 2
            log_prob += logits[token] - np.log(np.exp(logits).sum())
            target.append(token)
            if token == END:
                break
        written = len(best.token_ids) + best.ended
        assert best.token_ids == [token for token in target[1 : written + 1] if token != END]
        assert best.ended == (target[-1] == END) and written == len(target) - 1
        assert best.log_prob == pytest.approx(log_prob, abs=1e-3)


def test_rows_that_end_early_wait_for_the_others_and_stay_as_they_are():
    def step(token_ids, states):  # writes token 3 until the count is down, then the end
        return np.eye(5)[np.where(states[0][:, 0] <= 0, END, 3)] * 9, [states[0] - 1]

    expand, first_ids, counts = expand_logits(step, (0,)), np.full(3, END, "int32"), np.array([[3.0], [0.0], [50.0]], "float32")
    found = greedy_search(expand, first_ids, [counts], end_id=END, max_tokens=8)
    assert [len(each.token_ids) for each in found] == [3, 0, 8]
    assert [each.ended for each in found] == [True, True, False]
    per_token = 9 - np.log(np.exp(9) + 4)
    assert [each.log_prob for each in found] == pytest.approx([4 * per_token, per_token, 8 * per_token], abs=1e-4)
    best = [rows[0] for rows in beam_search(expand, first_ids, [counts], end_id=END, max_tokens=8)]
    assert [each.token_ids for each in best[:2]] == [each.token_ids for each in found[:2]]


def test_a_beam_finds_what_is_at_least_as_likely():
    model = new_network()
    sources = [some_ids(n, seed=n) for n in (4, 2, 6)]
    options = {"start_id": END, "end_id": END, "suppress_token_ids": (0, 1)}
    greedy = decode_sequences(model, sources, **options)
    beam = decode_sequences(model, sources, beam_size=4, length_penalty=0.0, **options)
    for (one,), several in zip(greedy, beam, strict=True):
        assert len(several) == 4 and several[0].log_prob >= one.log_prob - 1e-4
        assert [each.score for each in several] == sorted((each.score for each in several), reverse=True)


# Training on pairs


def random_pairs(num: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    sources = [rng.integers(3, 20, rng.integers(1, 9)).astype("int32") for _ in range(num)]
    return sources, [np.append(source[::-1], END).astype("int32") for source in sources]


def test_every_pair_stands_once_in_an_epoch_and_batches_have_like_numbers_of_targets():
    sources, targets = random_pairs(300)
    batches = PairBatches(sources, targets, start_id=END, batch_size=30, seed=3)
    assert len(batches) == 10
    for epoch in (0, 1):
        found, sizes = [], []
        for index in range(len(batches)):
            source_ids, target_ids, weights, places, flat = batches.batch(epoch, index)
            sizes.append(int(weights.sum()))
            assert len(weights) == len(places) == len(flat)
            rows = np.split(flat[: sizes[-1]], np.flatnonzero(flat[: sizes[-1]] == END) + 1)[:-1]
            assert (target_ids[: len(rows), 0] == END).all() and not target_ids[len(rows) :].any()
            assert all(size % 4 == 0 for size in (*source_ids.shape, *target_ids.shape))  # few different shapes
            for source, target, read in zip(source_ids, rows, target_ids, strict=False):
                assert read[1 : len(target)].tolist() == target[:-1].tolist()
                found.append((tuple(source[source > 0]), tuple(target)))
            starts = np.arange(len(rows)) * target_ids.shape[1]
            expected = np.concatenate([start + np.arange(len(row)) for start, row in zip(starts, rows, strict=True)])
            assert places[: sizes[-1]].tolist() == expected.tolist()
        assert sorted(found) == sorted((tuple(s), tuple(t)) for s, t in zip(sources, targets, strict=True))
        assert max(sizes) - min(sizes) < 2 * 9
    assert batches.fingerprint() != PairBatches(sources[1:], targets[1:], start_id=END, batch_size=30).fingerprint()
    with pytest.raises(ValueError, match="300 sources and 299 targets"):
        PairBatches(sources, targets[:-1], start_id=END, batch_size=30)


def test_the_loss_is_that_of_all_target_tokens():
    model = new_network()
    sources, targets = random_pairs(12)
    total, count = 0.0, 0
    for source, target in zip(sources, targets, strict=True):
        logits = numpy(model([source[None], np.append(END, target[:-1])[None].astype("int32")]))[0].astype("float64")
        total -= (logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)))[np.arange(len(target)), target].sum()
        count += len(target)
    assert pair_losses(model, sources, targets, start_id=END, batch_size=5) == pytest.approx(total / count, rel=1e-5)


def test_a_run_that_was_cut_off_ends_with_the_weights_of_an_unbroken_one(tmp_path):
    train, valid = random_pairs(60), random_pairs(20, seed=1)
    config = TrainConfig(epochs=3, batch_size=12, learning_rate=0.01, precision="float32", seed=5)
    options = {"config": config, "start_id": END, "checkpoint_steps": 4}

    class Stop(keras.callbacks.Callback):
        num_steps = 0

        def on_train_batch_end(self, batch, logs=None):
            self.num_steps += 1
            if self.num_steps == 9:
                raise RuntimeError

    models = [new_network(dropout=0.2) for _ in range(3)]
    whole = fit_pairs(models[0], train, valid, **options)
    with pytest.raises(RuntimeError):
        fit_pairs(models[1], train, valid, checkpoint_dir=tmp_path, callbacks=[Stop()], **options)
    resumed = fit_pairs(models[2], train, valid, checkpoint_dir=tmp_path, **options)
    np.testing.assert_allclose(resumed["loss_nats"], whole["loss_nats"], rtol=1e-4)
    for one, other in zip(models[0].get_weights(), models[2].get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)
    with pytest.raises(ValueError, match="another data"):
        fit_pairs(new_network(dropout=0.2), random_pairs(60, seed=9), valid, checkpoint_dir=tmp_path, **options)


# The task


def test_it_learns_sentences_it_has_not_seen_in_both_languages(toy):
    saved, frame, history = toy
    scores = saved.evaluate_frame(frame[frame["split"] == "valid"])
    values = scores.metrics.set_index("metric")["value"]
    assert saved.saved_.labels == ["de", "es"] and values["bleu"] > 60 and values["chrf"] > 60
    assert (scores.metrics["ci_low"] <= scores.metrics["value"]).all() and (scores.metrics["value"] <= scores.metrics["ci_high"]).all()
    table = scores.tables["languages"]
    assert set(table["target_language"]) == {"de", "es"} and (table["rows"] == 8).all()
    assert set(history["split"]) == {"train", "valid"}


def test_the_token_of_the_language_decides(toy):
    saved, *_ = toy
    spanish, german = (saved.translate(["the dog sees Ada."], to)[0]["prediction"] for to in ("es", "de"))
    assert spanish.startswith("el perro") and german.startswith("der Hund")
    ids = encode_sources(saved.saved_, ["the dog", "the dog"], ["de", "es"])
    assert [ids[0][0], ids[1][0]] == [saved.saved_.tokenizer.vocab_size, saved.saved_.tokenizer.vocab_size + 1]
    assert ids[0][1:].tolist() == ids[1][1:].tolist() and ids[0][-1] == END


def test_saved_and_loaded_it_translates_the_same(toy, folder):
    saved, frame, _ = toy
    texts = frame["source"].unique()[:6].tolist()
    assert Translator.load(folder).translate(texts, "es") == saved.translate(texts, "es")


def test_a_long_text_is_cut_into_sentences_and_an_endless_one_refused(toy):
    saved, *_ = toy
    sentence = "the cat likes the dog."
    one = saved.translate([sentence], "es")[0]["prediction"]
    many = saved.translate([" ".join(["The cat likes the dog."] * 60)], "es")[0]["prediction"]
    assert one == "el gato quiere el perro." and len(many) > 40 * len(one) / 2
    with pytest.raises(ValueError, match=r"5,000 words .* at most 254 tokens"):
        saved.translate([" ".join(["cat"] * 5000)], "es")


def test_what_cannot_be_translated_is_refused(toy):
    saved, frame, _ = toy
    with pytest.raises(ValueError, match="empty"):
        saved.translate(["  "], "es")
    with pytest.raises(ValueError, match="'it' is unknown to this model, which translates into de, es"):
        saved.translate(["the cat"], "it")
    with pytest.raises(ValueError, match="has no target language"):
        saved.translate(["the cat"])
    with pytest.raises(ValueError, match="row 1 of train has no target_language"):
        target_languages(frame.assign(target_language=["", *frame["target_language"][1:]], split="train"))
    with pytest.raises(ValueError, match=r"valid, row \d+: the target language 'fr' never stands in train"):
        target_languages(frame.assign(target_language=np.where(frame["split"] == "valid", "fr", "es")))
    with pytest.raises(ValueError, match="translates into de, es and the data into es"):
        Translator(saved).fit_frame(toy_pairs(["es"]).assign(split="train"))
    with pytest.raises(ValueError, match="No pair of train is left"):
        long = " ".join(["cat"] * 900)
        Translator(vocab_size=300, network=SMALL).fit_frame(pd.DataFrame({"source": [long], "target": [long], "split": ["train"]}))


def test_one_unnamed_language_needs_no_token():
    frame = toy_pairs(["es"]).drop(columns="target_language").assign(split="train")
    with pytest.warns(UserWarning, match="1 of 73 pairs"):
        rows = pd.concat([frame, pd.DataFrame({"source": ["x " * 400], "target": ["y"], "split": ["train"]})], ignore_index=True)
        saved = Translator(config=TrainConfig(epochs=1, batch_size=32), vocab_size=300, network=SMALL).fit_frame(rows)
    assert saved.saved_.labels == [] and saved.saved_.model.output_shape[-1] == saved.saved_.tokenizer.vocab_size
    assert saved.predict_rows([{"source": "the cat"}])[0].keys() == {"prediction", "confidence"}
    with pytest.raises(ValueError, match="trained without naming languages"):
        saved.translate(["the cat"], "es")


# Scores and baselines


# Files and the shell


def run(capsys, *arguments):
    capsys.readouterr()
    try:
        code = main([str(argument) for argument in arguments])
    except SystemExit as stop:
        code = stop.code
    out, err = capsys.readouterr()
    return code, out, err


def test_two_files_make_pairs_of_lines(tmp_path):
    english, spanish = tmp_path / "a.en", tmp_path / "a.es"
    english.write_text("one\ntwo\n\nfour\n")
    spanish.write_text("uno\ndos\ntres\ncuatro\n")
    with pytest.warns(UserWarning, match="1 of 4 pairs"):
        frame = load_dataset(f"{english}::{spanish}", split="train")
    assert frame[["source", "target"]].to_numpy().tolist() == [["one", "uno"], ["two", "dos"], ["four", "cuatro"]]
    assert skipped_rows(frame)["where"].tolist() == [f"{english}, line 3"] and set(frame["target_language"]) == {"es"}
    plain = spanish.rename(tmp_path / "spanish.txt")
    with pytest.warns(UserWarning, match="1 of 4 pairs"):
        assert set(load_dataset(f"{english}::{plain}", split="train")["target_language"]) == {""}
    spanish.write_text("uno\ndos\n")
    with pytest.raises(ValueError, match=r"a\.en has 4 lines and .*a\.es 2"):
        load_dataset(f"{english}::{spanish}")


def test_from_files_to_a_model_and_its_translations(tmp_path, capsys):
    toy_pairs().sample(frac=1, random_state=0).rename(columns={"source": "en", "target": "other"}).to_csv(
        tmp_path / "rows.csv", index=False
    )
    columns = ["--source", "en", "--target", "other"]
    out = tmp_path / "model"
    arguments = ["--train", tmp_path / "rows.csv", *columns, "--out", out, "--epochs", "2", "--json"]
    code, printed, err = run(capsys, "finetune", "translate", *arguments)
    assert code == 0, err
    result = json.loads(printed)
    assert set(result["metrics"]) == {"bleu", "chrf"} and result["split"] == "test"
    code, printed, _ = run(capsys, "evaluate", "--model", out, "--test", tmp_path / "rows.csv", *columns, "--json")
    assert code == 0 and {row["target_language"] for row in json.loads(printed)["languages"]} == {"de", "es"}
    predicted = tmp_path / "out.csv"
    code, _, err = run(capsys, "predict", "--model", out, "--input", tmp_path / "rows.csv", "--output", predicted, "--source", "en")
    assert code == 0 and list(pd.read_csv(predicted).columns)[-2:] == ["prediction", "confidence"]
    code, _, err = run(capsys, "finetune", "translate", *arguments, "--balanced")
    assert code == 2 and "no setting balanced" in err
    code, _, err = run(capsys, "finetune", "translate", *arguments, "--base", out)
    assert code == 0, err
    tokenizer = train_bpe_tokenizer(["the cat"], vocab_size=260)
    save_model(tmp_path / "lm", build_language_model(tokenizer.vocab_size, embedding_dim=8, units=8), tokenizer=tokenizer)
    code, _, err = run(capsys, "finetune", "translate", *arguments, "--base", tmp_path / "lm")
    assert code == 2 and "a model for the task 'lm'" in err and "--base none" in err


def test_slm_translate(folder, capsys, monkeypatch):
    code, out, _ = run(capsys, "translate", "the dog sees Ada.", "--to", "es", "--model", folder)
    assert code == 0 and out == "el perro ve Ada.\n"
    monkeypatch.setattr("sys.stdin", io.StringIO("the dog sees Ada.\nthe cat likes me!\n"))
    code, out, _ = run(capsys, "translate", "--to", "de", "--model", folder, "--json", "--beam-size", "1")
    found = json.loads(out)
    assert code == 0 and [row["translation"] for row in found["translations"]] == ["der Hund sieht Ada.", "die Katze mag mich!"]
    for arguments, message in (
        (["  ", "--to", "es"], "the text is empty"),
        (["the dog", "--to", "xx"], "'xx' is unknown to this model, which translates into de, es"),
        (["the dog"], "has no target language"),
        ([" ".join(["dog"] * 5000), "--to", "es"], "5,000 words"),
        (["the dog", "--to", "es", "--beam-size", "0"], "beam_size"),
    ):
        code, out, err = run(capsys, "translate", *arguments, "--model", folder)
        assert code == 2 and message in err and not out and err.count("\n") == 1


def test_a_file_may_name_the_language_of_each_row(tmp_path):
    toy_pairs().rename(columns={"target_language": "into"}).to_csv(tmp_path / "rows.csv", index=False)
    assert set(load_dataset(tmp_path / "rows.csv", target_language="into")["target_language"]) == {"de", "es"}
    assert set(load_dataset(tmp_path / "rows.csv")["target_language"]) == {""}


# The translator that comes with the repository


def test_the_bundled_translator_greets_and_asks_the_way(capsys):
    folder = PRETRAINED_DIR / "slm-en-es"
    assert (folder / "weights.safetensors").stat().st_size <= 10_000_000
    code, out, _ = run(capsys, "translate", "Hello, how are you?", "--to", "es")
    assert code == 0 and out.strip() in ("Hola, ¿cómo estás?", "Hola, ¿cómo está?", "Hola, ¿cómo está usted?", "Hola, ¿qué tal?")
    code, out, _ = run(capsys, "translate", "Where is the station?", "--to", "es", "--beam-size", "1")
    assert code == 0 and out.strip() == "¿Dónde está la estación?"
