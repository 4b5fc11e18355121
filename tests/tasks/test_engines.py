"""Predictions without Keras are those of the Keras model."""

import csv
import os
import subprocess
import sys

from slm_helpers.deploy.engine import RowNetwork
from slm_helpers.models.classifiers import build_text_classifier
from slm_helpers.models.language_model import build_language_model
from slm_helpers.models.saved import save_model
from slm_helpers.models.taggers import build_intent_slot_model, build_tagger
from slm_helpers.tasks.io import open_estimator
from slm_helpers.text.tokenizers import train_bpe_tokenizer

import numpy as np
import pytest

TOKENIZER = train_bpe_tokenizer(["Ada met Bo in Rome and the cat sat on the mat"], vocab_size=280)
SIZES = {"vocab_size": TOKENIZER.vocab_size, "embedding_dim": 8, "units": 10}
TAGS = ["O", "B-per", "I-per"]
MODELS = {
    "classify": (lambda buckets: build_text_classifier(num_classes=3, num_buckets=buckets, **SIZES), ["a", "b", "c"], {}),
    "tag": (lambda buckets: build_tagger(num_tags=3, num_buckets=buckets, **SIZES), TAGS, {}),
    "command": (
        lambda buckets: build_intent_slot_model(num_tags=3, num_intents=2, num_buckets=buckets, num_intent_buckets=buckets, **SIZES),
        TAGS,
        {"intents": ["go", "stop"]},
    ),
}
TEXTS = ["Ada met Bo", "the cat", "Rome", "in Rome and on the mat sat Ada the cat"]


def save_random(folder, task, *, num_buckets=0):
    build, labels, settings = MODELS[task]
    model = build(num_buckets)
    rng = np.random.default_rng(0)
    for weight in model.weights:
        values = rng.normal(0, 0.5, weight.shape)
        weight.assign(abs(values) if weight.path.endswith("table") else values)
    return save_model(folder, model, tokenizer=TOKENIZER, task=task, labels=labels, settings=settings)


@pytest.mark.parametrize("task", MODELS)
@pytest.mark.parametrize("num_buckets", [0, 64])
def test_both_engines_predict_the_same(tmp_path, task, num_buckets):
    folder = save_random(tmp_path / "model", task, num_buckets=num_buckets)
    ours, theirs = open_estimator(folder), open_estimator(folder, engine="keras")
    assert isinstance(ours.saved_.model, RowNetwork) and not isinstance(theirs.saved_.model, RowNetwork)
    rows = [{ours.predict_columns[0]: text} for text in TEXTS]
    for found, expected in zip(ours.predict_rows(rows), theirs.predict_rows(rows), strict=True):
        assert found["prediction"] == expected["prediction"]
        assert found["confidence"] == pytest.approx(expected["confidence"], abs=2e-4)


def test_networks_that_write_keep_their_exact_weights(tmp_path):
    model = build_language_model(**SIZES)
    for task in ("lm", "write"):
        folder = save_model(tmp_path / task, model, tokenizer=TOKENIZER, task=task)
        runtime = open_estimator(folder).saved_.model
        ids = np.array([[3, 4, 5, 6]])
        features, _ = runtime.read(ids, runtime.zero_states(1))
        np.testing.assert_allclose(runtime.logits(features[0]), model.predict_on_batch(ids)[0], atol=1e-6)


def test_predict_loads_no_keras(tmp_path):
    folder = save_random(tmp_path / "model", "classify", num_buckets=64)
    (tmp_path / "in.csv").write_text("text\n" + "\n".join(TEXTS) + "\n")
    arguments = ["predict", "--model", folder, "--input", tmp_path / "in.csv", "--output", tmp_path / "out.csv"]
    code = f"""
import sys
from slm_helpers.cli import main
assert main({[str(each) for each in arguments]!r}) == 0
print(sorted({{"keras", "tensorflow"}} & set(sys.modules)))
"""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ.copy(), check=True)
    assert process.stdout.splitlines()[-1] == "[]"
    with (tmp_path / "out.csv").open() as file:
        assert [row["text"] for row in csv.DictReader(file)] == TEXTS
