"""The span baseline."""

from slm_helpers.baselines.extractive_qa import SpanBaseline
from slm_helpers.metrics.question_answering import exact_matches
from slm_helpers.text.words import split_words
from tests.toys import passages

import pytest


def test_an_answer_may_hold_the_full_stop_of_a_title():
    context = "It was Mrs. Fox who built the mill. She lived near St. Ives."
    words = split_words(context)
    first, last = SpanBaseline().spans(words)
    spans = {context[words.places[a, 0] : words.places[b, 1]] for a, b in zip(first, last, strict=True)}
    assert {"Mrs. Fox", "near St. Ives"} <= spans and not any("mill. She" in span for span in spans)


def test_the_span_baseline_answers_from_the_sentence_that_was_asked_for():
    train, test = passages(150, none=False), passages(40, seed=5, none=False)
    model = SpanBaseline().fit(*(train[name].tolist() for name in ("context", "question", "answer")))
    found = model.predict(test["context"].tolist(), test["question"].tolist())
    assert exact_matches(test["answer"].tolist(), found).mean() > 0.8
    mixed = passages(150)
    model = SpanBaseline().fit(*(mixed[name].tolist() for name in ("context", "question", "answer")))
    found = model.predict(mixed["context"].tolist(), mixed["question"].tolist())
    assert "" in found and exact_matches(mixed["answer"].tolist(), found).mean() > 0.7
    with pytest.raises(ValueError, match="nothing to learn from"):
        SpanBaseline().fit(["A cat."], ["Who?"], [""])
