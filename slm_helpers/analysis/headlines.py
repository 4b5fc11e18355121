"""What a person should look at first, in sentences."""

from collections.abc import Iterator
from typing import Any

from slm_helpers.text.languages import NAMES


def find_headlines(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """Return (section of the page, sentence) on each finding; the gravest stand at the top.

    Args:
        facts: Those of an `Exploration`.
    """
    return [*_drift(facts), *_copies(facts), *_texts(facts), *_rows(facts)]


def _drift(facts: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if "drift" in facts:
        drift = facts["drift"]
        yield "drift", drift["verdict"]
        if drift["copies"]:
            yield "drift", f"{_share(drift['copies'], drift['texts'])} of the second file stand in the first too, as they are or nearly."


def _copies(facts: dict[str, Any]) -> Iterator[tuple[str, str]]:
    copies = facts["copies"]
    for split in ("test", "valid"):
        leaked = copies.get(f"{split}_in_train")
        if leaked:
            why = "scores on them show what was learned by heart"
            yield "copies", f"{leaked:,} texts of {split} stand in train too, as they are or nearly: {why}."
    surplus = copies["same_text"] + copies["same_words"] + copies["near"]
    if surplus:
        kinds = f"{copies['same_text']:,} the same text, {copies['same_words']:,} the same words, {copies['near']:,} nearly"
        yield "copies", f"{_share(surplus, facts['texts'])} are copies of an earlier one: {kinds}."
    several = copies.get("groups_with_several_labels")
    if several:
        yield "copies", f"{several:,} groups of copies have several labels: no model can be right on all of them."


def _texts(facts: dict[str, Any]) -> Iterator[tuple[str, str]]:
    num, languages, damage = facts["texts"], facts["languages"], facts["damage"]
    personal = [f"{kind} in {each['texts']:,} text{'s' * (each['texts'] > 1)}" for kind, each in facts["personal_data"].items()]
    if personal:
        yield "personal", f"Likely personal data: {', '.join(personal)}."
    if languages["other_texts"]:
        yield "languages", f"{_share(languages['other_texts'], num)} are not in {NAMES[languages['main']]}."
    if damage["texts"]:
        yield "odd", f"{_share(damage['texts'], num)} are damaged: {', '.join(damage['kinds'])}."
    templates = facts["shared_phrases"]["mostly"]
    if templates:
        yield "copies", f"{_share(templates, num)} are mostly phrases that other texts share (templates, headers, footers)."


def _rows(facts: dict[str, Any]) -> Iterator[tuple[str, str]]:
    labels = facts.get("labels", {})
    if labels.get("contradicted"):
        looked = f"{labels['looked_at']:,} looked at"
        yield "labels", f"{labels['contradicted']:,} labels contradict those of the nearest texts (of {looked})."
    if facts["data"]["left_out"]:
        yield "collection", f"{facts['data']['left_out']:,} of {facts['data']['rows']:,} rows could not be used."


def _share(count: int, total: int) -> str:
    percent = 100 * count / total
    return f"{count:,} of {total:,} texts ({'less than 0.1' if percent < 0.1 else f'{percent:.1f}'} %)"
