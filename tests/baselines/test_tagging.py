"""The linear tagger."""

import itertools

from slm_helpers.baselines.tagging import LinearTagger
from slm_helpers.metrics.tagging import tag_table
from tests.toys import toy_rows

import numpy as np


def is_legal(tags) -> bool:
    return all(mark[0] != "I" or before[2:] == mark[2:] for before, mark in itertools.pairwise(["O", *tags]))


def test_the_linear_tagger_learns_words_and_endings_and_stays_legal():
    train, test = toy_rows(80), toy_rows(30, seed=1)
    words, tags = ([row.split(" ") for row in train[name]] for name in ("tokens", "tags"))
    tagger = LinearTagger().fit(words, tags)
    found = tagger.predict([row.split(" ") for row in test["tokens"]])
    assert tag_table([row.split(" ") for row in test["tags"]], found)["value"].iloc[0] > 0.95
    rng = np.random.default_rng(0)
    mixed = tagger.predict([[str(word) for word in rng.permutation(np.concatenate(words))[:30]] for _ in range(20)])
    assert all(is_legal(row) for row in mixed)
