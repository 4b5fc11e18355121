"""Tagging words: entities counted by hand, legal tags only, a network that padding cannot change, and files from end to end."""

import csv
import itertools
import json

import slm_helpers
from slm_helpers.cli import main
from slm_helpers.models.language_model import build_language_model
from slm_helpers.models.layers import CharCNN, LastSubwordPooling, ReverseSequence, WordMeanPooling
from slm_helpers.models.saved import SavedModel, load_model
from slm_helpers.models.taggers import build_tagger
from slm_helpers.tasks import token_classification as tag
from slm_helpers.tasks.token_classification import TokenTagger
from slm_helpers.text.hashing import NUM_WORD_FEATURES, fit_ngram_table, hash_words, word_features
from slm_helpers.text.tagging import MAX_CHARACTERS, NUM_CHARACTERS, tag_codes
from slm_helpers.text.tokenizers import train_bpe_tokenizer
from slm_helpers.training import finetune
from slm_helpers.training.config import TrainConfig
from tests.toys import toy_rows

import keras
import numpy as np
import pandas as pd
import pytest

LABELS = ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]
FLOAT32 = TrainConfig(precision="float32")
FAST = {"epochs": 12, "batch_size": 16, "learning_rate": 0.01, "config": FLOAT32}


@pytest.fixture(scope="module")
def toy():
    """A tagger of the toy sentences."""
    frame = pd.concat([toy_rows(160).assign(split="train"), toy_rows(30, seed=1).assign(split="valid")], ignore_index=True)
    return TokenTagger(small_base(frame["tokens"]), dropout=0.1, **FAST).fit_frame(frame)


def small_base(texts, cell: str = "gru") -> SavedModel:
    """A language model with random weights."""
    keras.utils.set_random_seed(3)
    tokenizer = train_bpe_tokenizer(texts, vocab_size=300)
    return SavedModel(build_language_model(tokenizer.vocab_size, cell=cell, embedding_dim=8, units=10), tokenizer)


def untrained(texts) -> TokenTagger:
    """A tagger with random weights."""
    base = small_base(texts)
    model = tag.build_on_base(build_tagger, base, base.tokenizer.vocab_size, num_tags=len(LABELS))
    return TokenTagger.from_saved(SavedModel(model, base.tokenizer, task="tag", labels=LABELS))


# Entities


# Legal tags


def is_legal(tags) -> bool:
    return all(mark[0] != "I" or before[2:] == mark[2:] for before, mark in itertools.pairwise(["O", *tags]))


# Layers


def numpy(value) -> np.ndarray:
    return keras.ops.convert_to_numpy(value)


def test_words_are_taken_from_their_tokens():
    features = np.arange(12, dtype="float32").reshape(2, 6, 1)
    word_ends = np.array([[2, 3, 5], [4, 0, 0]], "int32")
    np.testing.assert_array_equal(numpy(LastSubwordPooling()([features, word_ends]))[..., 0], [[2, 3, 5], [10, 6, 6]])
    np.testing.assert_allclose(numpy(WordMeanPooling()([features, word_ends]))[..., 0], [[1.5, 3, 4.5], [8.5, 0, 0]])
    np.testing.assert_array_equal(numpy(ReverseSequence()([features[:, :3], word_ends]))[..., 0], [[2, 1, 0], [6, 7, 8]])


def test_spelling_sees_three_characters_at_a_time_and_no_padding():
    keras.utils.set_random_seed(1)  # of 300 draws of weights, one sees no difference between the two words
    layer = CharCNN(8, filters=4, size=3)
    words = np.array([[[1, 2, 3, 0, 0, 0], [0, 0, 0, 0, 0, 0], [1, 2, 3, 4, 5, 6]]], "int32")
    found = numpy(layer(words))
    np.testing.assert_allclose(found[0, 0], numpy(layer(words[:, :1, :4]))[0, 0], atol=1e-6)
    assert not found[0, 1].any() and (found[0, 2] != found[0, 0]).any()
    vectors, kernel, bias = layer.get_weights()
    x = np.concatenate([np.zeros((1, 3)), vectors[[1, 2, 3]], np.zeros((1, 3))])
    by_hand = np.maximum([x[i : i + 3].reshape(-1) @ kernel + bias for i in range(3)], 0).max(axis=0)
    np.testing.assert_allclose(found[0, 0], by_hand, atol=1e-6)
    copy = keras.layers.deserialize(keras.layers.serialize(layer))
    assert (copy.num_characters, copy.filters, copy.size) == (8, 4, 3)


# The network


def new_tagger(**options) -> keras.Model:
    keras.utils.set_random_seed(1)
    return build_tagger(20, num_tags=5, embedding_dim=6, units=8, head_units=7, filters=5, **options)


def a_sentence(seed: int = 0, num_words: int = 5) -> list[np.ndarray]:
    """token_ids, word_ends and characters of one sentence, with a batch axis."""
    rng = np.random.default_rng(seed)
    ends = np.cumsum(rng.integers(1, 4, num_words))
    characters = rng.integers(1, NUM_CHARACTERS, (num_words, MAX_CHARACTERS))
    return [a[None].astype("int32") for a in (np.r_[2, rng.integers(3, 20, ends[-1])], ends, characters)]


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_padding_changes_no_score(cell):
    model = new_tagger(cell=cell)
    ids, ends, characters = a_sentence()
    alone = numpy(model([ids, ends, characters]))
    padded = numpy(model([np.pad(ids, ((0, 0), (0, 9))), np.pad(ends, ((0, 0), (0, 3))), np.pad(characters, ((0, 0), (0, 3), (0, 0)))]))
    assert alone.shape == (1, 5, 5) and alone.dtype == "float32"
    np.testing.assert_allclose(padded[:, :5], alone, atol=1e-5)


def test_every_word_sees_the_words_on_both_sides_and_its_spelling():
    model = new_tagger()
    ids, ends, characters = a_sentence()
    before = numpy(model([ids, ends, characters]))[0]
    for changed in (ids[:, ends[0, -1]], ids[:, 1]):  # the last token, then the first
        kept = changed.copy()
        changed[:] = kept % 17 + 3
        after = numpy(model([ids, ends, characters]))[0]
        changed[:] = kept
        assert (np.abs(after - before).max(axis=1) > 1e-6).all()
    characters[0, 2] = characters[0, 2][::-1]
    assert np.abs(numpy(model([ids, ends, characters]))[0] - before)[2].max() > 1e-5


def test_a_tagger_from_a_base_has_its_weights():
    base = small_base(["the cat sat"], cell="lstm")
    model = tag.build_on_base(build_tagger, base, base.tokenizer.vocab_size, num_tags=3)
    for name in ("embedding", "lstm_0"):
        for ours, theirs in zip(model.get_layer(name).get_weights(), base.model.get_layer(name).get_weights(), strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_wrong_sizes_are_named():
    with pytest.raises(ValueError, match="num_tags is 1, but a tagger needs two"):
        build_tagger(20, num_tags=1)
    with pytest.raises(ValueError, match="word_dropout"):
        build_tagger(20, num_tags=3, word_dropout=1.0)


# The linear model beside it


def test_words_are_hashed_with_their_neighbours():
    found = hash_words([["Ada", "saw", "Bo"], ["x"], ["Ada", "saw", "Cleo"]], num_buckets=1 << 16)
    assert [rows.shape for rows in found] == [(3, NUM_WORD_FEATURES), (1, NUM_WORD_FEATURES), (3, NUM_WORD_FEATURES)]
    assert all(rows.dtype == "int32" and rows.max() <= 1 << 16 for rows in found)
    for row in np.concatenate(found):
        kept = row[row > 0]
        assert len(set(kept)) == len(kept) and not row[len(kept) :].any()
    assert len(set(found[0][0]) - set(found[2][0])) == 1  # two places on: another word of the same shape
    assert len(set(found[0][1]) & set(found[0][2])) < 8
    longest = max(len(set(names)) for names in word_features(["Ada-Bo", "U.S", "25-year", "walks"] * 3))
    assert longest == NUM_WORD_FEATURES
    assert hash_words([["Ada"]], num_buckets=1024)[0][0, 0] == 99  # stored models rely on it


def test_scores_of_the_linear_model_are_added_and_padding_changes_none():
    keras.utils.set_random_seed(1)
    options = {"num_tags": 5, "embedding_dim": 6, "units": 8, "head_units": 7, "filters": 5}
    model, alone = build_tagger(20, num_buckets=64, **options), build_tagger(20, **options)
    alone.set_weights([w for w in model.get_weights() if w.shape != (65, 6)])
    table = np.random.default_rng(0).random((65, 6)).astype("float32") + 0.1
    table[0] = 0
    model.get_layer("ngram_scores").set_weights([table])
    ids, ends, characters = a_sentence()
    features = np.random.default_rng(1).integers(1, 65, (1, 5, NUM_WORD_FEATURES)).astype("int32")
    features[0, 2, 9:] = 0
    scores = numpy(model([ids, ends, characters, features]))
    linear = table[features].sum(axis=2)
    by_hand = numpy(alone([ids, ends, characters])) + linear[..., :-1] / np.sqrt(linear[..., -1:])
    np.testing.assert_allclose(scores, by_hand, atol=1e-4)
    padded = [np.pad(rows, [(0, 0), (0, 3), *[(0, 0)] * (rows.ndim - 2)]) for rows in (ids, ends, characters, features)]
    np.testing.assert_allclose(numpy(model(padded))[:, :5], scores, atol=1e-4)


def test_a_linear_model_is_added_with_its_weight_and_the_network_stays_as_it_is():
    frame = pd.concat([toy_rows(60).assign(split="train"), toy_rows(20, seed=1).assign(split="valid")], ignore_index=True)
    alone = TokenTagger(None, epochs=1, config=FLOAT32, ngrams=False).fit_frame(frame)
    before = [w.copy() for w in alone.saved_.model.get_weights()]
    both = alone.add_linear_model(frame)
    assert len(alone.saved_.model.inputs) == 3 and len(both.saved_.model.inputs) == 4 and both.ngrams and not alone.ngrams
    assert all((ours == theirs).all() for ours, theirs in zip(alone.saved_.model.get_weights(), before, strict=True))
    words = [row.split(" ") for row in frame["tokens"][:7]]
    sums = both.saved_.model.get_layer("ngram_scores").get_weights()[0][hash_words(words, num_buckets=1 << 17)[3]].sum(axis=1)
    linear = sums[:, :-1] / np.sqrt(sums[:, -1:])
    rest = tag.tag_logits(both.saved_, words)[3] - linear
    weighted = both.saved_.settings["ensemble_weights"][0] * tag.tag_logits(alone.saved_, words)[3]
    np.testing.assert_allclose(rest, weighted + (rest - weighted).mean(axis=0), atol=0.02)  # a bias; weights are rounded in the settings
    test = toy_rows(40, seed=5)
    assert both.score(test) > 0.9 > alone.score(test)  # after one epoch the network knows little, the linear model all


def test_valid_is_learned_from_unless_it_has_to_be_scored():
    frame = pd.concat([toy_rows(30).assign(split="train"), toy_rows(10, seed=1).assign(split="valid")], ignore_index=True)
    alone = untrained(frame["tokens"])
    train = frame[frame["split"] == "train"]
    hashed = np.concatenate(hash_words([row.split(" ") for row in train["tokens"]], num_buckets=1 << 17))
    codes = np.concatenate(tag_codes(train["tags"], LABELS))
    expected, _ = fit_ngram_table(hashed, codes, num_classes=5, num_buckets=1 << 17, **tag.LINEAR)
    for keep in (True, False):
        both = alone.add_linear_model(frame, keep_valid=keep)
        table = both.saved_.model.get_layer("ngram_scores").get_weights()[0][:, :-1]
        off = np.abs(table / table.max() - expected[:, :-1] / expected[:, :-1].max()).max()  # but for the ensemble weight
        assert (off < 1e-4) == keep


def test_without_valid_both_get_their_default_weight():
    tagger = TokenTagger(None, epochs=1, config=FLOAT32).fit_frame(toy_rows(60).assign(split="train"))
    assert tagger.saved_.settings["ensemble_weights"] == [0.6, 2.0] and "temperature" not in tagger.saved_.settings
    assert tagger.score(toy_rows(20, seed=5)) > 0.8


# Sentences


def test_a_sentence_of_5000_words_keeps_all_its_tags(toy):
    words = toy_rows(900)["tokens"].str.cat(sep=" ").split(" ")[:5000]
    (found,) = toy.predict_rows([{"tokens": " ".join(words)}])
    assert len(found["prediction"].split(" ")) == 5000 and 0 < found["confidence"] <= 1
    (short,) = toy.predict([words[:100]])
    assert short[:80] == found["prediction"].split(" ")[:80]


# Training


def test_it_learns_a_toy_task_and_keeps_its_scores(toy, tmp_path):
    assert toy.classes_.tolist() == toy.saved_.labels == LABELS and 0.04 < toy.saved_.settings["temperature"] < 21
    valid = toy.history_.loc[toy.history_["split"] == "valid", "loss_nats"]
    assert valid.iloc[-1] < 0.2 * valid.iloc[0]
    test = toy_rows(60, seed=5)
    scores = toy.evaluate(test).set_index("metric")
    assert toy.evaluation_.rows == 60 and scores.loc["entity_f1", "value"] > 0.95
    assert ((scores["ci_low"] <= scores["value"]) & (scores["value"] <= scores["ci_high"])).all()
    entities = toy.evaluation_.tables["entities"]
    assert entities["type"].tolist() == ["LOC", "PER"] and entities["rows"].tolist() == [40, 60]
    loaded = slm_helpers.load_model(toy.save(tmp_path / "model"))
    assert type(loaded) is TokenTagger and loaded.predict(test) == toy.predict(test)
    rows = test[["tokens"]].to_dict("records")
    assert loaded.predict_rows(rows) == toy.predict_rows(rows)


def test_sentences_come_as_strings_lists_and_tables(toy):
    rows = toy_rows(12, seed=2)
    words, tags = ([row.split(" ") for row in rows[name]] for name in ("tokens", "tags"))
    expected = toy.predict(rows["tokens"])
    for sentences in (words, tuple(words), rows, rows.to_dict("records"), rows["tokens"].to_numpy(), rows.assign(tokens=words)):
        assert toy.predict(sentences) == expected
    for gold in (tags, rows["tags"], rows["tags"].tolist()):
        assert toy.score(words, gold) == toy.score(rows)
    probs = toy.predict_proba(words[:2])
    assert [part.shape for part in probs] == [(len(row), 5) for row in words[:2]]
    np.testing.assert_allclose(np.concatenate(probs).sum(axis=1), 1)


def test_nothing_in_gives_nothing_out(toy):
    assert toy.predict([]) == toy.predict_proba([]) == toy.predict_rows([]) == [] and toy.predict(pd.Series([], dtype=object)) == []
    assert toy.predict([[], ["Ada", "sleeps"], []])[::2] == [[], []] and toy.predict([""]) == [[]]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda toy: toy.predict("Ada sleeps"), TypeError, "one string"),
        (lambda toy: toy.predict([["New York"]]), ValueError, "sentence 1, token 1: 'New York' holds a space"),
        (lambda toy: toy.evaluate([["Ada"], ["Bo"]], [["B-PER"]]), ValueError, "X has 2 rows and y 1"),
        (lambda toy: toy.evaluate([["Ada", "sleeps"]], [["B-PER"]]), ValueError, "2 tokens but 1 tags"),
        (lambda toy: toy.evaluate(["Ada"]), ValueError, "'tags' is missing"),
        (lambda toy: toy.predict([{"text": "Ada"}]), ValueError, "'tokens' is missing.*There are: text"),
        (lambda toy: TokenTagger().predict([]), ValueError, "has learned nothing yet"),
    ],
)
def test_mistakes_are_told(toy, call, error, message):
    with pytest.raises(error, match=message):
        call(toy)


def test_predictions_are_legal_whatever_the_weights():
    frame = toy_rows(40)
    tagger = untrained(frame["tokens"])
    tagger.saved_.model.set_weights([np.random.default_rng(0).normal(size=w.shape) for w in tagger.saved_.model.get_weights()])
    assert all(is_legal(tags) for tags in tagger.predict(frame))


def test_words_at_the_edge_of_a_window_do_not_count_twice():
    frame = pd.DataFrame({"tokens": [" ".join("a" * 300)], "tags": [" ".join(["B-PER"] * 300)]})
    saved = SavedModel(model=None, tokenizer=train_bpe_tokenizer(["a b"], vocab_size=270), labels=LABELS)
    targets = tag._examples(saved, frame).targets
    assert len(targets) == 3 and sum((target >= 0).sum() for target in targets) == 300


def test_outside_bias_corrects_logits_of_too_many_entities_but_not_by_chance():
    rng = np.random.default_rng(0)
    codes = [np.where(rng.random(10) < 0.3, 3, 0) for _ in range(200)]
    logits = [2.0 * np.eye(5)[row] + rng.normal(size=(10, 5)) for row in codes]
    too_many = [rows + np.array([-1.5, 0, 0, 0, 0]) for rows in logits]
    assert tag.fit_outside_bias(too_many, codes, LABELS) >= 1.0
    assert tag.fit_outside_bias(too_many[:20], codes[:20], LABELS) == 0.0


def test_folders_of_earlier_versions_keep_their_bias():
    logits = [np.array([[0.0, -1.0, -9.0, 0.5, -9.0]])]
    for name, bias, tags in (("caution", 1.0, "O"), ("outside_bias", 1.0, "O"), ("caution", 0.0, "B-PER")):
        saved = SavedModel(model=None, labels=LABELS, settings={name: bias})
        assert [LABELS[code] for code in tag.decode_tags(saved, logits)[0][0]] == [tags]


@pytest.mark.parametrize(("given", "used"), [(None, 8), (32, 32), (64, 64)])
def test_a_given_batch_size_is_used_also_where_sentences_are_few(monkeypatch, given, used):
    configs = []

    def note(model, train, valid, *, config, **options) -> pd.DataFrame:
        configs.append(config)
        return pd.DataFrame()

    monkeypatch.setattr(finetune, "fit_examples", note)
    TokenTagger(None, batch_size=given, ngrams=False).fit_frame(toy_rows(20).assign(split="train"))
    assert configs[0].batch_size == used


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.assign(tags="O"), "1 tags|Each token needs one tag"),
        (lambda f: f.assign(tags=f["tags"].str.replace("B-", "I-")), "row 1, token 2: I-PER follows O"),
        (lambda f: f.assign(tags=f["tags"].str.replace("[BI]-...", "O", regex=True)), "All tags in train are O"),
        (
            lambda f: f.assign(tags=f["tags"].where(f["split"] == "train", f["tags"].str.replace("PER", "FOO"))),
            r"valid, row 1: the tag 'B-FOO' stands in valid but never in train, which has O, B-LOC",
        ),
    ],
)
def test_rows_that_cannot_be_learned_are_named(change, message):
    frame = pd.concat([toy_rows(20).assign(split="train"), toy_rows(5).assign(split="valid")], ignore_index=True)
    with pytest.raises(ValueError, match=message):
        TokenTagger(None).fit_frame(change(frame))


def test_a_tag_that_the_model_does_not_know_is_named(toy):
    frame = toy_rows(20)
    frame.loc[11, "tags"] = frame.loc[11, "tags"].replace("B-PER", "B-FOO").replace("I-PER", "I-FOO")
    with pytest.raises(ValueError, match=r"^row 12: the tag 'B-FOO' is unknown to this model, which knows O, B-LOC, I-LOC, B-PER, I-PER"):
        toy.evaluate_frame(frame)


# The baseline


# From file to file


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with CoNLL and CSV files and a model fine-tuned on them from random weights."""
    folder = tmp_path_factory.mktemp("tag")
    write_conll(folder / "train.conll", toy_rows(160))
    write_conll(folder / "test.conll", toy_rows(40, seed=1))
    toy_rows(40, seed=1).rename(columns={"tokens": "sentence", "tags": "marks"}).to_csv(folder / "test.csv", index=False)
    settings = ["--base", "none", "--epochs", "8", "--batch-size", "8", "--learning-rate", "0.005", "--out", str(folder / "model")]
    assert main(["finetune", "tag", "--train", str(folder / "train.conll"), "--test", str(folder / "test.conll"), *settings]) == 0
    return folder


def write_conll(path, frame):
    pairs = [zip(*(row.split(" ") for row in both), strict=True) for both in zip(frame["tokens"], frame["tags"], strict=True)]
    path.write_text("\n\n".join("\n".join("\t".join(pair) for pair in sentence) for sentence in pairs) + "\n")


def run(capsys, *arguments):
    """Run a command; returns its exit code, what it printed and its message."""
    capsys.readouterr()
    code = main([str(argument) for argument in arguments])
    return code, *capsys.readouterr()


def test_files_of_both_kinds_are_scored_alike(trained, capsys):
    found = []
    for name, columns in (("test.conll", []), ("test.csv", ["--tokens", "sentence", "--tags", "marks"])):
        code, out, _ = run(capsys, "evaluate", "--model", trained / "model", "--test", trained / name, *columns, "--json")
        assert code == 0
        found.append(json.loads(out))
    assert found[0]["metrics"] == found[1]["metrics"] == load_model(trained / "model").metrics
    assert set(found[0]["metrics"]) == {"entity_f1", "entity_precision", "entity_recall", "accuracy"}
    assert found[0]["rows"] == 40 and found[0]["metrics"]["entity_f1"]["value"] > 0.9
    assert [row["type"] for row in found[0]["entities"]] == ["LOC", "PER"]


def test_predict_gives_one_tag_a_word_in_every_row(trained, tmp_path, capsys):
    out = tmp_path / "out.csv"
    files = ["--input", trained / "test.csv", "--output", out, "--tokens", "sentence"]
    assert run(capsys, "predict", "--model", trained / "model", *files)[0] == 0
    rows = list(csv.DictReader(out.open()))
    assert len(rows) == 40
    assert all(len(row["prediction"].split(" ")) == len(row["sentence"].split(" ")) for row in rows)
    assert np.mean([row["prediction"] == row["marks"] for row in rows]) > 0.8
    assert all(0 < float(row["confidence"]) <= 1 for row in rows)


def test_a_tag_of_test_that_train_lacks_is_named_before_training(trained, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(TokenTagger, "_train", lambda *arguments, **options: pytest.fail("it was trained all the same"))
    (tmp_path / "odd.conll").write_text("so\tO\n\nAda\tB-FOO\n")
    files = ["--train", trained / "train.conll", "--test", tmp_path / "odd.conll", "--base", "none", "--out", tmp_path / "model"]
    code, out, err = run(capsys, "finetune", "tag", *files)
    assert code == 2 and out == "" and err.count("\n") == 1
    assert "test, row 2: the tag 'B-FOO' stands in test but never in train, which has O, B-LOC" in err
    assert not (tmp_path / "model").exists()


def test_bad_files_are_refused_in_one_line(trained, tmp_path, capsys):
    (tmp_path / "short.csv").write_text("tokens,tags\nAda sleeps,B-PER\n")
    (tmp_path / "broken.conll").write_text("Ada\tB-PER\nsleeps\n")
    (tmp_path / "odd.conll").write_text("so\tO\n\nAda\tB-FOO\n")
    cases = {
        ("evaluate", "--test", tmp_path / "short.csv"): ["line 2", "2 tokens but 1 tags"],
        ("evaluate", "--test", tmp_path / "broken.conll"): ["line 2", "1 column(s)"],
        ("evaluate", "--test", tmp_path / "odd.conll"): ["odd.conll, row 2", "'B-FOO'", "B-LOC"],
    }
    for (command, *arguments), parts in cases.items():
        code, out, err = run(capsys, command, "--model", trained / "model", *arguments)
        assert code == 2 and out == "" and err.count("\n") == 1, err
        assert all(part in err for part in parts), err
    assert not (tmp_path / "out.csv").exists()
