from itertools import combinations

from slm_helpers.analysis.copies import SIMILAR, find_copies, shared_phrases
from slm_helpers.analysis.word_table import count_words

import numpy as np


def copies_of(texts):
    return find_copies(texts, count_words(texts))


def test_each_kind_of_copy_is_named_and_points_to_the_first():
    texts = [
        "The cat sat on the old mat.",
        "A dog ran away.",
        "The cat sat on the old mat.",
        "the CAT sat on the old mat!",
        "The cat sat on the old mat today.",
    ]
    found = copies_of(texts)
    assert found.group.tolist() == [0, 1, 0, 0, 0] and found.first.tolist() == [True, True, False, False, False]
    assert found.kind.tolist() == ["", "", "same text", "same words", "near copy"]
    assert found.similarity[4] == 5 / 6  # five runs of three words in six


def test_texts_without_words_are_copies_only_as_written():
    assert copies_of(["!!!", "???", "!!!", "a", "b", "A", ""]).group.tolist() == [0, 1, 0, 2, 3, 2, 4]
    assert len(copies_of([]).group) == 0


def random_texts(rng, num):
    words = np.array([f"w{i}" for i in range(300)])
    texts = [" ".join(rng.choice(words, rng.integers(8, 40))) for _ in range(num)]
    for place in range(0, num - 1, 4):  # every fourth is an edit of the one before
        edited = texts[place].split()
        for _ in range(rng.integers(1, 5)):
            edited[rng.integers(len(edited))] = str(rng.choice(words))
        texts[place + 1] = " ".join(edited)
    return texts


def test_nearly_all_pairs_that_a_full_comparison_finds_are_found_and_no_others():
    texts = random_texts(np.random.default_rng(3), 400)
    runs = [{tuple(text.split()[i : i + 3]) for i in range(len(text.split()) - 2)} for text in texts]
    wanted = {(a, b) for a, b in combinations(range(400), 2) if len(runs[a] & runs[b]) / len(runs[a] | runs[b]) >= SIMILAR}
    group = copies_of(texts).group
    found = {(a, b) for a, b in combinations(range(400), 2) if group[a] == group[b]}
    assert len(wanted) > 30 and found <= wanted and len(found) >= 0.95 * len(wanted)


def test_many_equal_texts_cost_no_pairs():
    found = copies_of(["the same text again and again"] * 20_000 + ["another one that differs"])
    assert found.first.sum() == 2 and (found.kind == "same text").sum() == 19_999


def test_a_footer_is_a_shared_phrase_but_copies_of_one_text_are_not():
    rng = np.random.default_rng(1)
    words = [f"w{i}" for i in range(500)]
    footer = "please consider the environment before you print this message"
    texts = [" ".join(rng.choice(words, 20)) + f" {footer}" * (i < 6) for i in range(20)] + [
        "one two three four five six seven eight nine"
    ] * 9
    table = count_words(texts)
    shares, phrases = shared_phrases(table, find_copies(texts, table))
    assert np.allclose(shares[:6], 9 / 29) and not shares[6:].any()
    ((text, word, num_texts),) = phrases
    start = table.offsets[text] + word
    assert num_texts == 6 and " ".join(table.vocabulary[i] for i in table.ids[start : start + 8]) in footer
