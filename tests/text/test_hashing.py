"""Hashed n-grams, the linear model on them, and its place beside a network."""

from slm_helpers._backend import keras
from slm_helpers.models.layers import HashedLinear
from slm_helpers.tasks.text_classification import TextClassifier, add_ngrams
from slm_helpers.text import hashing as ngrams
from slm_helpers.text.hashing import MAX_NGRAMS, fit_ensemble_weights, fit_ngram_table, hash_ngrams, ngram_scores, num_buckets_for

import numpy as np
import pandas as pd
import pytest


def test_ngrams_are_distinct_sorted_and_the_same_for_any_case():
    ids = hash_ngrams(["The cat, the CAT!", "the cat the cat"], num_buckets=4096)
    for row in ids:
        assert row.dtype == "int32" and (np.diff(row) > 0).all() and row.min() >= 1 and row.max() <= 4096
    words = [set(row[row <= 2048]) for row in ids]
    assert words[0] == words[1] and len(words[0]) == 4  # the, cat, the cat, cat the
    assert hash_ngrams([""], num_buckets=4096)[0].size == 0


def test_ngrams_of_a_very_long_text_are_a_sample_of_both_halves():
    long = " ".join(f"word{i}" for i in range(50_000))
    ids = hash_ngrams([long], num_buckets=1 << 17)[0]
    assert len(ids) == MAX_NGRAMS and len(set(ids)) == MAX_NGRAMS
    assert 0.05 < (ids <= 1 << 16).mean() < 0.95


def test_a_hash_does_not_change():
    assert hash_ngrams(["good"], num_buckets=1024)[0][0] == 66  # stored models rely on it


@pytest.mark.parametrize("num_classes", [2, 10, 77, 151, 1000])
def test_the_table_stays_small(num_classes):
    buckets = num_buckets_for(num_classes)
    assert buckets % 2 == 0 and buckets * (num_classes + 1) <= 1 << 21 and buckets >= 1024


def test_large_corpora_get_more_buckets(monkeypatch):
    monkeypatch.setattr(ngrams, "_LARGE_CORPUS", 100)
    assert num_buckets_for(2, ["a word"] * 50) == 4 * num_buckets_for(2, ["a word"]) == 4 * num_buckets_for(2)
    assert num_buckets_for(77, ["a word"] * 50) == num_buckets_for(77)


@pytest.mark.parametrize("num_classes", [2, 3])
def test_the_layer_gives_what_the_linear_model_gives(num_classes):
    rng = np.random.default_rng(0)
    codes = np.arange(60) % num_classes
    ngrams = [np.unique(np.append(rng.integers(1, 65, 12), 60 + code)).astype("int32") for code in codes]
    table, bias = fit_ngram_table(ngrams, codes, num_classes=num_classes, num_buckets=64)
    layer = HashedLinear(64, num_classes)
    width = max(map(len, ngrams)) + 3
    padded = np.stack([np.pad(ids, (0, width - len(ids))) for ids in ngrams])
    layer.build(padded.shape)
    layer.set_weights([table])
    scores = keras.ops.convert_to_numpy(layer(padded)) + bias
    assert (scores.argmax(axis=1) == codes).all()
    row = ngrams[5]
    by_hand = table[row, :-1].sum(axis=0) / np.sqrt(table[row, -1].sum())
    assert np.allclose(scores[5] - bias, by_hand, atol=1e-5)
    assert np.allclose(scores - bias, ngram_scores(table, ngrams), atol=1e-5)
    longer = keras.ops.convert_to_numpy(layer(np.pad(padded, ((0, 0), (0, 9))))) + bias
    assert np.allclose(scores, longer, atol=1e-6)
    empty = keras.ops.convert_to_numpy(layer(np.zeros((1, 4), dtype="int32")))
    assert np.isfinite(empty).all()


def test_a_class_without_a_row_stays_behind():
    ngrams = [np.array([1 + i % 2], dtype="int32") for i in range(20)]
    table, bias = fit_ngram_table(ngrams, 2 * (np.arange(20) % 2), num_classes=3, num_buckets=8)
    scores = table[[1, 2], :-1] / np.sqrt(table[[1, 2], -1:]) + bias
    assert scores.argmax(axis=1).tolist() == [0, 2]


def test_very_many_classes_are_learned_without_a_warning(monkeypatch, recwarn):
    monkeypatch.setattr(ngrams, "_MANY_CLASSES", 20)
    words = [f"thing{i} of place{i}" for i in range(30)]
    texts, codes = [*words, *(f"the {text}" for text in words), "no one knows", "no one knows"], [*range(30), *range(30), 3, 4]
    hashed = hash_ngrams(texts, num_buckets=8192)
    table, bias = fit_ngram_table(hashed, np.array(codes), num_classes=30, num_buckets=8192)
    asked = ngram_scores(table, hash_ngrams([f"a {text}" for text in words], num_buckets=8192)) + bias
    assert (asked.argmax(axis=1) == np.arange(30)).all() and not len(recwarn)


def test_a_mixture_trusts_the_better_part():
    rng = np.random.default_rng(1)
    targets = rng.integers(0, 3, 400)
    good, noise = np.eye(3)[targets] * 2 + rng.normal(size=(400, 3)), rng.normal(size=(400, 3))
    first, second = fit_ensemble_weights(good, noise, targets)
    assert first > 0.8 and second < 0.3
    assert fit_ensemble_weights(noise, good, targets)[1] == pytest.approx(first, abs=0.01)
    sure = np.eye(3)[targets] * 5.0
    assert max(fit_ensemble_weights(sure, sure, targets)) <= 30


def test_valid_is_kept_out_where_it_is_still_needed():
    rows = [(f"{word} {i}", label) for i in range(30) for word, label in (("sun", "day"), ("owl", "night"))]
    frame = pd.DataFrame(rows, columns=["text", "label"]).assign(split="train")
    secret = pd.DataFrame([("zebra", "night")] * 4 + [("sun", "day"), ("owl", "night")] * 4, columns=["text", "label"]).assign(
        split="valid"
    )
    frame = pd.concat([frame, secret], ignore_index=True)
    alone = TextClassifier(None, epochs=1, ngrams=False).fit_frame(frame).saved_
    id_of = hash_ngrams(["zebra"], num_buckets=num_buckets_for(2))[0][0]
    tables = [add_ngrams(alone, frame, keep_valid=keep).model.get_layer("ngram_scores").get_weights()[0] for keep in (True, False)]
    assert np.allclose(tables[0][id_of, :-1], 0) and tables[1][id_of, 1] > 0
