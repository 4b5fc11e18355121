"""Baselines of translation."""

from slm_helpers.baselines.translation import CopySource, PhraseLookup, build_translation_memory

import pandas as pd

WORDS = {
    "es": {"the cat": "el gato", "the dog": "el perro", "sees": "ve", "likes": "quiere", "Ada": "Ada", "me": "a mí"},
    "de": {"the cat": "die Katze", "the dog": "der Hund", "sees": "sieht", "likes": "mag", "Ada": "Ada", "me": "mich"},
}


def toy_pairs(languages=("es", "de")) -> pd.DataFrame:
    """All sentences of who sees or likes whom, in both languages."""
    rows = []
    for who in ("the cat", "the dog", "Ada"):
        for verb in ("sees", "likes"):
            for whom in ("the cat", "the dog", "Ada", "me"):
                for end in (".", "!", "?"):
                    for to in languages:
                        words = [WORDS[to][part] for part in (who, verb, whom)]
                        rows.append((f"{who} {verb} {whom}{end}", " ".join(words) + end, to))
    return pd.DataFrame(rows, columns=["source", "target", "target_language"])


def test_phrases_are_found_and_put_one_after_the_other():
    rows = toy_pairs(["es"])
    lookup = PhraseLookup().fit(rows["source"], rows["target"])
    assert lookup.phrases_[("the", "cat")] == (" el", " gato") or lookup.phrases_[("the", "cat")] == ("el", " gato")
    assert lookup.predict(["Ada sees the dog!", "Bo likes me?"]) == ["Ada ve el perro!", "Bo quiere a mí?"]
    assert build_translation_memory().fit(rows["source"], rows["target"]).predict(["Ada likes the dog!"]) == ["Ada quiere el perro!"]
    assert CopySource().fit([], []).predict(["Ada"]) == ["Ada"]
