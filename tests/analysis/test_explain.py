"""What is said about the words of a text adds up, agrees with what is known, and reaches files."""

import csv
import json

from slm_helpers import TextClassifier, explain
from slm_helpers._backend import keras
from slm_helpers.analysis.explain import (
    integrated_gradients,
    margin_direction,
    network_weights,
    ngram_contributions,
    token_words,
    words_that_count,
)
from slm_helpers.analysis.network import ClassifierNetwork
from slm_helpers.cli import main
from slm_helpers.models.classifiers import build_text_classifier
from slm_helpers.models.language_model import build_language_model
from slm_helpers.models.saved import save_model
from slm_helpers.tasks.text_classification import text_scores
from slm_helpers.text.hashing import MAX_NGRAMS, hash_ngrams, locate_ngrams, ngram_scores

import numpy as np
import pandas as pd
import pytest

WORDS = {"praise": ["good", "fine", "great"], "blame": ["bad", "awful", "poor"], "neither": ["usual", "normal", "plain"]}
ROWS = [(f"a {word} {thing}, I think", label) for label, words in WORDS.items() for word in words for thing in ("day", "meal", "film")]
TEXT = "Well, a good day: not an awful one!"


@pytest.fixture(scope="module")
def classifier():
    """A network of random size and a linear model, both fitted to toy texts in three classes."""
    texts, labels = zip(*(ROWS * 2), strict=True)
    return TextClassifier(base=None, epochs=8, learning_rate=0.01).fit(texts, labels)


@pytest.fixture(scope="module")
def folder(classifier, tmp_path_factory):
    return classifier.save(tmp_path_factory.mktemp("explain") / "model")


@pytest.mark.parametrize("cell", ["gru", "lstm", "rnn"])
def test_the_network_in_numpy_is_that_of_keras_and_its_gradient_the_slope(cell):
    keras.utils.set_random_seed(3)
    model = build_text_classifier(40, num_classes=3, cell=cell, embedding_dim=5, units=4, num_layers=2)
    network = ClassifierNetwork({"cell": cell, "num_layers": 2}, {w.path: keras.ops.convert_to_numpy(w) for w in model.weights})
    ids = np.array([[2, 5, 7, 9, 30], [2, 8, 9, 1, 4]])
    vectors, direction = network.embeddings[ids], margin_direction(3, 1)
    np.testing.assert_allclose(network.logits(vectors), keras.ops.convert_to_numpy(model(ids)), atol=1e-6)
    values, gradient = network.gradient(vectors, direction)
    np.testing.assert_allclose(values, network.logits(vectors) @ direction, atol=1e-6)
    way = 1e-3 * np.random.default_rng(0).normal(size=vectors.shape).astype("float32")
    slope = (network.logits(vectors + way) - network.logits(vectors - way)) @ direction / 2
    np.testing.assert_allclose((gradient * way).sum(axis=(1, 2)), slope, atol=2e-6)
    assert np.abs(slope).max() > 2e-5


def test_many_rows_are_read_in_parts(monkeypatch, classifier):
    network = ClassifierNetwork(classifier.saved_.arguments, network_weights(classifier.saved_))
    vectors, direction = np.random.default_rng(0).normal(size=(7, 5, 128)).astype("float32"), margin_direction(3, 0)
    whole = network.gradient(vectors, direction)
    monkeypatch.setattr("slm_helpers.analysis.network._CHUNK", 10)
    for one, other in zip(whole, network.gradient(vectors, direction), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_integrated_gradients_of_a_square_by_hand():
    """f = sum of x^2: from 0 to x each coordinate adds its square; from 1 to 3 it adds 9 - 1."""
    vectors = np.array([[1.0, 2.0], [3.0, 0.0]])
    found = integrated_gradients(lambda path: 2 * path, vectors, np.zeros((2, 2)), num_steps=4)
    np.testing.assert_allclose(found, [5.0, 9.0])
    assert integrated_gradients(lambda path: 2 * path, np.array([[3.0]]), np.array([[1.0]]), num_steps=1)[0] == pytest.approx(8.0)


def test_tokens_belong_to_the_word_they_end_in():
    text = " ab  c\n"
    places = np.array([[0, 2], [2, 3], [3, 4], [4, 6], [6, 7]])  # " a", "b", " ", " c", "\n"
    assert token_words(text, places).tolist() == [0, 0, 1, 1, 1]


@pytest.mark.parametrize("baseline", ["zero", "mean", "pad"])
@pytest.mark.parametrize("text", [TEXT, "good", "  two\n\nlines  of it ", "日本語 ÉTÉ good good"])
def test_both_parts_add_up(classifier, text, baseline):
    found = explain(classifier, text, method="integrated_gradients", baseline=baseline, num_steps=256)
    assert found.table["word"].tolist() == text.split()
    network, ngrams = found.completeness.loc["network"], found.completeness.loc["ngrams"]
    assert network["attributed"] == pytest.approx(network["change"], rel=0.01, abs=0.005)
    assert ngrams["attributed"] == pytest.approx(ngrams["change"], abs=1e-6)
    np.testing.assert_allclose(found.table["score"], found.table["network"] + found.table["ngrams"])
    assert abs(network["change"]) > 0.05 or baseline != "zero"


def test_the_explained_logits_are_those_of_the_model(classifier):
    """Biases apart, the change from no text to the text is what the model's own logits say."""
    saved, direction = classifier.saved_, margin_direction(3, 0)
    first, second = (
        explain(classifier, text, label="blame", method="integrated_gradients").completeness["change"].sum()
        for text in ("an awful day", "an awful day, good film")
    )
    scores = text_scores(saved, ["an awful day", "an awful day, good film"]) @ direction
    # The baselines differ in length alone, and the network reads blank vectors: what it says of them is part of the difference.
    network = ClassifierNetwork(saved.arguments, network_weights(saved))
    blanks = []
    for text in ("an awful day", "an awful day, good film"):
        vectors = np.zeros((1, 1 + len(saved.tokenizer.encode(text)), 128), "float32")
        vectors[0, 0] = network.embeddings[saved.tokenizer.end_id]
        blanks.append(float(network.logits(vectors)[0] @ direction))
    assert first - second == pytest.approx(scores[0] - scores[1] - (blanks[0] - blanks[1]), abs=1e-4)


def test_more_steps_leave_less_behind(classifier):
    left = [
        abs(explain(classifier, TEXT, method="integrated_gradients", num_steps=steps).completeness.loc["network", "residual"])
        for steps in (1, 256)
    ]
    assert left[1] < left[0] / 3


def test_the_linear_part_by_hand(classifier):
    """A word alone holds all n-grams; two equal words share them; a pair of neighbours is divided between both."""
    saved, direction = classifier.saved_, margin_direction(3, 2)
    table, buckets = np.asarray(network_weights(saved)["ngram_scores/table"]), saved.arguments["num_buckets"]
    for text in ("good", "good good good", "a fine meal"):
        total = ngram_scores(table, hash_ngrams([text], num_buckets=buckets))[0] @ direction
        found = ngram_contributions(saved, text, direction)
        assert found.sum() == pytest.approx(total, abs=1e-5) and abs(total) > 0.1
    first, middle, last = ngram_contributions(saved, "good good good", direction)
    assert first == pytest.approx(last) == pytest.approx(middle)


def test_located_ngrams_are_the_hashed_ones():
    for text in (TEXT, "", "İstanbul ΣΑΣ x_1 don't -- 12:30", "a a a"):
        ids, words = locate_ngrams(text, num_buckets=1 << 12)
        assert sorted(set(ids)) == hash_ngrams([text], num_buckets=1 << 12)[0].tolist()
        assert not len(words) or set(words) <= set(range(len(text.split())))
    ids, words = locate_ngrams("ab cd", num_buckets=1 << 12)
    assert [len(set(words[ids == each])) for each in sorted(set(ids))].count(2) == 1  # the pair alone has two words


def test_more_ngrams_than_are_looked_up_still_add_up(classifier):
    text = " ".join(f"word{i}x{i * 7919}" for i in range(500))
    assert len(set(locate_ngrams(text, num_buckets=classifier.saved_.arguments["num_buckets"])[0])) > MAX_NGRAMS
    ngrams = explain(classifier, text, method="gradient_x_input").completeness.loc["ngrams"]
    assert ngrams["attributed"] == pytest.approx(ngrams["change"], abs=1e-6)


def test_occlusion_is_the_probability_without_the_word(classifier):
    found = explain(classifier, "a good day")
    probs = classifier.predict_proba(["a good day", "good day", "a day", "a good"])
    best = probs[0].argmax()
    assert found.label == classifier.classes_[best] == "praise" and found.probability == pytest.approx(probs[0, best], abs=1e-6)
    np.testing.assert_allclose(found.table["score"], probs[0, best] - probs[1:, best], atol=1e-6)
    assert found.top(1)["word"].tolist() == ["good"]


def test_another_class_may_be_asked_for(classifier):
    found = explain(classifier, "a good day", label="blame")
    assert found.label == "blame" and found.table.set_index("word").loc["good", "score"] < 0
    with pytest.raises(ValueError, match="label is 'joy', but this model knows blame, neither, praise"):
        explain(classifier, "a good day", label="joy")


def test_a_folder_needs_no_keras_and_says_the_same(classifier, folder):
    for method in ("occlusion", "integrated_gradients", "gradient_x_input"):
        one, other = (explain(model, TEXT, method=method).table["score"] for model in (classifier, folder))
        np.testing.assert_allclose(one, other, atol=1e-4)
        assert one.abs().max() > 0.01


def test_random_weights_give_another_explanation(classifier):
    """If not, the method would show the text and not the model (Adebayo et al. 2018)."""
    before = explain(classifier, TEXT, label="praise", method="integrated_gradients").table["score"]
    model = classifier.saved_.model
    weights, rng = model.get_weights(), np.random.default_rng(0)
    try:
        model.set_weights([rng.permutation(values.ravel()).reshape(values.shape) for values in weights])
        after = explain(classifier, TEXT, label="praise", method="integrated_gradients").table["score"]
    finally:
        model.set_weights(weights)
    assert abs(np.corrcoef(before, after)[0, 1]) < 0.7 and not np.allclose(before, after, atol=0.01)


def test_a_long_text_loses_its_middle_in_the_network_only(classifier):
    words = [f"w{i}" for i in range(300)]
    table = explain(classifier, " ".join(["good", *words]), method="gradient_x_input").table
    assert table["network"].iloc[150] == 0 and table["network"].iloc[0] != 0 and table["ngrams"].iloc[150] != 0


def test_a_text_without_words_has_an_empty_table(classifier):
    for method in ("occlusion", "integrated_gradients"):
        found = explain(classifier, " ", method=method)
        assert found.table.empty and 0 < found.probability <= 1


def test_two_classes_and_no_ngrams():
    two = TextClassifier(base=None, epochs=1, ngrams=False).fit(["good day", "bad day"] * 8, [1, 0] * 8)
    found = explain(two, "a good day", label=1, method="integrated_gradients")
    assert found.label == 1 and (found.table["ngrams"] == 0).all()
    network = found.completeness.loc["network"]
    assert network["attributed"] == pytest.approx(network["change"], abs=1e-3)


def test_the_figure_names_words_class_and_unit(classifier):
    ax = explain(classifier, TEXT).plot()
    assert [tick.get_text() for tick in ax.get_yticklabels()] == TEXT.split()
    assert "probability" in ax.get_xlabel() and len(ax.patches) == len(TEXT.split())


def test_what_cannot_be_explained_is_refused(classifier, folder, tmp_path):
    with pytest.raises(TypeError, match="one text, but got list"):
        explain(classifier, [TEXT])
    with pytest.raises(ValueError, match="method"):
        explain(classifier, TEXT, method="shap")
    with pytest.raises(TypeError, match="Only classifiers of texts"):
        explain(object(), TEXT)
    lm = save_model(tmp_path / "lm", build_language_model(300, embedding_dim=4, units=4), tokenizer=classifier.saved_.tokenizer)
    with pytest.raises(TypeError, match="a model for the task 'lm'"):
        explain(lm, TEXT)


def test_words_that_count_are_those_of_explain(classifier, monkeypatch):
    texts = [TEXT, "good", "a plain meal"]
    for size in (1024, 3):  # all together, and text by text
        monkeypatch.setattr("slm_helpers.analysis.explain._VARIANTS", size)
        found = words_that_count(classifier, texts, num_words=2)
        for words, text in zip(found, texts, strict=True):
            best = explain(classifier, text).top(2)
            assert [row["word"] for row in words] == best["word"].tolist()[: len(words)] and words
            np.testing.assert_allclose([row["score"] for row in words], best["score"][: len(words)], atol=6e-4)
    assert words_that_count(classifier, []) == []


def test_predict_explains_in_csv_and_jsonl(folder, tmp_path, capsys):
    texts = ["a good day", "an awful, awful film", "plain"]
    pd.DataFrame({"text": texts}).to_csv(tmp_path / "in.csv", index=False)
    arguments = ["predict", "--model", str(folder), "--input", str(tmp_path / "in.csv"), "--explain", "--output"]
    for name in ("out.csv", "out.jsonl"):
        assert main([*arguments, str(tmp_path / name)]) == 0
    rows = list(csv.DictReader((tmp_path / "out.csv").open()))
    lists = [json.loads(line)["explanation"] for line in (tmp_path / "out.jsonl").open()]
    assert list(rows[0]) == ["text", "prediction", "confidence", "explanation"]
    assert rows[0]["explanation"].startswith("good:+0.") and lists[0][0]["word"] == "good" and lists[0][0]["position"] == 1
    for row, words in zip(rows, lists, strict=True):
        assert row["explanation"] == " ".join(f"{each['word']}:{each['score']:+.3f}" for each in words)
    capsys.readouterr()


def test_predict_explains_no_other_task(tmp_path, capsys, classifier):
    lm = save_model(
        tmp_path / "lm",
        build_language_model(300, embedding_dim=4, units=4),
        tokenizer=classifier.saved_.tokenizer,
        task="tag",
        labels=["O"],
    )
    (tmp_path / "in.csv").write_text("text\nhello\n")
    code = main(["predict", "--model", str(lm), "--input", str(tmp_path / "in.csv"), "--output", str(tmp_path / "o.csv"), "--explain"])
    assert code == 2 and "Only classifiers of texts can be explained" in capsys.readouterr().err


def test_a_column_explanation_is_not_overwritten(folder, tmp_path, capsys):
    (tmp_path / "in.csv").write_text("text,explanation\nhello,mine\n")
    arguments = ["predict", "--model", str(folder), "--input", str(tmp_path / "in.csv"), "--output", str(tmp_path / "o.csv")]
    assert main(arguments) == 0
    assert main([*arguments, "--explain"]) == 2 and "has a column 'explanation' already" in capsys.readouterr().err


def test_a_classifier_of_several_labels_is_refused():
    from slm_helpers import MultiLabelClassifier

    with pytest.raises(TypeError, match="Only classifiers of texts can be explained, but this is a MultiLabelClassifier"):
        explain(MultiLabelClassifier(base=None), "a text")
