"""Exact match and token F1 of answers."""

from slm_helpers.metrics.question_answering import exact_matches, normalise_answer, token_f1_scores

import numpy as np


def test_answers_are_compared_as_in_squad():
    assert normalise_answer("The  Old Man, and an 'Elephant'!") == "old man and elephant"
    assert exact_matches(["the North Sea", "Paris", "", "a"], ["North Sea.", "London", "", "Rome"]).tolist() == [1, 0, 1, 0]
    # 2 of the 3 words of the answer, and 2 of the 2 of the prediction: precision 1, recall 2/3.
    found = token_f1_scores(["cold North Sea", "Paris", "", "", "one one two"], ["the North Sea", "London", "", "Rome", "one"])
    np.testing.assert_allclose(found, [0.8, 0, 1, 0, 0.5])
