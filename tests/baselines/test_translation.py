"""Baselines of translation."""

from slm_helpers.baselines.translation import CopySource, PhraseLookup, build_translation_memory
from tests.toys import toy_pairs


def test_phrases_are_found_and_put_one_after_the_other():
    rows = toy_pairs(["es"])
    lookup = PhraseLookup().fit(rows["source"], rows["target"])
    assert lookup.phrases_[("the", "cat")] == (" el", " gato") or lookup.phrases_[("the", "cat")] == ("el", " gato")
    assert lookup.predict(["Ada sees the dog!", "Bo likes me?"]) == ["Ada ve el perro!", "Bo quiere a mí?"]
    assert build_translation_memory().fit(rows["source"], rows["target"]).predict(["Ada likes the dog!"]) == ["Ada quiere el perro!"]
    assert CopySource().fit([], []).predict(["Ada"]) == ["Ada"]
