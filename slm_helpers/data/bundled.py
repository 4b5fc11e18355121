"""The bundled corpora under data/corpora: what they are called, what they hold, and how their rows become task columns."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from slm_helpers._paths import CORPORA_DIR, check_checkout
from slm_helpers.data.files import atomic_write, read_checked, sha256_of

import pandas as pd

LANGUAGES = ("en", "es", "fr", "de", "zh")


@dataclass(frozen=True)
class Corpus:
    """One bundled corpus: its file, its task, a line about it, and a function from file rows to task rows."""

    file: str
    task: str
    about: str
    rows: Callable[[list[dict[str, Any]]], list[dict[str, Any]]] = lambda rows: rows


def _translation_rows(rows: list[dict]) -> list[dict]:
    """One row per pair and target language; English is the source."""
    return [
        {"id": r["id"], "split": r["split"], "source": r["en"], "target": r[to], "source_language": "en", "target_language": to}
        for r in rows
        for to in LANGUAGES[1:]
        if to in r
    ]


def _question_rows(rows: list[dict]) -> list[dict]:
    """One row per question of a passage."""
    return [
        {"id": q["id"], "split": r["split"], "title": r["title"], "context": r["context"]}
        | {name: q[name] for name in ("question", "answer", "answer_start")}
        for r in rows
        for q in r["questions"]
    ]


def _country_question_rows(rows: list[dict]) -> list[dict]:
    """Every wording asked of every country. A row is held out if its wording is or if its country is.

    `held_out` says which: "" (train), "wording", "country" or "wording and country". Held-out wordings are valid or test by
    the wording's own split; known wordings about held-out countries by the country's.
    """
    wordings = read_checked(CORPORA_DIR / "country_question_wordings.jsonl", _checksums()["country_question_wordings.jsonl"])
    made = []
    for country in rows:
        for wording in wordings:
            held_out = [n for n, s in (("wording", wording["split"]), ("country", country["split"])) if s != "train"]
            name = f"{country['article']} {country['country']}".strip()
            made.append(
                {
                    "split": wording["split"] if wording["split"] != "train" else country["split"],
                    "context": "",
                    "question": wording["wording"].replace("{country}", name)[:1].upper()
                    + wording["wording"].replace("{country}", name)[1:],
                    "answer": country[wording["relation"]],
                    "answer_start": -1,
                    "relation": wording["relation"],
                    "country": country["country"],
                    "held_out": " and ".join(held_out),
                }
            )
    return made


def _fact_rows(rows: list[dict]) -> list[dict]:
    """One row per text; the source writes the facts as `name: Aurora | price: 20 euros`."""
    return [
        {
            "id": r["id"],
            "split": r["split"],
            "kind": r["kind"],
            "tone": t["tone"],
            "facts": r["facts"],
            "source": " | ".join(f"{name}: {value}" for name, value in r["facts"].items()),
            "target": t["text"],
        }
        for r in rows
        for t in r["texts"]
    ]


BUNDLED: dict[str, Corpus] = {
    "stories": Corpus("stories.jsonl", "language_model", "short stories in simple English"),
    "articles": Corpus("articles.jsonl", "language_model", "short articles: news-like, blog-like, how-to"),
    "dialogues": Corpus("dialogues.jsonl", "dialogue", "everyday dialogues of two speakers"),
    "sentiment": Corpus("sentiment.jsonl", "classify", "positive, neutral, negative texts from eight domains"),
    "news_topics": Corpus("news_topics.jsonl", "classify", "news items in five topics"),
    "messages": Corpus("messages.jsonl", "classify", "text messages, ham and spam"),
    "entities": Corpus("entities.jsonl", "tag", "sentences with PER, ORG, LOC, MISC"),
    "passages": Corpus("passages.jsonl", "answer", "passages with questions, some unanswerable", _question_rows),
    "countries": Corpus("countries.jsonl", "answer", "questions on countries, without a passage", _country_question_rows),
    "translations": Corpus("translations.jsonl", "translate", "English to Spanish; a part also French, German, Chinese", _translation_rows),
    "service_intents": Corpus("service_intents.jsonl", "classify", "customer requests in 25 intents, and out-of-scope ones"),
    "service_replies": Corpus("service_replies.jsonl", "classify", "replies for each customer intent"),
    "service_conversations": Corpus("service_conversations.jsonl", "dialogue", "whole customer-service conversations"),
    "voice_commands": Corpus("voice_commands.jsonl", "tag", "spoken commands in 12 intents with slots"),
    "fact_records": Corpus("fact_records.jsonl", "translate", "facts of products, places, events; two texts each", _fact_rows),
    "minimal_pairs": Corpus("minimal_pairs.jsonl", "minimal_pairs", "a sentence and a broken copy of it, in twelve phenomena of English"),
    "students": Corpus("students.csv", "trace", "400 simulated learners on 20 skills (a simulation)"),
}


def load_bundled(name: str) -> pd.DataFrame:
    """Return a bundled corpus as a DataFrame with its task's columns and `split`; its SHA-256 is checked first."""
    corpus = BUNDLED[name]
    rows = corpus.rows(read_checked(CORPORA_DIR / corpus.file, _checksums()[corpus.file]))
    frame = pd.DataFrame([dict(row) for row in rows])
    if name == "students":  # the one CSV among the files: its numbers arrive as text
        frame = frame.astype({"step": int, "correct": int, "mastered": int})
    if name == "service_replies":  # a lookup table without splits
        frame["split"] = "train"
    return frame


def check_bundled() -> pd.DataFrame:
    """Compare every bundled file with its recorded SHA-256; returns one row a file: file, ok."""
    checksums = _checksums()
    return pd.DataFrame(
        [(name, (CORPORA_DIR / name).exists() and sha256_of(CORPORA_DIR / name) == sha) for name, sha in checksums.items()],
        columns=["file", "ok"],
    )


def write_checksums() -> None:
    """Record the SHA-256 of every bundled file (for whoever changes a corpus on purpose)."""
    files = sorted(p for p in CORPORA_DIR.iterdir() if p.suffix in (".jsonl", ".csv"))
    with atomic_write(CORPORA_DIR / "checksums.json") as file:
        json.dump({p.name: sha256_of(p) for p in files}, file, indent=1)
        file.write("\n")


def _checksums() -> dict[str, str]:
    return json.loads((check_checkout(CORPORA_DIR) / "checksums.json").read_text(encoding="utf-8"))


if __name__ == "__main__":
    write_checksums()
