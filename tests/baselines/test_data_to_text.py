"""Baselines that write texts about records."""

from slm_helpers.baselines.data_to_text import NearestRecord, TemplateWriter

import pandas as pd
import pytest

LAMP = "name: Aurora | type: desk lamp | price: 20 euros"


def test_baselines_fill_in_the_facts():
    template = TemplateWriter({"price": "for {}"}, frames={"gay": ("Look!", "Buy it!")})
    assert template.predict([f"{LAMP} | age: 3 years"], ["gay"]) == ["Look! Aurora is a desk lamp for 20 euros. Age: 3 years. Buy it!"]
    assert template.predict(['Alan Bean : crewMember : "Apollo 12"']) == ["The crew member of Alan Bean is Apollo 12."]
    nearest = NearestRecord().fit([LAMP, "name: X | date: Monday"], ["Aurora: a desk lamp, 20 euros.", "X is on Monday."])
    assert nearest.predict(["name: Bo | type: oil stove | price: 9 euros"]) == ["Bo: an oil stove, 9 euros."]
    assert nearest.predict(["name: Bo | type: oil stove | weight: 2 kg"]) == ["Bo: an oil stove, 2 kg."]
    assert nearest.predict(["name: Bo | type: oil stove"]) == ["Bo: an oil stove,."]


def test_tones_may_be_a_series_and_an_unknown_one_is_named():
    sources, targets, tones = [LAMP, LAMP], ["Look: Aurora!", "Aurora is a lamp."], ["gay", "plain"]
    nearest = NearestRecord().fit(pd.Series(sources), pd.Series(targets), pd.Series(tones, index=[7, 9]))
    assert nearest.predict(pd.Series(["name: Bo"] * 2), pd.Series(["plain", "gay"])) == ["Bo is a lamp.", "Look: Bo!"]
    assert TemplateWriter(frames={"gay": ("Hey!", "")}).predict([LAMP], pd.Series(["gay"]))[0].startswith("Hey! Aurora")
    with pytest.raises(ValueError, match="tone 'rude' is unknown: fit saw 'gay', 'plain'"):
        nearest.predict([LAMP], ["rude"])
