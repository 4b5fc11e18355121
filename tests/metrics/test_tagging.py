"""Entities and tag sequences: by hand, as conlleval counts them, and against trying all sequences."""

import itertools

from slm_helpers.metrics.intervals import bootstrap_interval
from slm_helpers.metrics.tagging import entity_table, legal_tags, precision_recall_f1, span_counts, spans_of, tag_table

import numpy as np
import pytest

LABELS = ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]


@pytest.mark.parametrize(
    ("tags", "spans"),
    [
        ("O O", []),
        ("B-PER I-PER O B-LOC", [(0, 2, "PER"), (3, 4, "LOC")]),
        ("B-PER B-PER", [(0, 1, "PER"), (1, 2, "PER")]),
        ("B-PER B-LOC I-LOC", [(0, 1, "PER"), (1, 3, "LOC")]),
        ("O I-PER I-PER", [(1, 3, "PER")]),  # conlleval: begins an entity
        ("B-PER I-LOC I-LOC", [(0, 1, "PER"), (1, 3, "LOC")]),
        ("B-PER O I-PER", [(0, 1, "PER"), (2, 3, "PER")]),
        ("I-PER B-PER I-PER", [(0, 1, "PER"), (1, 3, "PER")]),
        ("B-creative-work I-creative-work", [(0, 2, "creative-work")]),
    ],
)
def test_entities_are_read_as_conlleval_reads_them(tags, spans):
    assert spans_of(tags.split()) == spans


def test_scores_of_entities_by_hand():
    gold = ["B-PER I-PER O B-LOC", "B-LOC O", "O O O", "B-ORG I-ORG I-ORG"]
    predicted = ["B-PER I-PER O B-LOC", "B-PER O", "O B-LOC O", "B-ORG I-ORG O"]
    gold, predicted = ([row.split() for row in rows] for rows in (gold, predicted))
    # Right: the first PER and LOC. Found: five. Wanted: four. A wrong type and a short one are wrong twice.
    scores = tag_table(gold, predicted).set_index("metric")["value"]
    assert scores["entity_precision"] == pytest.approx(2 / 5)
    assert scores["entity_recall"] == pytest.approx(2 / 4)
    assert scores["entity_f1"] == pytest.approx(2 * 0.4 * 0.5 / 0.9)
    assert scores["accuracy"] == pytest.approx(9 / 12)
    counts = span_counts(gold, predicted).groupby("type")[["tp", "num_predicted", "num_gold"]].sum()
    assert counts.loc["LOC"].tolist() == [1, 2, 2]
    assert counts.loc["PER"].tolist() == [1, 2, 1]
    assert counts.loc["ORG"].tolist() == [0, 1, 1]
    assert entity_table(gold, predicted).to_numpy().tolist()[0] == ["LOC", 0.5, 0.5, 0.5, 2]
    assert [float(score[0]) for score in precision_recall_f1(*counts.loc[["LOC"]].to_numpy().T)] == [0.5, 0.5, 0.5]


def test_without_any_entity_scores_are_0_and_the_right_words_still_count():
    scores = tag_table([["O", "O"], ["O"]], [["O", "O"], ["O"]]).set_index("metric")["value"]
    assert scores.to_dict() == {"entity_f1": 0, "entity_precision": 0, "entity_recall": 0, "accuracy": 1}


def test_the_intervals_are_those_of_drawing_sentences():
    rng = np.random.default_rng(0)
    gold = [["B-PER" if x else "O" for x in rng.random(rng.integers(2, 9)) < 0.3] for _ in range(60)]
    predicted = [[mark if rng.random() < 0.8 else "B-PER" for mark in row] for row in gold]
    table = tag_table(gold, predicted, num_samples=4000).set_index("metric")

    def f1(rows):
        counts = span_counts([gold[i] for i in rows], [predicted[i] for i in rows])[["tp", "num_predicted", "num_gold"]].sum()
        return 2 * counts["tp"] / (counts["num_predicted"] + counts["num_gold"])

    low, high = bootstrap_interval(f1, np.arange(60), num_samples=400)
    assert table.loc["entity_f1", "ci_low"] == pytest.approx(low, abs=0.02)
    assert table.loc["entity_f1", "ci_high"] == pytest.approx(high, abs=0.02)


def test_a_prediction_of_another_length_is_refused():
    with pytest.raises(ValueError, match="row 2: 1 predicted tags for 2 words"):
        span_counts([["O"], ["O", "O"]], [["O"], ["O"]])


def is_legal(tags) -> bool:
    return all(mark[0] != "I" or before[2:] == mark[2:] for before, mark in itertools.pairwise(["O", *tags]))


def test_the_best_legal_tags_are_those_of_trying_all():
    rng = np.random.default_rng(0)
    scores = [rng.normal(size=(length, 5)) * 3 for length in (1, 4, 2, 5, 4, 3)]
    for rows, codes in zip(scores, legal_tags(scores, LABELS), strict=True):
        sequences = [s for s in itertools.product(range(5), repeat=len(rows)) if is_legal([LABELS[i] for i in s])]
        best = max(sequences, key=lambda s, rows=rows: sum(rows[place, code] for place, code in enumerate(s)))
        assert tuple(codes) == best


def test_tags_are_always_legal_for_many_sentences_of_all_lengths():
    rng = np.random.default_rng(1)
    scores = [rng.normal(size=(length, 5)).astype("float32") * 5 for length in (*rng.integers(1, 40, 600), 5000)]
    predicted = legal_tags(scores, LABELS)
    assert [len(codes) for codes in predicted] == [len(rows) for rows in scores]
    assert all(is_legal([LABELS[code] for code in codes]) for codes in predicted)
    np.testing.assert_array_equal(legal_tags(scores[:1], LABELS)[0], predicted[0])
