from slm_helpers.analysis.topics import contradicted_labels, draw_map, find_topics, nearest, reduce_dimensions, tfidf_matrix, unit_length
from slm_helpers.analysis.word_table import count_words

import numpy as np
import pytest

WORDS = {
    "kitchen": "soup bread oven spoon plate butter",
    "harbour": "boat anchor sail harbour wave captain",
    "school": "chalk lesson pupil teacher desk book",
}


def themed(num=120, seed=0):
    rng = np.random.default_rng(seed)
    kinds = [list(WORDS)[i % 3] for i in range(num)]
    return ["the " + " ".join(rng.choice(WORDS[kind].split(), 5)) + " of it" for kind in kinds], np.array(kinds, dtype=object)


def test_a_matrix_leaves_the_word_table_as_it_was():
    table = count_words(["b a b", "a c", "c b a"])
    before = table.ids.copy()
    matrix, words = tfidf_matrix(table, min_texts=1)
    assert np.array_equal(table.ids, before) and set(words) == {"a", "b", "c"}
    assert np.allclose(np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel(), 1)
    assert matrix[1].nnz == 2  # the second text has no b


def test_topics_are_the_themes():
    texts, kinds = themed()
    matrix, words = tfidf_matrix(count_words(texts), min_texts=5, content_only=True)
    assert "the" not in words and "soup" in words
    topics = find_topics(matrix, words, num_topics=3)
    for number, row in enumerate(topics.table.itertuples(), 1):
        (theme,) = set(kinds[topics.topic == number])
        assert set(row.words.split(", ")[:5]) <= set(WORDS[theme].split()) and row.coherence > 0
        assert set(kinds[topics.typical[number]]) == {theme}
    assert topics.table["texts"].tolist() == [40, 40, 40]


def test_too_few_texts_have_no_topics_and_a_text_without_words_has_none():
    matrix, words = tfidf_matrix(count_words(["soup bread", "boat sail"]), min_texts=1)
    assert find_topics(matrix, words).table.empty
    texts, _ = themed()
    matrix, words = tfidf_matrix(count_words([*texts, "???"]), min_texts=5, content_only=True)
    assert find_topics(matrix, words, num_topics=3).topic[-1] == 0


def test_nearest_are_those_of_a_full_comparison():
    vectors = unit_length(np.random.default_rng(1).normal(size=(80, 6)))
    likeness = vectors @ vectors.T - 10 * np.eye(80)
    found = nearest(vectors, num=5, chunk=17)
    assert all(set(found[i]) == set(np.argsort(-likeness[i])[:5]) for i in range(80))


def test_wrong_labels_are_contradicted_and_right_ones_are_not():
    texts, kinds = themed()
    vectors = reduce_dimensions(tfidf_matrix(count_words(texts))[0])
    labels = kinds.copy()
    labels[[0, 31]] = "harbour", "school"
    found = contradicted_labels(vectors, labels)
    assert set(found.table["position"]) == {0, 31} and found.agreement > 0.9 and found.chance == pytest.approx(1 / 3, abs=0.01)
    assert dict(zip(found.table["position"], found.table["suggested"], strict=True)) == {0: kinds[0], 31: kinds[31]}
    mixed = contradicted_labels(vectors, np.random.default_rng(0).permutation(kinds))
    assert mixed.agreement == pytest.approx(mixed.chance, abs=0.08)


@pytest.mark.parametrize(("num", "method"), [(3, "none"), (30, "PCA"), (120, "t-SNE")])
def test_a_map_keeps_neighbours_and_comes_out_the_same_again(num, method):
    texts, _ = themed(num)
    vectors = reduce_dimensions(tfidf_matrix(count_words(texts), min_texts=1)[0])
    (places, found, trust), (again, _, _) = (draw_map(vectors, seed=5) for _ in range(2))
    assert found == method and np.array_equal(places, again) and places.shape == (num, 2)
    assert method == "none" or trust > 0.8
