"""What is in a pile of texts, before any model is trained: one call, tables out. `slm explore` writes them as a page.

Every measure says how many texts it looked at: where a collection is large, some look at a random choice. The same texts and seed
give the same numbers.
"""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from slm_helpers.analysis.copies import PHRASE, Copies, find_copies, shared_phrases
from slm_helpers.analysis.drift import Drift, drift_verdict, moved_ngrams, separability
from slm_helpers.analysis.headlines import find_headlines
from slm_helpers.analysis.oddities import base_surprisal, character_surprisal, plain_oddities, standing
from slm_helpers.analysis.periods import to_periods
from slm_helpers.analysis.topics import (
    MAP_TEXTS,
    NEIGHBOURS,
    TRUSTED,
    contradicted_labels,
    draw_map,
    find_topics,
    reduce_dimensions,
    tfidf_matrix,
)
from slm_helpers.analysis.word_table import WordTable, count_ngrams, count_words, frequent_ngrams, typical_ngrams, vocabulary_growth
from slm_helpers.data.checks import describe_problems
from slm_helpers.data.collection import Collection
from slm_helpers.text.damage import find_damage
from slm_helpers.text.languages import FUNCTION_WORDS, NAMES, detect_languages
from slm_helpers.text.personal_data import KINDS, find_personal_data

import numpy as np
import pandas as pd

MIN_TEXTS = 5  # that an n-gram must stand in to be shown: what fewer texts hold may point to one of them
NGRAM_WORDS = 2_000_000  # words of the texts whose n-grams are counted
TOPIC_TEXTS = 20_000  # texts for topics and for the neighbours of labels
MOST_GROUPS = 12
ODD = 4.0  # robust standard deviations
_MOST_ROWS = 1000  # in a CSV of rows to look at


@dataclass
class Exploration:
    """What was found; texts of the data stand in `rows` alone.

    Attributes:
        facts: Numbers and short strings, ready for JSON.
        tables: By name: lengths, languages, growth, ngrams, groups, typical, periods, personal_data, oddities, topics, shifts, moved.
        rows: Tables of rows to look at, one a CSV file: copies, odd_rows, personal_data, shared_phrases, labels.
        map: Columns row, x, y, topic, group, of the texts on the map.
        typical_texts: Columns topic, row, text: the texts that are most of each topic.
        headlines: What to look at first, as (section of the page, sentence).
    """

    facts: dict[str, Any] = field(default_factory=dict)
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    rows: dict[str, pd.DataFrame] = field(default_factory=dict)
    map: pd.DataFrame = field(default_factory=pd.DataFrame)
    typical_texts: pd.DataFrame = field(default_factory=pd.DataFrame)
    headlines: list[tuple[str, str]] = field(default_factory=list)


def explore_texts(
    collection: Collection,
    against: Collection | None = None,
    *,
    base: str | None = "slm-base-en",
    num_topics: int | None = None,
    seed: int = 42,
    say: Callable[[str], None] = lambda line: None,
) -> Exploration:
    """Look at a collection from all sides.

    Args:
        collection: From `load_collection`.
        against: A later or other collection, to see how it differs from the first.
        base: The language model whose surprisal marks odd texts; None to do without.
        num_topics: 2 to 12 by the number of texts unless given.
        seed: Of every random choice.
        say: Gets a line before each step.
    """
    started = time.perf_counter()
    found = Exploration()
    texts = collection.frame["text"].tolist()
    num = len(texts)
    say(f"{num:,} texts: words and copies")
    others = against.frame["text"].tolist() if against is not None else []
    everything = count_words([*texts, *others])
    all_copies = find_copies([*texts, *others], everything, seed=seed)
    table = everything.take(np.arange(num))
    copies = Copies(all_copies.group[:num], all_copies.first[:num], all_copies.kind[:num], all_copies.similarity[:num])
    look = _Look(collection, texts, table, copies, seed, found)
    found.facts = {
        "data": _about(collection),
        "seed": seed,
        "texts": num,
        "notes": [*collection.notes, *_problems(collection)],
    }
    _lengths(look)
    _languages(look)
    _vocabulary(look)
    _groups(look)
    _copies(look)
    say("odd texts, damage and personal data")
    _personal_data(look)
    _oddities(look, base)
    say("topics and map")
    _topics_and_labels(look, num_topics)
    if against is not None:
        say("drift")
        _drift(look, against, others, all_copies)
    found.headlines = find_headlines(found.facts)
    found.facts["headlines"] = [sentence for _, sentence in found.headlines]
    found.facts["seconds"] = round(time.perf_counter() - started, 2)
    return found


@dataclass
class _Look:
    """What the steps share; each adds to `found`."""

    collection: Collection
    texts: list[str]
    table: WordTable
    copies: Copies
    seed: int
    found: Exploration
    languages: list[str] = field(default_factory=list)
    phrase_shares: np.ndarray = field(default_factory=lambda: np.zeros(0))

    @property
    def frame(self) -> pd.DataFrame:
        return self.collection.frame

    def rows_at(self, positions: np.ndarray, **columns: Any) -> pd.DataFrame:
        """Return a table of rows of the data: row, where, further columns, text."""
        part = self.frame.iloc[positions]
        return pd.DataFrame({"row": part["row"].to_numpy(), "where": part["where"].to_numpy(), **columns, "text": part["text"].to_numpy()})

    def sample(self, positions: np.ndarray, most: int, *, draw: int) -> np.ndarray:
        """Return at most so many of some positions, drawn at random, ascending."""
        if len(positions) <= most:
            return positions
        return np.sort(np.random.default_rng([self.seed, draw]).choice(positions, most, replace=False))


def _about(collection: Collection) -> dict[str, Any]:
    return {
        "file": collection.name.replace("\\", "/").rsplit("/", 1)[-1],
        "columns": collection.columns,
        "rows": collection.num_rows,
        "left_out": len(collection.skipped),
        "repaired": len(collection.repaired),
    }


def _problems(collection: Collection) -> list[str]:
    """Return what `describe_problems` says of labels, and of nothing that is looked at more closely here."""
    if "label" not in collection.frame:
        return []
    return describe_problems(collection.frame[["text", "label"]].assign(split="train"), task="classify", show_texts=False)


def _lengths(look: _Look) -> None:
    words, chars = look.table.lengths, np.array([len(text) for text in look.texts])
    shares = [0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0]
    quantiles = {"share of texts that are no longer": shares, "words": np.quantile(words, shares), "characters": np.quantile(chars, shares)}
    look.found.tables["lengths"] = pd.DataFrame(quantiles)
    look.found.facts["words"] = {"total": int(words.sum()), "median": float(np.median(words)), "longest": int(words.max())}
    look.found.facts["characters"] = {"total": int(chars.sum()), "median": float(np.median(chars)), "longest": int(chars.max())}
    edges = np.unique(np.geomspace(max(int(words.min()), 1), max(int(words.max()), 2) + 1, 16).astype("int64"))
    counts, _ = np.histogram(np.maximum(words, 1), bins=[*edges[:-1], edges[-1] + 1])
    names = [
        f"{low}" if high - low == 1 else f"{low}–{high - 1}" for low, high in zip(edges[:-1], [*edges[1:-1], edges[-1] + 1], strict=True)
    ]
    look.found.tables["length_classes"] = pd.DataFrame({"words": names, "texts": counts})


def _languages(look: _Look) -> None:
    look.languages = detect_languages(look.texts)
    counts = Counter(look.languages)
    table = pd.DataFrame([{"language": NAMES[code], "code": code, "texts": count} for code, count in counts.most_common()])
    look.found.tables["languages"] = table.assign(share=table["texts"] / len(look.texts))
    told = [(count, code) for code, count in counts.items() if code]
    main = max(told, default=(0, ""))
    others = sum(count for count, code in told if code != main[1])
    look.found.facts["languages"] = {"counts": {code or "not told": count for code, count in counts.most_common()}}
    look.found.facts["languages"] |= {"main": main[1], "other_texts": others}


def _vocabulary(look: _Look) -> None:
    curve, law = vocabulary_growth(look.table, seed=look.seed)
    look.found.tables["growth"] = curve
    once = int((np.bincount(look.table.ids, minlength=len(look.table.vocabulary)) == 1).sum())
    distinct = int((np.bincount(look.table.ids, minlength=len(look.table.vocabulary)) > 0).sum())
    look.found.facts["vocabulary"] = {"distinct": distinct, "once": once} | law


def _groups(look: _Look) -> None:
    """Count n-grams in all texts, by group and by period; copies count once."""
    found, frame = look.found, look.frame
    positions = np.flatnonzero(look.copies.first)
    positions = positions[np.random.default_rng([look.seed, 1]).permutation(len(positions))]
    enough = np.searchsorted(np.cumsum(look.table.lengths[positions]), NGRAM_WORDS) + 1
    positions = np.sort(positions[:enough])
    part = look.table.take(positions)
    name = next((each for each in ("group", "label", "split") if each in frame), None)
    codes, names = _largest_groups(frame[name]) if name else (np.zeros(len(frame), "int64"), ["all"])
    ngrams = count_ngrams(part, codes[positions], len(names), min_texts=MIN_TEXTS)
    found.tables["ngrams"] = frequent_ngrams(ngrams, plain_words=FUNCTION_WORDS)
    found.facts["ngrams"] = {"texts": len(positions), "frequent": found.tables["ngrams"].head(10)["ngram"].tolist()}
    lengths = pd.Series(look.table.lengths)
    if name and len(names) > 1:
        found.facts["groups"] = {"column": look.collection.columns.get(name, name), "kind": name, "values": int(frame[name].nunique())}
        counted = lengths.groupby(codes).agg(["size", "median"])
        counted = counted.set_axis([names[code] for code in counted.index]).rename(columns={"size": "texts", "median": "median words"})
        found.tables["groups"] = counted.rename_axis("group").reset_index().sort_values("texts", ascending=False, kind="stable")
        found.tables["typical"] = typical_ngrams(ngrams, names, np.bincount(codes[positions], minlength=len(names)))
    if "time" in frame:
        period, names, told = to_periods(frame["time"].tolist())
        found.facts["time"] = {"column": look.collection.columns["time"], "periods": names, "not_understood": int((period < 0).sum())}
        if told:
            found.facts["notes"].append(told)
        if len(names) > 1:
            known = positions[period[positions] >= 0]
            ngrams = count_ngrams(look.table.take(known), period[known], len(names), longest=2, min_texts=MIN_TEXTS)
            counts = np.bincount(period[period >= 0], minlength=len(names))
            medians = lengths[period >= 0].groupby(period[period >= 0]).median().reindex(range(len(names)))
            found.tables["periods"] = pd.DataFrame({"period": names, "texts": counts, "median words": medians.to_numpy()})
            found.tables["typical_of_periods"] = typical_ngrams(ngrams, names, np.bincount(period[known], minlength=len(names)), num=6)


def _largest_groups(values: pd.Series) -> tuple[np.ndarray, list[str]]:
    """Return a code for each value and the names: the most frequent values, and "(others)" for the rest."""
    counts = values.value_counts()
    counts = counts.iloc[np.lexsort((counts.index.astype(str), -counts.to_numpy()))]
    names = counts.index[: MOST_GROUPS - (len(counts) > MOST_GROUPS)].tolist()
    codes = values.map({name: code for code, name in enumerate(names)})
    if len(counts) > len(names):
        codes, names = codes.fillna(len(names)), [*names, "(others)"]
    return codes.to_numpy(dtype="int64"), names


def _copies(look: _Look) -> None:
    copies, frame = look.copies, look.frame
    sizes = np.bincount(copies.group)
    kinds = Counter(copies.kind[copies.kind != ""])
    facts = {"groups": int((sizes > 1).sum()), "largest": int(sizes.max())} | {
        name: int(kinds[kind]) for name, kind in (("same_text", "same text"), ("same_words", "same words"), ("near", "near copy"))
    }
    positions = np.flatnonzero(sizes[copies.group] > 1)
    positions = positions[np.lexsort((positions, copies.group[positions], -sizes[copies.group[positions]]))][:_MOST_ROWS]
    columns = {"group": copies.group[positions] + 1, "copies": sizes[copies.group[positions]]}
    columns |= {
        "kind": np.where(copies.kind[positions] == "", "first", copies.kind[positions]),
        "similarity": copies.similarity[positions].round(3),
    }
    look.found.rows["copies"] = look.rows_at(positions, **columns)
    if "split" in frame:
        in_train = np.bincount(copies.group, weights=(frame["split"] == "train").to_numpy()) > 0
        for split in ("valid", "test"):
            own = (frame["split"] == split).to_numpy()
            if own.any() and in_train.any():
                facts[f"{split}_in_train"] = int(in_train[copies.group[own]].sum())
    if "label" in frame:
        labels = frame["label"].groupby(copies.group).nunique()
        facts["groups_with_several_labels"] = int((labels > 1).sum())
    look.found.facts["copies"] = facts
    look.phrase_shares, phrases = shared_phrases(look.table, copies, min_texts=MIN_TEXTS)
    words = look.table.vocabulary
    shown = [
        {"texts": num, "phrase": " ".join(words[each] for each in look.table.ids[start : start + PHRASE])}
        for text, first, num in phrases
        for start in [look.table.offsets[text] + first]
    ]
    look.found.rows["shared_phrases"] = pd.DataFrame(shown, columns=["texts", "phrase"])
    facts = {"phrases": len(shown), "texts_with_one": int((look.phrase_shares > 0).sum()), "mostly": int((look.phrase_shares > 0.5).sum())}
    look.found.facts["shared_phrases"] = facts


def _personal_data(look: _Look) -> None:
    rows = []
    for position, text in enumerate(look.texts):
        rows += [(position, finding.kind, text[finding.start : finding.end]) for finding in find_personal_data(text)]
    positions = np.array([row[0] for row in rows], dtype="int64")
    kinds = np.array([row[1] for row in rows], dtype=object)
    values = np.array([row[2] for row in rows], dtype=object)
    table = [
        {
            "kind": kind,
            "found": int((kinds == kind).sum()),
            "different": len(set(values[kinds == kind])),
            "texts": len(set(positions[kinds == kind])),
        }
        for kind in KINDS
    ]
    look.found.tables["personal_data"] = pd.DataFrame(table)
    look.found.facts["personal_data"] = {row["kind"]: {"found": row["found"], "texts": row["texts"]} for row in table if row["found"]}
    look.found.rows["personal_data"] = look.rows_at(positions, kind=kinds, found=values).head(20 * _MOST_ROWS)


def _oddities(look: _Look, base: str | None) -> None:
    """Put all reasons why a text stands out beside it, and count them."""
    texts, found = look.texts, look.found
    chars = np.array([len(text) for text in texts])
    reasons = plain_oddities(texts, look.table.lengths)
    damaged = [find_damage(text) for text in texts]
    main = found.facts["languages"]["main"]
    scores = np.zeros(len(texts))
    for position, (damage, language) in enumerate(zip(damaged, look.languages, strict=True)):
        reasons[position] += [f"damage: {kind}" for kind in damage]
        if language and language != main:
            reasons[position].append(f"not in {NAMES[main]}: {NAMES[language]}")
        if look.phrase_shares[position] > 0.5:
            reasons[position].append("mostly shared phrases")
    unusual = standing(character_surprisal(texts), chars)
    for position in np.flatnonzero(unusual > ODD):
        reasons[position].append("unusual characters or spelling")
    scores = np.maximum(scores, np.where(unusual > ODD, unusual, 0))
    found.facts["surprisal"] = {"model": None, "texts": 0}
    readable = np.array([i for i, code in enumerate(look.languages) if code in ("", "en") and texts[i].strip()], dtype="int64")
    if base is not None and main in ("en", "") and len(readable) >= 20:
        bits, place = base_surprisal([texts[i] for i in readable], base, seed=look.seed)
        place = readable[place]
        high = standing(bits, np.minimum(chars[place], 300))
        for sign, name in ((1, "surprising for the base model"), (-1, "very predictable for the base model")):
            for position in place[sign * high > ODD]:
                reasons[position].append(name)
        scores[place] = np.maximum(scores[place], np.where(np.abs(high) > ODD, np.abs(high), 0))
        found.facts["surprisal"] = {
            "model": str(base).replace("\\", "/").rsplit("/", 1)[-1],
            "texts": len(place),
            "bits_per_char": float(np.median(bits)),
        }
    counts = Counter(reason for row in reasons for reason in row)
    damage_counts = {kind: count for kind, count in counts.items() if kind.startswith("damage: ")}
    found.tables["oddities"] = pd.DataFrame(sorted(counts.items(), key=lambda item: (-item[1], item[0])), columns=["reason", "texts"])
    odd = np.array([position for position, row in enumerate(reasons) if row], dtype="int64")
    strength = np.array([len(reasons[position]) for position in odd])
    odd = odd[np.lexsort((odd, -scores[odd], -strength))]
    found.facts["oddities"] = {"texts": len(odd), "reasons": dict(found.tables["oddities"].itertuples(index=False))}
    found.facts["damage"] = {
        "texts": sum(map(bool, damaged)),
        "kinds": {kind.removeprefix("damage: "): n for kind, n in damage_counts.items()},
    }
    listed = odd[:_MOST_ROWS]
    why = ["; ".join(reasons[position]) for position in listed]
    found.rows["odd_rows"] = look.rows_at(listed, reasons=why, score=scores[listed].round(2))


def _topics_and_labels(look: _Look, num_topics: int | None) -> None:
    found, frame = look.found, look.frame
    positions = look.sample(np.flatnonzero(look.copies.first), TOPIC_TEXTS, draw=2)
    part = look.table.take(positions)
    matrix, words = tfidf_matrix(part, min_texts=MIN_TEXTS, content_only=True)
    topics = find_topics(matrix, words, num_topics=num_topics, seed=look.seed)
    found.tables["topics"] = topics.table
    found.facts["topics"] = {"texts": len(positions), "without": int((topics.topic == 0).sum()), "topics": topics.table.to_dict("records")}
    typical = [(topic, positions[place]) for topic, places in topics.typical.items() for place in places]
    shown = look.rows_at(np.array([position for _, position in typical], dtype="int64"))
    found.typical_texts = shown.assign(topic=[topic for topic, _ in typical])
    plain, _ = tfidf_matrix(part)
    vectors = reduce_dimensions(plain, seed=look.seed)
    kept = np.array([place for place in np.isin(positions, [position for _, position in typical]).nonzero()[0]], dtype="int64")
    rest = look.sample(np.setdiff1d(np.arange(len(positions)), kept), max(0, MAP_TEXTS - len(kept)), draw=3)
    on_map = np.sort(np.concatenate([kept, rest])).astype("int64")
    places, method, trust = draw_map(vectors[on_map], seed=look.seed)
    name = next((each for each in ("group", "label", "split") if each in frame), None)
    group = frame[name].to_numpy()[positions[on_map]] if name else np.full(len(on_map), "")
    rows = frame["row"].to_numpy()[positions[on_map]]
    found.map = pd.DataFrame({"row": rows, "x": places[:, 0], "y": places[:, 1], "topic": topics.topic[on_map], "group": group})
    found.facts["map"] = {"texts": len(on_map), "method": method, "trustworthiness": round(trust, 3) if trust == trust else None}
    if "label" in frame:
        _labels(look, vectors, positions)


def _labels(look: _Look, vectors: np.ndarray, positions: np.ndarray) -> None:
    """Compare labels with those of the nearest texts, without rows that have no label."""
    labels = look.frame["label"].to_numpy()[positions]
    known = np.flatnonzero(labels != "(none)")
    counts = pd.Series(labels[known]).value_counts()
    look.found.facts["labels"] = {"classes": len(counts), "looked_at": len(known)}
    if len(counts) < 2 or len(known) < 3 * NEIGHBOURS:
        return
    result = contradicted_labels(vectors[known], labels[known])
    facts = {"agreement": result.agreement, "by_chance": result.chance, "kappa": result.kappa, "trusted": result.kappa >= TRUSTED}
    look.found.facts["labels"] |= facts | {"contradicted": len(result.table) if facts["trusted"] else None}
    if facts["trusted"]:
        table = result.table.head(_MOST_ROWS)
        columns = {name: table[name].to_numpy() for name in ("label", "suggested", "own", "others")}
        look.found.rows["labels"] = look.rows_at(positions[known[table["position"]]], **columns)


def _drift(look: _Look, against: Collection, others: Sequence[str], copies: Copies) -> None:
    texts, num = look.texts, len(look.texts)
    values = separability(texts, others, copies.group, seed=look.seed)
    verdict = drift_verdict(*values)
    in_first = np.zeros(copies.group.max() + 1, dtype=bool)
    in_first[copies.group[:num]] = True
    languages = detect_languages(others)
    main = look.found.facts["languages"]["main"]
    words = count_words(others).lengths
    shifts = [
        ("texts", num, len(others)),
        ("median words a text", float(np.median(look.table.lengths)), float(np.median(words))),
        ("95 % of texts have at most so many words", float(np.quantile(look.table.lengths, 0.95)), float(np.quantile(words, 0.95))),
        (
            f"share of texts in {NAMES[main] if main else 'no language that was told'}",
            look.languages.count(main) / num,
            languages.count(main) / len(others),
        ),
    ]
    if "label" in look.frame and "label" in against.frame:
        shares = [frame["label"].value_counts(normalize=True) for frame in (look.frame, against.frame)]
        moved = shares[1].reindex(shares[0].index.union(shares[1].index)).fillna(0) - shares[0].reindex(
            shares[0].index.union(shares[1].index)
        ).fillna(0)
        for label in moved.abs().sort_values(ascending=False, kind="stable").index[:5]:
            shifts.append((f"share of label {label!r}", float(shares[0].get(label, 0.0)), float(shares[1].get(label, 0.0))))
    firsts = copies.first[:num]
    unique = [text for text, first in zip(texts, firsts, strict=True) if first]
    drift = Drift(
        *values,
        verdict,
        moved_ngrams(*(_some(each, look.seed) for each in (unique, others)), min_texts=MIN_TEXTS),
        pd.DataFrame(shifts, columns=["measure", "first", "second"]),
        int(in_first[copies.group[num:]].sum()),
    )
    look.found.tables["moved"], look.found.tables["shifts"] = drift.moved, drift.shifts
    look.found.facts["drift"] = {
        "data": _about(against),
        "texts": len(others),
        "auc": {"value": drift.auc, "ci_low": drift.ci_low, "ci_high": drift.ci_high},
        "tested": drift.num_tested,
        "verdict": drift.verdict,
        "copies": drift.copies,
        "shifts": drift.shifts.to_dict("records"),
        "moved": drift.moved.head(40).to_dict("records"),
    }


def _some(texts: Sequence[str], seed: int) -> list[str]:
    """Return so many texts, drawn at random, that their words are about half of NGRAM_WORDS."""
    order = np.random.default_rng([seed, 4]).permutation(len(texts))
    sizes = np.cumsum([len(texts[place]) // 6 + 1 for place in order])
    return [texts[place] for place in np.sort(order[: int(np.searchsorted(sizes, NGRAM_WORDS)) + 1])]
