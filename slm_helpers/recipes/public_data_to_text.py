"""Measure facts to text on a public set, beside its baselines; `public_results` calls it and keeps what it yields.

E2E says some facts in many ways (family friendly: no), so its slot errors are counted by patterns for each fact, in the manner of
Dušek, Howcroft and Rieser (2019), "Semantic Noise Matters for Neural Natural Language Generation", arXiv:1911.03905, though the
patterns are our own. WebNLG's are counted word for word, which is strict: a date in another form counts as missing.
"""

import re
import time
from collections.abc import Callable, Collection, Iterator
from typing import Any

from slm_helpers.baselines.data_to_text import NearestRecord, TemplateWriter
from slm_helpers.data.loading import load_dataset
from slm_helpers.metrics.data_to_text import count_slot_errors, slot_error_table
from slm_helpers.metrics.translation import translation_table
from slm_helpers.models.saved import load_pretrained
from slm_helpers.recipes.publishing import size_of
from slm_helpers.tasks.data_to_text import NUM_CANDIDATES, DataToText
from slm_helpers.text.records import Record, parse_facts, states
from slm_helpers.training.config import TrainConfig

import pandas as pd

BASE = "slm-base-en"
_TEMPERATURES = (0.3, 0.5, 0.7)
_NUM_ASKED = 100  # records of valid that choose among them
_NOT = r"(?:not?\b|n[o']t\b|non\b|isn|aren|adult|unsuitable|unfriendly|avoid|without|against|never)"
_FAMILY = r"(?:famil|kid|child)"
# What in a text states each value; the price of one kind may be worded as that of another.
_WORDINGS = {
    "priceRange": {
        "cheap": r"cheap|inexpensive|low(?:er)?[- ](?:price|cost)|affordable|low prices?\b|prices? (?:range )?(?:is|are) low",
        "less than £20": r"(?:less|under|below|lower|up to|for)\D{0,12}£? ?20(?! ?[-–t])|cheap|inexpensive|low(?:er)?[- ](?:price|cost)",
        "moderate": r"moderate|average(?:ly)?[- ]pric|mid[- -]?(?:range|pric)|reasonabl|medium|fair(?:ly)?[- ]pric|affordable",
        "£20-25": r"20 ?(?:-|–|to|and) ?£? ?25|twenty|moderate",
        "high": r"expensive|high(?:er|ly)?[- ](?:end|pric|cost)|high prices?\b|prices? (?:range )?(?:is|are|of) high|pricey|upscale|costly",
        "more than £30": r"(?:more|over|above|upwards|at least|from)\D{0,12}£? ?30|30 ?(?:\+|plus|or more)|expensive|high[- ](?:end|pric)",
    },
    "customer rating": {
        "low": r"low(?! ?-?pric| ?-?cost)|poor|bad",
        "average": r"average|decent|mediocre|ok\b|okay",
        "high": r"high(?! ?-?pric| ?-?cost|er pric)|excellent|well[- ]rated|great|top",
        "1 out of 5": r"\b(?:1|one)[- ](?:out )?(?:of )?(?:5|five|star)|1/5|low|poor",
        "3 out of 5": r"\b(?:3|three)[- ](?:out )?(?:of )?(?:5|five|star)|3/5|average",
        "5 out of 5": r"\b(?:5|five)[- ](?:out )?(?:of )?(?:5|five|star)|5/5|high|excellent|perfect|top",
    },
    "area": {"city centre": r"cent(?:re|er|ral)|downtown|middle of the city|in the city", "riverside": r"river"},
    "eatType": {"coffee shop": r"coffee|caf[eé](?! (?:rouge|sicilia|brazil|adriatic))", "pub": r"\bpub", "restaurant": r"restaurant"},
    "food": {
        **{kind: kind for kind in ("Chinese", "French", "Italian", "Japanese", "Indian")},
        "English": "english|british",
        "Fast food": "fast[- ]food|food is fast",
    },
}


def check_restaurant(text: str, record: Record) -> tuple[int, int]:
    """Return how many facts of an E2E record a text misses, and how many it adds that the record lacks or has otherwise."""
    given = dict(zip(record.names, record.contents, strict=True))
    text = text.replace("’", "'")
    missing = sum(not states(text, given[name]) for name in ("name", "near") if name in given)
    rest = text.lower()
    for name in ("name", "near"):  # Café Sicilia is no word for coffee, and Raja Indian Cuisine none for food
        rest = rest.replace(given.get(name, "\0").lower(), "~")
    added = 0
    for name, wordings in _WORDINGS.items():
        value = given.get(name)
        stated = value in wordings and re.search(wordings[value], rest, re.IGNORECASE) is not None
        if value is not None and not stated:
            missing += 1
        others = [pattern for other, pattern in wordings.items() if other != value]
        if not stated and name != "eatType":  # "restaurant" is said of pubs too; "average" of prices and ratings
            shared = name in ("priceRange", "customer rating")
            added += value is None and not shared and any(re.search(pattern, rest, re.IGNORECASE) for pattern in others)
        elif name == "food":
            added += any(re.search(pattern, rest, re.IGNORECASE) for pattern in others)
    asked = given.get("familyFriendly")
    found = re.search(_FAMILY, rest)
    refused = bool(re.search(rf"{_NOT}[^.]*{_FAMILY}|{_FAMILY}[^.]{{0,25}}{_NOT}|adults?\b", rest))
    if asked is None:
        added += found is not None or "adults" in rest
    elif not (found or "adult" in rest) or (asked == "no") != refused:
        missing += 1
    return missing, added


CHECKS: dict[str, Callable[[str, Record], tuple[int, int]] | None] = {"e2e_nlg": check_restaurant, "webnlg": None}


class RestaurantTemplate:
    """The sentences that fit nearly every E2E record: written by hand, with a part left out where the fact is."""

    def predict(self, sources: list[str]) -> list[str]:
        """Return one text a record."""
        found = []
        for source in sources:
            record = parse_facts(source)
            given = dict(zip(record.names, record.contents, strict=True))
            friendly = {"yes": "family friendly ", "no": "non family friendly "}.get(given.get("familyFriendly"), "")
            kind = given.get("eatType", "place")
            text = f"{given['name']} is a {friendly}{kind}"
            text += f" serving {given['food']} food" if "food" in given else ""
            text += f" in the {given['priceRange']} price range" if "priceRange" in given else ""
            text += f" located in the {given['area']} area" if "area" in given else ""
            text += f" near {given['near']}" if "near" in given else ""
            text += f". It has a {given['customer rating']} customer rating." if "customer rating" in given else "."
            found.append(text)
        return found


def measure_writing(
    name: str, *, seeds: Collection[int], changes: dict[str, Any], known: Collection[tuple[str, str]]
) -> Iterator[tuple[pd.DataFrame, dict[str, Any]]]:
    """Yield the scores on test of each model that is not known yet (model, seed), and what stands beside them in the table.

    Each record of test gets one text, which is compared with all texts that people wrote for it. Where slot errors can be counted
    by patterns, the network learns from the texts without any, as the paper above advises.
    """
    frame = load_dataset(name)
    parts = {split: frame[frame["split"] == split] for split in ("train", "test")}
    grouped = parts["test"].groupby("source", sort=False)["target"].agg(list)
    sources, targets = grouped.index.tolist(), grouped.tolist()
    records = [parse_facts(source) for source in sources]
    about = {"task": "write", "dataset": name, "split": "test", "train_rows": len(parts["train"])}

    def scores(found: list[str]) -> pd.DataFrame:
        counts = count_slot_errors(found, records, check=CHECKS[name])
        return pd.concat([slot_error_table(counts), translation_table(targets, found)], ignore_index=True)

    if ("people", "42") not in known:  # the first text of each record, against the others
        several = [place for place, right in enumerate(targets) if len(right) > 1]
        first, others = [targets[place][0] for place in several], [targets[place][1:] for place in several]
        counts = count_slot_errors(first, [records[place] for place in several], check=CHECKS[name])
        table = pd.concat([slot_error_table(counts), translation_table(others, first)], ignore_index=True)
        yield table, about | {"model": "people", "seed": 42, "train_seconds": 0.0}
    if ("template", "42") not in known:
        template = RestaurantTemplate() if name == "e2e_nlg" else TemplateWriter()
        yield scores(template.predict(sources)), about | {"model": "template", "seed": 42, "train_seconds": 0.0}
    if ("nearest record", "42") not in known:
        started = time.perf_counter()
        fitted = NearestRecord().fit(parts["train"]["source"].tolist(), parts["train"]["target"].tolist())
        seconds = time.perf_counter() - started
        yield scores(fitted.predict(sources)), about | {"model": "nearest record", "seed": 42, "train_seconds": seconds}
    for seed in seeds:
        ours = {f"{BASE}, one draft": 1, BASE: NUM_CANDIDATES}
        if all((model, str(seed)) in known for model in ours):
            continue
        started = time.perf_counter()
        config = TrainConfig(**changes)
        writer = DataToText(load_pretrained(BASE), config=config, lengths=False, seed=seed)
        writer.fit_frame(_complete(frame[frame["split"] != "test"], CHECKS[name]))
        valid = frame[frame["split"] == "valid"].groupby("source", sort=False)["target"].agg(list)
        temperature = _best_temperature(writer, valid.sample(min(len(valid), _NUM_ASKED), random_state=seed), CHECKS[name])
        seconds = time.perf_counter() - started
        for model, number in ours.items():
            found = [row["prediction"] for row in writer.write(sources, num_candidates=number, temperature=temperature, check=CHECKS[name])]
            more = {"model": model, "seed": seed, "train_seconds": seconds} | size_of(writer.saved_)
            yield scores(found), about | more


def _best_temperature(writer: DataToText, valid: pd.Series, check: Callable[[str, Record], tuple[int, int]] | None) -> float:
    """Return the temperature whose best drafts have the highest BLEU on records of valid."""
    sources, scores = valid.index.tolist(), {}
    for temperature in _TEMPERATURES:
        found = [row["prediction"] for row in writer.write(sources, temperature=temperature, check=check)]
        scores[temperature] = translation_table(valid.tolist(), found, num_samples=1).set_index("metric").loc["bleu", "value"]
    return max(scores, key=scores.get)


def _complete(frame: pd.DataFrame, check: Callable[[str, Record], tuple[int, int]] | None) -> pd.DataFrame:
    """Return the rows whose text states all facts and adds none; all rows where that cannot be told."""
    if check is None:
        return frame
    counts = count_slot_errors(frame["target"].tolist(), [parse_facts(source) for source in frame["source"]], check=check)
    return frame[counts[:, :2].sum(axis=1) == 0]
