"""Baselines that write texts about records."""

from slm_helpers.baselines.data_to_text import NearestRecord, TemplateWriter

LAMP = "name: Aurora | type: desk lamp | price: 20 euros"


def test_baselines_fill_in_the_facts():
    template = TemplateWriter({"price": "for {}"}, frames={"gay": ("Look!", "Buy it!")})
    assert template.predict([f"{LAMP} | age: 3 years"], ["gay"]) == ["Look! Aurora is a desk lamp for 20 euros. Age: 3 years. Buy it!"]
    assert template.predict(['Alan Bean : crewMember : "Apollo 12"']) == ["The crew member of Alan Bean is Apollo 12."]
    nearest = NearestRecord().fit([LAMP, "name: X | date: Monday"], ["Aurora: a desk lamp, 20 euros.", "X is on Monday."])
    assert nearest.predict(["name: Bo | type: oil stove | price: 9 euros"]) == ["Bo: an oil stove, 9 euros."]
    assert nearest.predict(["name: Bo | type: oil stove | weight: 2 kg"]) == ["Bo: an oil stove, 2 kg."]
    assert nearest.predict(["name: Bo | type: oil stove"]) == ["Bo: an oil stove,."]
