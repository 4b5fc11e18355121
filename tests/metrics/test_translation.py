"""BLEU and chrF equal sacrebleu's, with one reference and with several."""

from slm_helpers.metrics.translation import paired_gain, score_of_counts, translation_counts, translation_table

import numpy as np
import pytest


def test_scores_are_those_of_sacrebleu():
    from sacrebleu.metrics import BLEU, CHRF

    rng = np.random.default_rng(0)
    words = ["gato", "perro", "ve", "el", "¿cómo", "estás?", "sí."]
    targets = [" ".join(rng.choice(words, 8)) for _ in range(40)]
    found = [" ".join(word for word in target.split() if rng.random() < 0.8) for target in targets]
    found[0], found[1] = "", "e"  # shorter than the longest n-gram
    table = translation_table(targets, found).set_index("metric")
    assert table.loc["bleu", "value"] == pytest.approx(BLEU().corpus_score(found, [targets]).score)
    assert table.loc["chrf", "value"] == pytest.approx(CHRF().corpus_score(found, [targets]).score)
    assert (table["ci_low"] < table["value"]).all() and (table["value"] < table["ci_high"]).all()
    chinese = ["你好吗", "我很好"]
    assert translation_counts(chinese, chinese, languages=["zh", "zh"])[:, 0].tolist() == [3, 3]
    assert translation_counts(chinese, chinese)[:, 0].tolist() == [1, 1]
    gain, low, high = paired_gain(targets, targets, found)
    assert gain == pytest.approx(100 - table.loc["bleu", "value"]) and 0 < low < gain < high
    assert paired_gain(targets, found, found, metric="chrf") == (0, 0, 0)
    with pytest.raises(ValueError, match="40 targets and 39 predictions"):
        translation_table(targets, found[:-1])


def test_several_right_texts_count_as_sacrebleu_counts_them():
    from sacrebleu.metrics import BLEU, CHRF

    right = [["the cat sat on the mat", "a cat was on the mat"], ["a dog barked at me"]]
    found = ["a cat sat on the mat", "the dog barked at me"]
    streams = [[texts[0] for texts in right], [texts[-1] for texts in right]]
    table = translation_table(right, found, num_samples=5).set_index("metric")["value"]
    assert table["bleu"] == pytest.approx(BLEU(force=True).corpus_score(found, streams).score)
    assert table["chrf"] == pytest.approx(CHRF().corpus_score(found, streams).score)


@pytest.mark.parametrize(("metric", "name"), [("bleu", "BLEU"), ("chrf", "CHRF")])
def test_scores_of_each_sentence_and_of_any_sum_are_those_of_sacrebleu(metric, name):
    import sacrebleu.metrics

    rng = np.random.default_rng(1)
    words = ["The", "owl,", "sat", "on", "a", "roof.", "x", "(yes)", "没有"]
    others, targets, found = ([" ".join(rng.choice(words, size)) for size in rng.integers(0, 9, 30)] for _ in range(3))
    scorer = getattr(sacrebleu.metrics, name)()
    counts = translation_counts(list(zip(targets, others, strict=True)), found, metric=metric)
    for start in range(0, 30, 3):
        picked = slice(start, start + 3)
        expected = scorer.corpus_score(found[picked], [targets[picked], others[picked]]).score
        assert score_of_counts(counts[picked].sum(axis=0), metric=metric) == pytest.approx(expected)
    with pytest.raises(ValueError, match="metric is 'ter', but must be one of 'bleu', 'chrf'"):
        translation_counts(targets, found, metric="ter")
