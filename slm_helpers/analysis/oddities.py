"""Texts that stand out: too predictable or too surprising, in unusual characters, very short or long, mostly template.

All measures compare a text with texts of about its length: short texts have more bits a character, since little is known at their start.
"""

from collections.abc import Sequence

from slm_helpers.generation.generator import TextGenerator
from slm_helpers.generation.opening import open_model
from slm_helpers.models.folders import model_folder

import numpy as np

READ_TOKENS = 64  # of a text that the base model scores
MAX_TOKENS = 160_000  # of all texts together
READ_CHARS = 150  # of a text whose characters are counted, less where there are very many texts
_MOST_CHARS, _LEAST_CHARS = 6_000_000, 40
_MAX_CODE = 4096  # characters told apart, the most frequent ones
_NEIGHBOURS = 20  # length classes


def base_surprisal(texts: Sequence[str], base: str, *, seed: int = 42) -> tuple[np.ndarray, np.ndarray]:
    """Return the bits a character of texts under a language model, and which texts were scored: as many as MAX_TOKENS allow.

    Args:
        texts: None of them empty.
        base: Name or folder of a language model; it runs in ONNX Runtime, without Keras.
        seed: Of the choice of texts.

    Returns:
        float64, one for each text scored; and the positions of these texts, ascending.
    """
    saved = open_model(model_folder(base), task="lm")
    generator = TextGenerator(saved.model, saved.tokenizer)
    order = np.random.default_rng(seed).permutation(len(texts))
    beginnings: list[str] = []
    chosen: list[int] = []
    used = 0
    for start in range(0, len(order), 512):
        some = order[start : start + 512]
        for place, (ids, places) in zip(some, saved.tokenizer.encode_with_places([texts[i][: 8 * READ_TOKENS] for i in some]), strict=True):
            read = min(len(ids), READ_TOKENS)
            if used + read > MAX_TOKENS:
                break
            beginning = texts[place][: int(places[read - 1][1])] if read else ""
            if beginning.strip():
                used += read
                chosen.append(int(place))
                beginnings.append(beginning)
        else:
            continue
        break
    if not chosen:
        return np.zeros(0), np.zeros(0, dtype="int64")
    losses = generator.text_losses(beginnings)
    bits = np.array([loss.astype("float64").sum() / np.log(2) / len(text) for loss, text in zip(losses, beginnings, strict=True)])
    position = np.array(chosen, dtype="int64")
    return bits[np.argsort(position)], np.sort(position)


def character_surprisal(texts: Sequence[str]) -> np.ndarray:
    """Return the bits a character of each text under a model of three characters, learned from all other texts.

    A text's own n-grams are taken out before it is scored (leave one out), so that a strange text is not known by itself. This needs no
    model and knows every language: it finds what is unusual in this collection.
    """
    read = int(np.clip(_MOST_CHARS / max(len(texts), 1), _LEAST_CHARS, READ_CHARS))
    parts = [np.frombuffer(f"\x02\x02{text[:read]}\x03".encode("utf-32-le", "replace"), dtype="<u4") for text in texts]
    lengths = np.array([len(part) for part in parts])
    if not len(parts):
        return np.zeros(0)
    signs, code = np.unique(np.concatenate(parts), return_inverse=True)
    frequent = np.argsort(-np.bincount(code, minlength=len(signs)), kind="stable")[:_MAX_CODE]
    small = np.full(len(signs), len(frequent))
    small[frequent] = np.arange(len(frequent))
    code, size = small[code].astype("int64"), len(frequent) + 1
    text = np.repeat(np.arange(len(parts)), lengths)
    here = np.flatnonzero((np.arange(len(code)) >= 2) & (text == np.roll(text, 2)))
    one, two, three = code[here - 2], code[here - 1], code[here]
    probability = np.full(len(here), 1.0 / size)
    for context in (np.zeros(len(here), "int64"), two + 1, (one * size + two) + size + 1):  # Witten and Bell's interpolation
        total, distinct, joint = _others(context, three, text[here], size)
        probability = (joint + distinct * probability) / np.maximum(total + distinct, 1e-9)
        probability = np.where(total > 0, probability, 1.0 / size)
    bits = np.bincount(text[here], weights=-np.log2(np.maximum(probability, 1e-12)), minlength=len(parts))
    return bits / np.maximum(lengths - 2, 1)


def _others(context: np.ndarray, sign: np.ndarray, text: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return how often the context of each place stands in other texts, how many signs follow it, and how often with this sign."""
    places, where = np.unique(context, return_inverse=True)
    joints, of = np.unique(where.astype("int64") * size + sign, return_inverse=True)
    distinct = np.bincount(joints // size, minlength=len(places))[where]
    num_texts = int(text.max(initial=0)) + 1
    counts = []
    for each, num in ((where, len(places)), (of, len(joints))):
        own, within = np.unique(each.astype("int64") * num_texts + text, return_inverse=True)
        counts.append(np.bincount(each, minlength=num)[each] - np.bincount(within, minlength=len(own))[within])
    return counts[0].astype("float64"), distinct.astype("float64"), counts[1].astype("float64")


def standing(values: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Return by how many robust standard deviations each value differs from the values of texts of about its length.

    Texts are put in order of length and cut into classes; within one, the median is taken off and the median absolute deviation, times
    1.4826, is the unit (Hampel 1974). A class whose values are all alike has 0 everywhere.
    """
    found = np.zeros(len(values))
    order = np.argsort(lengths, kind="stable")
    for part in np.array_split(order, max(1, min(_NEIGHBOURS, len(values) // 100))):
        if len(part):
            off = values[part] - np.median(values[part])
            unit = 1.4826 * np.median(np.abs(off))
            found[part] = off / unit if unit > 1e-9 else 0.0
    return found


def plain_oddities(texts: Sequence[str], lengths: np.ndarray) -> list[list[str]]:
    """Return for each text what is plainly odd about it: no letter, hardly a word, far longer than most, capitals, one thing repeated."""
    usual = float(np.median(lengths)) if len(lengths) else 0.0
    found: list[list[str]] = []
    for text, words in zip(texts, lengths, strict=True):
        reasons: list[str] = []
        beginning = text[:READ_CHARS]
        letters = sum(map(str.isalpha, beginning))
        if not letters:
            reasons.append("no letter")
        elif letters < 0.5 * sum(not sign.isspace() for sign in beginning):
            reasons.append("more signs than letters")
        if words <= 2 and usual >= 6:
            reasons.append("hardly a word")
        if words > 10 * max(usual, 5):
            reasons.append("far longer than most")
        upper = sum(map(str.isupper, beginning))
        if upper > 0.7 * max(letters, 1) and letters >= 20:
            reasons.append("in capitals")
        if words >= 10 and len(set(text[:2000].lower().split())) < 0.25 * len(text[:2000].split()):
            reasons.append("one thing repeated")
        found.append(reasons)
    return found
