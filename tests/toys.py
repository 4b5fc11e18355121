"""Made-up rows that several tests learn from: a few training steps suffice, and what is right is known."""

import numpy as np
import pandas as pd

WORDS = {
    "es": {"the cat": "el gato", "the dog": "el perro", "sees": "ve", "likes": "quiere", "Ada": "Ada", "me": "a mí"},
    "de": {"the cat": "die Katze", "the dog": "der Hund", "sees": "sieht", "likes": "mag", "Ada": "Ada", "me": "mich"},
}
NAMES, COLOURS, THINGS = ["Mia", "Tom", "Ada", "Ben", "Eva"], ["red", "blue", "green", "white"], ["kite", "drum", "boat", "lamp", "ball"]
PEOPLE, PLACES = ["Ada", "Bo", "Cleo", "Dan"], ["Bergen", "Oslo", "Turin", "Lima"]


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


def passages(num_rows: int, *, seed: int = 0, none: bool = True) -> pd.DataFrame:
    """Rows that a few steps suffice to learn: who owns what; every fourth question is about somebody else."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(num_rows):
        names = rng.permutation(NAMES)
        things = [f"a {colour} {thing}" for colour, thing in zip(rng.choice(COLOURS, 3), rng.permutation(THINGS), strict=False)]
        context = " ".join(f"{name} has {thing}." for name, thing in zip(names, things, strict=False))
        known = not none or i % 4 > 0
        who = rng.integers(3) if known else 3
        reply = things[who] if known else ""
        rows.append((context, f"What does {names[who]} have?", reply, context.find(reply) if known else -1))
    return pd.DataFrame(rows, columns=["context", "question", "answer", "answer_start"])


def toy_rows(num_rows: int, *, seed: int = 0) -> pd.DataFrame:
    """Sentences with a person, of one word or two, and mostly a place: a few steps suffice to learn them."""
    rng = np.random.default_rng(seed)
    tokens, tags = [], []
    for i in range(num_rows):
        person, place = rng.choice(PEOPLE), rng.choice(PLACES)
        first = [person, "Moss"] if i % 2 else [person]
        words = ["today", *first, "walks", "to", place, str(i)] if i % 3 else ["so", *first, "sleeps", str(i)]
        marks = ["O", "B-PER", *["I-PER"] * (len(first) - 1), *(["O", "O", "B-LOC", "O"] if i % 3 else ["O", "O"])]
        tokens.append(" ".join(words))
        tags.append(" ".join(marks))
    return pd.DataFrame({"tokens": tokens, "tags": tags})
