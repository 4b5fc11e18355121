"""What all baselines share: scikit-learn's parameters, and empty output for empty input."""

from slm_helpers.baselines.classification import TfidfClassifier
from slm_helpers.baselines.data_to_text import NearestRecord, TemplateWriter
from slm_helpers.baselines.extractive_qa import SpanBaseline
from slm_helpers.baselines.intent_slot import LinearIntentSlotParser
from slm_helpers.baselines.knowledge_tracing import BayesianTracing, CountRegression, SkillRates
from slm_helpers.baselines.nearest import NearestText
from slm_helpers.baselines.tagging import LinearTagger
from slm_helpers.baselines.translation import CopySource, PhraseLookup

import pandas as pd
import pytest
from sklearn.base import clone

ATTEMPTS = pd.DataFrame({"student": ["x"] * 4, "skill": ["a", "b"] * 2, "correct": [0, 1, 1, 1]})
TEXTS, ANSWERS = ["so good", "very bad"], ["yes", "no"]
# An estimator, what it is fitted to, and how many columns it predicts from.
CASES = [
    (TfidfClassifier(kind="logreg", C=3.0), (TEXTS, ANSWERS), 1),
    (NearestText(), (TEXTS, ANSWERS), 1),
    (CopySource(), (TEXTS, ANSWERS), 1),
    (PhraseLookup(num_rounds=2), (TEXTS, ANSWERS), 1),
    (TemplateWriter(), None, 1),
    (NearestRecord(), (["name: A"], ["A it is."]), 1),
    (LinearTagger(C=0.5), ([["Ada", "sings"]], [["B-PER", "O"]]), 1),
    (LinearIntentSlotParser(seed=1), (TEXTS, [("a", "O O"), ("b", "B-x O")]), 1),
    (SpanBaseline(max_words=3), (["Ada has a cat.", "Bo has a dog."], ["Who has a cat?", "Who has a dog?"], ["Ada", "Bo"]), 2),
]


@pytest.mark.parametrize(("model", "data", "num_columns"), CASES, ids=lambda value: type(value).__name__)
def test_baselines_have_parameters_and_give_nothing_for_nothing(model, data, num_columns):
    copy = clone(model)
    assert str(copy.get_params()) == str(model.get_params())
    if data is not None:
        attributes = set(vars(copy))
        assert copy.fit(*data) is copy
        assert all(name.endswith("_") or name.startswith("_") for name in set(vars(copy)) - attributes)
    assert len(copy.predict(*[[]] * num_columns)) == 0


@pytest.mark.parametrize("model", [SkillRates(strength=2.0), CountRegression(C=0.5), BayesianTracing(num_rounds=3)])
def test_baselines_of_tracing_too(model):
    copy = clone(model).fit(ATTEMPTS, ATTEMPTS["correct"])
    assert copy.get_params() == model.get_params()
    assert copy.predict(ATTEMPTS).shape == (4,) and copy.predict(ATTEMPTS.iloc[:0]).shape == (0,)
