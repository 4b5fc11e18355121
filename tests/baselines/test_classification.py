"""TF-IDF with a linear classifier."""

from slm_helpers.baselines.classification import TRIED_C, TfidfClassifier

import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import GridSearchCV

TEXTS = [
    "rain and wind today",
    "a storm with heavy rain",
    "cold wind and snow",
    "the team won the match",
    "a late goal",
    "the match was lost",
]
TOPICS = ["weather"] * 3 + ["sport"] * 3


@pytest.mark.parametrize("kind", ["svm", "logreg"])
@pytest.mark.parametrize("analyzer", ["word", "char", "both"])
def test_tfidf_classifier_learns(kind, analyzer):
    model = TfidfClassifier(kind=kind, analyzer=analyzer).fit(TEXTS, TOPICS)
    assert model.predict(["heavy wind and rain", "the goal that won the match"]).tolist() == ["weather", "sport"]
    again = TfidfClassifier(kind=kind, analyzer=analyzer).fit(pd.Series(TEXTS), pd.Series(TOPICS))
    np.testing.assert_array_equal(again.decision_function(TEXTS), model.decision_function(TEXTS))
    assert hasattr(model, "predict_proba") == (kind == "logreg")


def test_tfidf_classifier_counts_word_pairs_and_short_words():
    # Only the order of "a" and "b" tells these apart, and both are one letter long.
    texts, labels = ["a b x", "b a x"] * 5, ["ab", "ba"] * 5
    assert TfidfClassifier(analyzer="word").fit(texts, labels).predict(["y a b", "b a y"]).tolist() == ["ab", "ba"]


def test_characters_tell_what_unknown_words_mean():
    texts, labels = ["walking", "talking", "walked", "talked"], ["now", "now", "then", "then"]
    assert TfidfClassifier().fit(texts, labels).predict(["jumping", "jumped"]).tolist() == ["now", "then"]
    assert len(set(TfidfClassifier(analyzer="word").fit(texts, labels).predict(["jumping", "jumped"]))) == 1


@pytest.mark.parametrize("kind", ["svm", "logreg"])
def test_a_balanced_tfidf_classifier_hears_the_rare_class(kind):
    texts, labels = ["it is so"] * 40 + ["it is so odd"] * 4 + ["it is so odd"] * 6, ["plain"] * 44 + ["odd"] * 6
    rare = ["it is so odd", "it is so"]
    balanced = TfidfClassifier(kind=kind, analyzer="word", class_weight="balanced").fit(texts, labels)
    assert balanced.predict(rare).tolist() == ["odd", "plain"]
    few = TfidfClassifier(kind=kind, analyzer="word").fit(texts[:40] + ["it is so odd"] * 12, ["plain"] * 47 + ["odd"] * 5)
    assert few.predict(rare).tolist() == ["plain", "plain"]


def test_c_is_the_one_given_or_the_best_on_valid_or_the_usual_one():
    rng = np.random.default_rng(0)
    words = np.array([f"w{i}" for i in range(30)])
    texts = [" ".join(rng.choice(words, 5)) for _ in range(200)]
    labels = np.array(["yes" if ("w1" in text.split()) != (rng.random() < 0.2) else "no" for text in texts])
    train, valid = (texts[:120], labels[:120]), (texts[120:], labels[120:])
    chosen = TfidfClassifier(analyzer="word").fit(*train, validation_data=valid)
    scores = {C: TfidfClassifier(analyzer="word", C=C).fit(*train).score(*valid) for C in TRIED_C["svm"]}
    assert scores[chosen.C_] == max(scores.values()) and len(set(scores.values())) > 1
    assert TfidfClassifier(C=0.7).fit(*train, validation_data=valid).C_ == 0.7
    assert TfidfClassifier(kind="logreg").fit(*train).C_ == 10


def test_it_works_in_a_grid_search():
    search = GridSearchCV(TfidfClassifier(), {"C": [0.1, 1.0], "analyzer": ["word", "both"]}, cv=2).fit(TEXTS, TOPICS)
    assert search.best_estimator_.get_params()["C"] == search.best_params_["C"]


def test_tfidf_classifier_refuses_bad_settings():
    with pytest.raises(ValueError, match="kind is 'forest', but must be one of 'svm', 'logreg'"):
        TfidfClassifier(kind="forest").fit(TEXTS, TOPICS)
    with pytest.raises(ValueError, match="analyzer is 'letters', but must be one of 'word', 'char', 'both'"):
        TfidfClassifier(analyzer="letters").fit(TEXTS, TOPICS)
