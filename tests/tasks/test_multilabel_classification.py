from slm_helpers import load
from slm_helpers.tasks.multilabel_classification import MultiLabelClassifier, linear_multilabel

import numpy as np
import pandas as pd
import pytest

KINDS = ["sun", "rain", "wind"]


def rows(num, split, seed):
    """Return texts that name what their labels are, one, two or none of them."""
    rng, found = np.random.default_rng(seed), []
    for number in range(num):
        names = [name for name in KINDS if rng.random() < 0.4]
        text = f"day {number} had " + (" and ".join(f"much {name}" for name in rng.permutation(names)) or "nothing")
        found.append((text, ", ".join(sorted(names)), split))
    return pd.DataFrame(found, columns=["text", "labels", "split"])


FRAME = pd.concat([rows(120, "train", 0), rows(60, "valid", 1), rows(60, "test", 2)], ignore_index=True)
TEST = FRAME[FRAME["split"] == "test"]


@pytest.fixture(scope="module")
def fitted():
    return MultiLabelClassifier(base=None, epochs=3, learning_rate=0.01).fit_frame(FRAME)


def test_it_finds_one_two_and_no_label(fitted):
    table = fitted.evaluate(TEST).set_index("metric")["value"]
    assert table["micro_f1"] > 0.95 and table["exact_match"] > 0.9
    assert fitted.predict(["much rain and much sun", "nothing"]).tolist() == ["rain, sun", ""]
    assert fitted.evaluation_.tables["labels"]["label"].tolist() == sorted(KINDS)


def test_probabilities_stand_for_each_label_by_itself(fitted):
    probs = fitted.predict_proba(["much rain and much sun"])[0]
    assert probs.shape == (3,) and probs[0] > 0.5 and probs[1] > 0.5 and probs.sum() > 1.2
    row = fitted.predict_rows([{"text": "much rain and much sun"}])[0]
    given = np.where(probs > 0.5, probs, 1 - probs)
    assert row["confidence"] == pytest.approx(given.prod(), abs=0.02)


def test_without_keras_it_predicts_the_same_from_its_folder(fitted, tmp_path):
    fitted.save(tmp_path / "m")
    texts = TEST["text"].tolist()
    opened = load(tmp_path / "m", engine="onnx")
    assert opened.predict(texts).tolist() == fitted.predict(texts).tolist()
    assert np.abs(opened.predict_proba(texts) - fitted.predict_proba(texts)).max() < 1e-4


def test_the_network_alone_learns_by_a_binary_loss():
    model = MultiLabelClassifier(base=None, epochs=12, learning_rate=0.02, ngrams=False).fit_frame(FRAME)
    history = model.history_[model.history_["split"] == "valid"]
    assert history["loss_nats"].iloc[0] < 0.75 and history["loss_nats"].min() < 0.35
    assert model.evaluate(TEST)["value"].iloc[0] > 0.8


def test_a_linear_model_alone_can_be_saved(tmp_path):
    model = linear_multilabel(FRAME[FRAME["split"] == "train"], FRAME[FRAME["split"] == "valid"])
    model.save(tmp_path / "m")
    assert load(tmp_path / "m").evaluate(TEST)["value"].iloc[0] > 0.95


@pytest.mark.parametrize(
    ("labels", "split", "message"),
    [(["a", "a"], "train", "1 label"), (["a", "b"], "valid", "test has the label 'c'|valid has the label 'c'")],
)
def test_labels_that_cannot_be_learned_are_told(labels, split, message):
    frame = pd.DataFrame({"text": ["x", "y"], "labels": labels, "split": "train"})
    if split == "valid":
        frame = pd.concat([frame, pd.DataFrame({"text": ["z"], "labels": ["c"], "split": "valid"})])
    with pytest.raises(ValueError, match=message):
        MultiLabelClassifier(base=None).fit_frame(frame)


def test_an_unknown_label_and_a_class_weight_are_refused(fitted):
    with pytest.raises(ValueError, match="'snow' is unknown"):
        fitted.evaluate(pd.DataFrame({"text": ["x"], "labels": ["snow, rain"]}))
    with pytest.raises(ValueError, match="class_weight"):
        MultiLabelClassifier(base=None, class_weight="balanced").fit_frame(FRAME)
