from collections import Counter

from slm_helpers.analysis.word_table import count_ngrams, count_words, frequent_ngrams, is_shown, typical_ngrams, vocabulary_growth

import numpy as np
import pytest


def random_texts(num=300, seed=5):
    rng = np.random.default_rng(seed)
    return [" ".join(f"w{int(z)}" for z in np.minimum(rng.zipf(1.4, rng.integers(1, 30)), 500)) for _ in range(num)]


def test_words_keep_apostrophes_and_signs_of_chinese_stand_alone():
    table = count_words(["Don’t we?", "今天 rain", ""])
    assert [table.vocabulary[i] for i in table.ids] == ["don’t", "we", "今", "天", "rain"] and table.lengths.tolist() == [2, 3, 0]


def test_taking_texts_takes_their_words():
    table = count_words(["a b", "c", "", "a c d"])
    taken = table.take(np.array([3, 0, 2]))
    assert [table.vocabulary[i] for i in taken.ids] == ["a", "c", "d", "a", "b"] and taken.lengths.tolist() == [3, 2, 0]


def test_ngrams_equal_those_of_a_plain_count():
    texts = random_texts()
    groups = np.arange(300) % 3
    found = count_ngrams(count_words(texts), groups, 3, min_texts=4)
    plain = [Counter() for _ in range(3)]
    for text, group in zip(texts, groups, strict=True):
        words = text.split()
        plain[group].update({" ".join(words[i : i + n]) for n in (1, 2, 3) for i in range(len(words) - n + 1)})
    wanted = {each: [counts[each] for counts in plain] for each in sum(plain, Counter())}
    wanted = {each: counts for each, counts in wanted.items() if sum(counts) >= 4}
    assert dict(zip(found["ngrams"], found["counts"].tolist(), strict=True)) == wanted and max(found["sizes"]) == 3


def test_the_vocabulary_grows_as_drawn():
    everything = " ".join(f"w{i}" for i in range(2000))  # every word is new: the power is one
    curve, law = vocabulary_growth(count_words([everything]))
    assert law["beta"] == pytest.approx(1, abs=1e-6) and curve.iloc[-1].tolist() == [2000, 2000]
    curve, law = vocabulary_growth(count_words(["a b c"] * 200))
    assert law["beta"] == pytest.approx(0, abs=1e-6) and set(curve["distinct"]) == {3}
    assert np.isnan(vocabulary_growth(count_words(["a b"]))[1]["beta"])


def test_typical_words_are_those_of_the_group_and_none_of_equal_groups():
    rng = np.random.default_rng(2)
    fill = [f"w{i}" for i in range(200)]
    texts = [" ".join([*rng.choice(fill, 8), *(["soup", "bread"] if i % 2 and i % 3 else [])]) for i in range(600)]
    groups = np.arange(600) % 2
    found = count_ngrams(count_words(texts), groups, 2)
    table = typical_ngrams(found, ["even", "odd"], np.bincount(groups))
    assert table["ngram"].tolist() == ["soup bread"]  # and not its parts, which say the same
    assert set(table["group"]) == {"odd"} and table["share"].iloc[0] == pytest.approx(2 / 3) and table["elsewhere"].iloc[0] == 0
    shuffled = rng.permutation(groups)
    found = count_ngrams(count_words(texts), shuffled, 2)
    assert len(typical_ngrams(found, ["a", "b"], np.bincount(shuffled))) <= 1  # 3 of 200 words would be much


def test_long_numbers_are_not_shown():
    assert is_shown("in 2024") and not is_shown("ring 07700900123")
    found = count_ngrams(count_words(["ring 07700900123 now"] * 6), np.zeros(6, int), 1)
    assert set(frequent_ngrams(found)["ngram"]) == {"ring", "now"}
    assert set(frequent_ngrams(found, plain_words=frozenset(["now"]))["ngram"]) == {"ring"}
