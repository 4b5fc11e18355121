"""Constrained decoding: many samples side by side that hold no placeholder which would be wrong.

Reference:
    Dušek and Jurčíček (2016), arXiv:1606.05491 (many samples, the best is taken); Balakrishnan et al. (2019), "Constrained Decoding for
    Neural NLG from Compositional Representations in Task-Oriented Dialogue", arXiv:1906.07220 (what is wrong is not decoded).
"""

from collections.abc import Collection, Sequence
from typing import Any

from slm_helpers._checks import check_positive
from slm_helpers._threads import single_blas_thread
from slm_helpers.generation.generator import TextGenerator
from slm_helpers.generation.sampling import Sampler
from slm_helpers.text.records import Record
from slm_helpers.text.tokenizers import Tokenizer

import numpy as np

_ROWS = 256  # texts sampled side by side
_MAX_TOKENS = 160  # where a text is cut


class PlaceholderConstraint:
    """Rules out tokens that would make a wrong placeholder: one without a value, one that stands there already, an end too early."""

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
        # Letters are bytes, which every vocabulary of subwords has.
        ids = {token: token_id for token_id, token in enumerate(vocabulary) if len(token) == 1}
        kinds = [{ids[letter]: name for name, letter in zip(record.names, record.letters, strict=True)} for record in records]
        self.letters = [set(kind) for kind in kinds]
        self.once = [{letter for letter, name in kind.items() if name not in repeated} for kind in kinds]
        self.needed = [{letter for letter, name in kind.items() if name not in left_out} for kind in kinds]

    def __call__(self, logits: np.ndarray, token_ids: np.ndarray, records: np.ndarray) -> None:
        """Change the logits in place; `records` says which record each row is of."""
        opened = self.opens[token_ids]
        for row, record in enumerate(records):
            used = set(token_ids[row, 1:][opened[row, :-1]].tolist())
            self._constrain(logits[row], int(record), opened[row, -2:].tolist(), used)

    def _constrain(self, logits: np.ndarray, record: int, opened: list[bool], used: set[int]) -> None:
        """Change one row: `opened` says of the last two tokens whether a placeholder begins there; `used` are letters in the text."""
        left = sorted(self.letters[record] - (used & self.once[record]))
        if opened[-1:] == [True] and left:
            allowed = logits[left].copy()
            logits[:] = -np.inf
            logits[left] = allowed
            return
        if opened[-2:-1] == [True]:
            logits[self.gluing_ids] = -np.inf
        if not left:
            logits[self.opening_ids] = -np.inf
        if not self.needed[record] <= used:
            logits[self.end_id] = -np.inf


def sample_texts(
    model: Any,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    *,
    num_samples: int,
    sampler: Sampler,
    constraint: PlaceholderConstraint | None = None,
    seed: int = 42,
) -> list[list[tuple[str, float]]]:
    """Continue many prompts, several times each, side by side up to the end token.

    Args:
        model: A language model, as `TextGenerator` takes it.
        tokenizer: Its own.
        prompts: What is read first.
        num_samples: Texts for each.
        sampler: How a token is drawn.
        constraint: What not to draw; none unless given.
        seed: Same seed, same texts, whichever others are written.

    Returns:
        For each prompt its texts, with the mean log-probability of a token as the model itself has it, the end token among them.
    """
    check_positive(num_samples=num_samples)
    generator = TextGenerator(model, tokenizer)
    samples: list[list[tuple[str, float]]] = []
    per_call = max(1, _ROWS // num_samples)
    for start in range(0, len(prompts), per_call):
        part = np.arange(start, min(start + per_call, len(prompts)))
        records = np.repeat(part, num_samples)
        # A stream of its own for each record: its texts do not depend on which others are written.
        numbers = np.concatenate([np.random.default_rng([seed, record]).random((num_samples, _MAX_TOKENS)) for record in part])
        with single_blas_thread():
            runtime, ids, states = generator.read_prompts([prompts[record] for record in part])
            texts = generator.decode(
                runtime,
                np.repeat(ids, num_samples),
                [np.repeat(state, num_samples, axis=0) for state in states],
                sampler=sampler,
                random_numbers=lambda rows, first, number, numbers=numbers: numbers[rows, first : first + number],
                max_tokens=_MAX_TOKENS,
                processors=[] if constraint is None else [lambda logits, ids, rows, of=records: constraint(logits, ids, of[rows])],
                with_log_probs=True,
            )
        scored = [(text.text.strip(), text.log_prob / text.num_scored) for text in texts]
        samples += [scored[first : first + num_samples] for first in range(0, len(scored), num_samples)]
    return samples
