"""Drafts of many texts side by side, kept from writing placeholders that would be wrong.

Reference:
    Dušek and Jurčíček (2016), arXiv:1606.05491 (many drafts, the best is kept); Balakrishnan et al. (2019), "Constrained Decoding for
    Neural NLG from Compositional Representations in Task-Oriented Dialogue", arXiv:1906.07220 (what is wrong is not decoded).
"""

from collections.abc import Collection, Sequence

from slm_helpers._backend import keras
from slm_helpers.generation.runtime import Runtime, open_runtime
from slm_helpers.generation.sampling import SamplingRule
from slm_helpers.text.records import Record
from slm_helpers.text.tokenizers import Tokenizer

import numpy as np

_ROWS = 256  # texts drawn side by side
_MAX_TOKENS = 160  # where a text is cut


class PlaceholderGuide:
    """Takes from the scores of the next token what would make a wrong placeholder."""

    def __init__(self, tokenizer: Tokenizer, records: Sequence[Record], repeated: Collection[str] = (), left_out: Collection[str] = ()):
        """Take what may be written of each record.

        Args:
            tokenizer: Of byte-level BPE: every letter is a token.
            records: One for each prompt.
            repeated: Names of facts that may stand twice; others are never drawn again.
            left_out: Names of facts that a text may lack; it does not end before the others stand in it.
        """
        vocabulary = tokenizer.vocabulary
        self.end_id = tokenizer.end_id
        self.opens = np.array([token.endswith("#") for token in vocabulary])
        self.opening_ids = np.flatnonzero(self.opens)
        self.gluing_ids = np.flatnonzero([token[:1].isalnum() for token in vocabulary])  # would make #a a part of a word
        # Letters are bytes, which every vocabulary of pieces has.
        ids = {token: place for place, token in enumerate(vocabulary) if len(token) == 1}
        kinds = [{ids[letter]: name for name, letter in zip(record.names, record.letters, strict=True)} for record in records]
        self.letters = [set(kind) for kind in kinds]
        self.once = [{letter for letter, name in kind.items() if name not in repeated} for kind in kinds]
        self.needed = [{letter for letter, name in kind.items() if name not in left_out} for kind in kinds]

    def mask(self, logits: np.ndarray, record: int, last: Sequence[int], used: set[int]) -> None:
        """Change the scores of one row in place.

        Args:
            logits: Scores of the next token, shape (vocab_size,).
            record: Which of the records.
            last: The last two tokens.
            used: Letters of the facts that stand in the text.
        """
        left = sorted(self.letters[record] - (used & self.once[record]))
        if self.opens[last[-1]] and left:
            kept = logits[left].copy()
            logits[:] = -np.inf
            logits[left] = kept
            return
        if self.opens[last[0]]:
            logits[self.gluing_ids] = -np.inf
        if not left:
            logits[self.opening_ids] = -np.inf
        if not self.needed[record] <= used:
            logits[self.end_id] = -np.inf


def draw_texts(
    model: keras.Model,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    *,
    number: int,
    rule: SamplingRule,
    guide: PlaceholderGuide | None = None,
    seed: int = 42,
) -> list[list[tuple[str, float]]]:
    """Continue many prompts, several times each, side by side up to the end token.

    Args:
        model: A language model.
        tokenizer: Its own.
        prompts: What is read first.
        number: Texts for each.
        rule: How to draw.
        guide: What not to draw; none unless given.
        seed: Same seed, same texts, whichever others are written.

    Returns:
        For each prompt its texts, with the mean log-probability of a token as the model itself has it, the end token among them.
    """
    runtime = open_runtime(model)
    encoded = tokenizer.encode_batch(prompts)
    found: list[list[tuple[str, float]]] = []
    per_call = max(1, _ROWS // number)
    for start in range(0, len(prompts), per_call):
        part = range(start, min(start + per_call, len(prompts)))
        read = []
        for place in part:  # one after the other: they differ in length, and reading is quick
            ids = np.concatenate([[tokenizer.end_id], encoded[place]]).astype("int32")
            read.append((ids[-1], runtime.read(ids[None, :-1], runtime.zero_states(1))[1]))
        ids = np.repeat(np.array([last for last, _ in read], dtype="int32"), number)
        given = [np.repeat(np.concatenate(each), number, axis=0) for each in zip(*(states for _, states in read), strict=True)]
        # A stream of its own for each record: its texts do not depend on which others are written.
        uniforms = np.concatenate([np.random.default_rng([seed, place]).random((number, _MAX_TOKENS)) for place in part])
        texts, scores = _write_rows(runtime, tokenizer, ids, given, uniforms, rule, guide, np.repeat(np.array(part), number))
        found += [
            list(zip(texts[place : place + number], scores[place : place + number], strict=True)) for place in range(0, len(texts), number)
        ]
    return found


def _write_rows(
    runtime: Runtime,
    tokenizer: Tokenizer,
    ids: np.ndarray,
    given: list[np.ndarray],
    uniforms: np.ndarray,
    rule: SamplingRule,
    guide: PlaceholderGuide | None,
    records: np.ndarray,
) -> tuple[list[str], list[float]]:
    """Write a text after each last id and state; returns texts and mean log-probabilities of their tokens."""
    written: list[list[int]] = [[] for _ in ids]
    used: list[set[int]] = [set() for _ in ids]
    totals, rows = np.zeros(len(ids)), np.arange(len(ids))
    for step in range(_MAX_TOKENS):
        features, given = runtime.step(ids, given)
        logits = runtime.logits(features)
        logits[:, [tokenizer.pad_id, tokenizer.unk_id]] = -np.inf
        highest = logits.max(axis=1)
        norms = highest + np.log(np.exp(logits - highest[:, None]).sum(axis=1))
        allowed = logits.copy()
        if guide is not None:
            for place, row in enumerate(rows):
                guide.mask(allowed[place], records[row], ([ids[place]] * 2 + written[row])[-2:], used[row])
        drawn = rule.draw(allowed, uniforms[rows, step], None)
        totals[rows] += logits[np.arange(len(rows)), drawn] - norms
        for place, row in enumerate(rows):
            written[row].append(int(drawn[place]))
            if guide is not None and guide.opens[ids[place]]:
                used[row].add(int(drawn[place]))
        going_on = drawn != tokenizer.end_id
        rows, ids, given = rows[going_on], drawn[going_on], [state[going_on] for state in given]
        if not len(rows):
            break
    texts = [tokenizer.decode(tokens).strip() for tokens in written]
    return texts, [float(total / len(tokens)) for total, tokens in zip(totals, written, strict=True)]
