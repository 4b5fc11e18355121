"""The span baseline."""

from slm_helpers.baselines.extractive_qa import SpanBaseline
from slm_helpers.metrics.question_answering import exact_matches
from slm_helpers.text.words import split_words

import numpy as np
import pandas as pd
import pytest

NAMES, COLOURS, THINGS = ["Mia", "Tom", "Ada", "Ben", "Eva"], ["red", "blue", "green", "white"], ["kite", "drum", "boat", "lamp", "ball"]


def passages(num_rows: int, *, seed: int = 0, none: bool = True) -> pd.DataFrame:
    """Rows that a few steps suffice to learn: who owns what; every fourth question is about somebody else."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(num_rows):
        names = rng.permutation(NAMES)
        things = [f"a {colour} {thing}" for colour, thing in zip(rng.choice(COLOURS, 3), rng.permutation(THINGS), strict=False)]
        context = " ".join(f"{name} has {thing}." for name, thing in zip(names, things, strict=False))
        known = not none or i % 4 > 0
        who = rng.integers(3) if known else 3
        reply = things[who] if known else ""
        rows.append((context, f"What does {names[who]} have?", reply, context.find(reply) if known else -1))
    return pd.DataFrame(rows, columns=["context", "question", "answer", "answer_start"])


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
