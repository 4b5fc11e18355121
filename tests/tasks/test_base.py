"""What all estimators have in common, tried on the smallest of them."""

import subprocess
import sys

import slm_helpers
from slm_helpers import TextClassifier

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

TEXTS, STARS = ["good day", "bad day", "fine day", "poor day"] * 6, [5, 1, 5, 1] * 6


@pytest.fixture(scope="module")
def fitted():
    return TextClassifier(base=None, epochs=1, ngrams=True).fit(TEXTS, STARS)


def test_importing_the_tasks_loads_no_heavy_library():
    code = (
        "import sys; from slm_helpers import TextClassifier; from slm_helpers.tasks import TASKS, io, task_class; TextClassifier(); "
        "[task_class(task)() for task in TASKS]; print({'keras', 'tensorflow', 'scipy', 'sklearn'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "set()"


def test_public_names_are_listed_and_others_are_named_in_the_error():
    assert {"TextClassifier", "load_dataset", "load_pretrained", "load_model", "TextGenerator"} <= set(dir(slm_helpers))
    with pytest.raises(AttributeError, match=r"Public names: .*TextClassifier"):
        slm_helpers.TextClassifyer  # noqa: B018


def test_settings_are_kept_as_given_and_cloned():
    classifier = TextClassifier(base=None, epochs=6, batch_size=32, learning_rate=1e-3, max_seconds=9, class_weight="balanced", seed=3)
    assert clone(classifier).get_params() == classifier.get_params()
    config = classifier.set_params(epochs=2).training_config()
    assert (config.epochs, config.batch_size, config.learning_rate, config.max_seconds, config.seed) == (2, 32, 1e-3, 9, 3)
    assert config.class_weight == "balanced" and TextClassifier().training_config().class_weight is None
    with pytest.raises(ValueError, match="class_weight is 'even'"):
        TextClassifier(class_weight="even").training_config()


def test_settings_are_changed_by_name_and_shown():
    classifier = TextClassifier(base=None).set_params(epochs=3, seed=7)
    assert repr(classifier) == "TextClassifier(base=None, epochs=3, seed=7)"
    with pytest.raises(ValueError, match="TextClassifier has no setting 'epoch'; its settings are base, epochs, "):
        classifier.set_params(epoch=3)


def test_a_copy_shares_an_opened_base(fitted):
    assert clone(TextClassifier(base=fitted.saved_)).base is fitted.saved_
    assert clone(TextClassifier(base=fitted)).base is fitted


def test_labels_come_back_in_their_own_type(fitted, tmp_path):
    for model in (fitted, slm_helpers.load_model(fitted.save(tmp_path / "model"))):
        assert type(model) is TextClassifier
        assert model.classes_.dtype == np.int64 and model.classes_.tolist() == [1, 5]
        assert model.predict(["good day", "bad day"]).tolist() == [5, 1]
        assert model.predict_rows([{"text": "good day"}])[0]["prediction"] == 5
        np.testing.assert_allclose(model.predict_proba(TEXTS).sum(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize(
    "texts", [TEXTS, tuple(TEXTS), np.array(TEXTS), pd.Series(TEXTS, index=range(7, 31)), pd.DataFrame({"text": TEXTS, "other": 1})]
)
def test_texts_come_in_any_container(fitted, texts):
    assert (fitted.predict(texts) == STARS).mean() == fitted.score(texts, pd.Series(STARS)) == 1.0


def test_rows_may_be_dicts(fitted):
    rows = [{"text": text, "label": star} for text, star in zip(TEXTS, STARS, strict=True)]
    assert fitted.predict(rows).tolist() == STARS
    assert fitted.evaluate(rows).set_index("metric").loc["accuracy", "value"] == 1.0
    assert fitted.evaluation_.tables["classes"]["rows"].tolist() == [12, 12]


def test_nothing_in_gives_nothing_out(fitted):
    assert len(fitted.predict([])) == 0 and fitted.predict_proba(pd.Series([], dtype=object)).shape == (0, 2)
    assert fitted.predict_rows([]) == []


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda model: model.predict("good day"), TypeError, "Pass a list"),
        (lambda model: model.predict({"text": "good day"}), TypeError, "list of dicts"),
        (lambda model: model.predict([1, 2]), TypeError, "row 1 of X is 1, but a string"),
        (lambda model: model.predict([{"comment": "good"}]), ValueError, "'text' is missing.* There are: comment"),
        (lambda model: model.evaluate(["good"], [1, 5]), ValueError, "X has 1 rows and y 2"),
        (lambda model: model.evaluate(["good"], "5"), TypeError, "y is one string"),
        (lambda model: model.evaluate(["good"]), ValueError, "'label' is missing"),
        (lambda model: model.evaluate(["good"], [3]), ValueError, "label '3' is unknown"),
        (lambda model: TextClassifier().predict(["good"]), ValueError, "has learned nothing yet"),
        (lambda model: TextClassifier(base="no/such").fit(TEXTS, STARS), FileNotFoundError, "neither a model folder nor a pretrained"),
        (lambda model: TextClassifier(base=model).fit(TEXTS, STARS), ValueError, "starts from a model for 'lm'"),
    ],
)
def test_mistakes_are_told(fitted, call, error, message):
    with pytest.raises(error, match=message):
        call(fitted)


def test_scikit_learn_can_search_and_cross_validate():
    classifier = TextClassifier(base=None, epochs=1, max_tokens=8)
    assert cross_val_score(classifier, TEXTS, STARS, cv=2).tolist() == [1.0, 1.0]
    search = GridSearchCV(make_pipeline(FunctionTransformer(), classifier), {"textclassifier__ngrams": [True]}, cv=2).fit(TEXTS, STARS)
    assert search.predict(["good day"]).tolist() == [5]


def test_the_card_has_rows_licence_of_the_base_and_scores(fitted, tmp_path):
    model = TextClassifier(base="slm-base-en").fit(TEXTS, STARS)
    model.evaluate(TEXTS, STARS)
    card = (model.save(tmp_path / "model", sources=["dir/mine.csv"]) / "card.md").read_text()
    assert "slm-base-en" in card and "free for research only" in card and "mine.csv: 24 train" in card and "| accuracy | 1.0000 |" in card
    again = TextClassifier.load(tmp_path / "model")
    assert "free for research only" in again.saved_.settings["licence"] and again.saved_.metrics["accuracy"]["value"] == 1.0
    assert len(model.history_) == 0 and model.saved_.settings["head_only"]  # nothing would choose between it and a longer training
    quick = TextClassifier.load(tmp_path / "model", engine="onnx")
    assert not hasattr(quick.saved_.model, "get_weights") and quick.predict(TEXTS).tolist() == again.predict(TEXTS).tolist()
    np.testing.assert_allclose(quick.predict_proba(TEXTS), again.predict_proba(TEXTS), atol=1e-5)
    quick.save(tmp_path / "copy")  # what needs Keras opens the folder with it
    with pytest.raises(ValueError, match="engine is 'numpy'"):
        TextClassifier.load(tmp_path / "model", engine="numpy")


def test_long_texts_are_told_before_the_training():
    frame = pd.DataFrame({"text": ["short", "word " * 40, "word " * 9], "label": ["a", "b", "a"], "split": "train"})
    assert TextClassifier(max_tokens=30).notes(frame) == ["1 of 3 texts are longer than 30 tokens: the network does not read their middle."]
    assert TextClassifier(max_tokens=50).notes(frame) == TextClassifier(base=None, max_tokens=30).notes(frame) == []


def test_with_little_time_the_linear_probe_has_to_do():
    frame = pd.DataFrame({"text": TEXTS, "label": STARS, "split": ["train"] * 16 + ["valid"] * 8})
    model = TextClassifier(epochs=3, max_seconds=0.5).fit_frame(frame)
    assert model.saved_.settings["head_only"] and len(model.history_) == 0
    assert model.score(TEXTS, STARS) == 1.0


def test_features_that_are_kept_have_a_bound(monkeypatch):
    from slm_helpers.models.classifiers import classifier_from_base
    from slm_helpers.models.saved import load_pretrained
    from slm_helpers.training import classification

    network = classifier_from_base(load_pretrained("slm-base-en").model, num_classes=2)
    width = network.get_layer("pooling").output.shape[-1]
    monkeypatch.setattr(classification, "_MAX_CACHED", 11 * width)
    ids = [np.array([i]) for i in range(1, 31)]
    probs = classification.predict_probs(network, ids[:8])
    for start in range(0, 30, 5):
        classification.predict_probs(network, ids[start : start + 5])
    assert 8 <= len(network._slm_cache["pooled_features"]) <= 11
    np.testing.assert_array_equal(classification.predict_probs(network, ids[:8]), probs)
