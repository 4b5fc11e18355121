"""The nearest text."""

from slm_helpers.baselines.nearest import NearestText

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline


def test_the_nearest_question_lends_its_answer():
    model = NearestText().fit(["What is the capital of France?", "What is the capital of Peru?"], ["Paris", "Lima"])
    assert model.predict(["Tell me Peru's capital!", "the French capital, France"]) == ["Lima", "Paris"]
    assert model.nearest(["Peru"]).tolist() == [1]
    assert model.similarities(["What is the capital of Peru?"])[0, 1] > 0.99 > model.similarities(["Lima"])[0].max()
    assert model.predict(["zzz"]) == ["Paris"]  # nothing in common: the first


@pytest.mark.filterwarnings("ignore:The number of unique classes")
def test_it_is_scikit_learns_nearest_neighbour_by_cosine():
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(list("abcdefghij"), 12)) for _ in range(600)]
    answers = [str(i) for i in range(300)]
    vectorizer = TfidfVectorizer(token_pattern=r"\w")
    other = make_pipeline(vectorizer, KNeighborsClassifier(1, metric="cosine")).fit(texts[:300], answers)
    ours = NearestText(vectorizer).fit(texts[:300], answers)
    near = ours.similarities(texts[300:])  # more texts than one block
    same = np.array(ours.predict(texts[300:])) == other.predict(texts[300:])
    tied = (near >= near.max(axis=1, keepdims=True) - 1e-9).sum(axis=1) > 1
    assert near.shape == (300, 300) and (same | tied).all() and tied.mean() < 0.1


def test_texts_and_answers_of_other_numbers_are_refused():
    with pytest.raises(ValueError, match="There are 2 texts and 1 answers"):
        NearestText().fit(["a", "b"], ["x"])
    with pytest.raises(ValueError, match="There are 0 texts"):
        NearestText().fit([], [])
