from slm_helpers.analysis.oddities import base_surprisal, character_surprisal, plain_oddities, standing
from slm_helpers.data.loading import load_dataset

import numpy as np
import pytest


@pytest.fixture(scope="module")
def messages():
    return load_dataset("messages")["text"].tolist()[:300]


def test_characters_that_others_do_not_use_are_surprising(messages):
    texts = [*messages, "zq xv jj qqk vvz xzk qj zzxq", "早上好，火车几点开？"]
    bits = character_surprisal(texts)
    assert set(np.argsort(-bits)[:2]) == {300, 301}
    assert character_surprisal([]).shape == (0,) and np.isfinite(character_surprisal(["", "a"])).all()


def test_a_text_is_not_known_by_itself(messages):
    strange = "zq xv jj qqk vvz xzk qj zzxq " * 6
    once, twice = (character_surprisal([*messages, *[strange] * number])[300] for number in (1, 2))
    assert once > twice + 1  # two copies know each other


def test_standing_compares_with_texts_of_the_same_length():
    rng = np.random.default_rng(0)
    lengths = np.repeat([10, 100], 500)
    values = np.where(lengths == 10, 5.0, 2.0) + rng.normal(0, 0.1, 1000)
    values[3] = 6.0
    found = standing(values, lengths)
    assert found.argmax() == 3 and found[3] > 6 and (np.abs(found) > 4).sum() <= 3 and not standing(np.ones(9), np.arange(9)).any()


def test_plain_oddities_are_named():
    usual = ["a text of eight words or a bit more"] * 20
    odd = ["12 34 !!", "?? !! ;; -- a", "Yes", "so " * 40, "THIS IS WRITTEN IN CAPITALS AND SHOUTS ALOUD"]
    texts = usual + odd
    reasons = plain_oddities(texts, np.array([len(text.split()) for text in texts]))
    assert not any(reasons[:20])
    assert reasons[20:] == [["no letter"], ["more signs than letters"], ["hardly a word"], ["one thing repeated"], ["in capitals"]]


def test_the_base_model_is_surprised_by_mixed_words(messages):
    rng = np.random.default_rng(1)
    texts = [text for text in messages if len(text.split()) > 8][:60]
    mixed = [" ".join(rng.permutation(text.split())) for text in texts]
    bits, place = base_surprisal([*texts, *mixed], "slm-base-en")
    assert place.tolist() == list(range(120)) and (bits[60:] > bits[:60]).mean() > 0.95
