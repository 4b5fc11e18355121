"""Slot errors, counted by hand and on the bundled texts."""

from slm_helpers.data.loading import load_dataset
from slm_helpers.metrics.data_to_text import count_slot_errors, invented_terms, missing_values, slot_error_table
from slm_helpers.text.records import delexicalise, fill, parse_facts

LAMP = "name: Aurora | type: desk lamp | price: 20 euros"


def test_bundled_texts_come_back_whole_and_have_hardly_an_error():
    frame = load_dataset("fact_records")
    records = [parse_facts(source) for source in frame["source"]]
    assert [fill(delexicalise(t, r), r) for t, r in zip(frame["target"], records, strict=True)] == frame["target"].tolist()
    counts = count_slot_errors(frame["target"].tolist(), records)
    assert counts[:, 0].sum() == 0 and counts[:, 1].sum() / counts[:, 2].sum() < 0.005


def test_errors_are_counted_by_hand():
    record = parse_facts(LAMP)
    assert missing_values("The Aurora costs 30 euros.", record) == ["desk lamp", "20 euros"]
    assert invented_terms("The Aurora costs 30 euros.", record) == ["30"]
    assert invented_terms("Desk lamp Aurora by Lumo, 20 euros, on Mondays. Buy it! I did. #D", record) == ["#D", "Lumo", "Mondays"]
    counts = count_slot_errors(["Aurora, a desk lamp, 20 euros.", "The Aurora costs 30 euros."], [record, record])
    assert counts.tolist() == [[0, 0, 3], [2, 1, 3]]
    table = slot_error_table(counts).set_index("metric")
    assert table["value"].round(3).tolist() == [0.5, 0.333, 0.167]
    assert table.loc["slot_error_rate", ["ci_low", "ci_high"]].tolist() == [0.0, 1.0]
