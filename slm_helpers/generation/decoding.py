"""The decoding loop: one step of the model, logits processors, one draw, for many sequences side by side.

Every text that is drawn token by token comes from here: continuations, texts by control codes, constrained texts. The state is carried
along, in ONNX Runtime (`slm_helpers.deploy.engine`) or in NumPy (`slm_helpers.generation.runtime`). `slm_helpers.generation.beam`
searches instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from slm_helpers._numerics import log_softmax
from slm_helpers.generation.processors import LogitsProcessor
from slm_helpers.generation.sampling import Sampler
from slm_helpers.generation.streaming import TextBuilder

import numpy as np

if TYPE_CHECKING:  # Keras is not needed to decode
    from slm_helpers.deploy.engine import LanguageModelEngine
    from slm_helpers.generation.compiled import CompiledRuntime
    from slm_helpers.generation.runtime import Runtime

    AnyRuntime = Runtime | CompiledRuntime | LanguageModelEngine

_BLOCK = 16  # tokens between looks at the text, for streaming and for stop strings
RandomNumbers = Callable[[np.ndarray, int, int], np.ndarray]


def decode(
    runtime: AnyRuntime | GuidedRuntime,
    token_ids: np.ndarray,
    states: list[np.ndarray],
    texts: Sequence[TextBuilder],
    *,
    sampler: Sampler,
    random_numbers: RandomNumbers,
    max_tokens: int,
    end_id: int,
    suppress_token_ids: Sequence[int] = (),
    processors: Sequence[LogitsProcessor] = (),
    with_log_probs: bool = False,
) -> Iterator[None]:
    """Write into the texts, one row each, until all have ended; yields after the first token and then every few tokens.

    Args:
        runtime: The model.
        token_ids: The last token of each prompt, which is read first, int32, shape (rows,).
        states: The states before that token, each of shape (rows, size).
        texts: Where the tokens go; each says itself when it has ended.
        sampler: How a token is drawn.
        random_numbers: (rows, start, number) -> numbers in [0, 1) for that many tokens from the given one on, shape (rows, number).
        max_tokens: Tokens of each text at most.
        end_id: The token that ends a text.
        suppress_token_ids: Tokens that are never drawn.
        processors: Change the logits, in this order.
        with_log_probs: Hand the texts the log-probability of each token too, as the model has it before the processors.
    """
    rows = np.arange(len(texts))  # those still written
    history, gains = np.zeros((len(texts), _BLOCK), dtype="int32"), np.zeros((len(texts), _BLOCK))
    out = np.empty((len(texts), runtime.vocab_size), dtype="float32")
    length = 0
    while length < max_tokens and len(rows):
        num_new = min(_BLOCK if length else 1, max_tokens - length)
        if length + num_new > history.shape[1]:
            history = np.pad(history, ((0, 0), (0, history.shape[1])))
        block_rows, numbers = rows, random_numbers(rows, length, num_new)
        for i in range(num_new):
            features, states = runtime.step(token_ids, states)
            logits = runtime.logits(features, out[: len(rows)])
            logits[:, suppress_token_ids] = -np.inf
            model_logits = logits.copy() if with_log_probs else None
            for process in processors:
                process(logits, history[rows, : length + i], rows)
            token_ids = history[rows, length + i] = sampler.sample(logits, numbers[:, i])
            if with_log_probs:
                gains[rows, i] = np.take_along_axis(log_softmax(model_logits), token_ids[:, None], 1)[:, 0]
            live = token_ids != end_id
            if not live.all():
                rows, token_ids, numbers, states = rows[live], token_ids[live], numbers[live], [state[live] for state in states]
                if not len(rows):
                    break
        for row in block_rows:
            texts[row].add(history[row, length : length + num_new].tolist(), gains[row])
        length += num_new
        yield
        live = np.array([not texts[row].ended for row in rows], dtype=bool)
        if not live.all():
            rows, token_ids, states = rows[live], token_ids[live], [state[live] for state in states]


def random_streams(seed: int, num_rows: int) -> RandomNumbers:
    """Return random numbers with a stream of its own for each row: a text depends on its number and the seed, not on the others.

    They come from NumPy, so every backend writes the same text.
    """
    streams = [np.random.default_rng([seed, row]) for row in range(num_rows)]
    return lambda rows, start, number: np.array([streams[row].random(number) for row in rows])


class GuidedRuntime:
    """A model that reads two prompts side by side and writes one text: classifier-free guidance.

    The log-probabilities are plain + scale * (conditioned - plain), so a scale above 1 stresses what the condition changes. States are
    those of the conditioned prompt followed by those of the plain one; the first token ids may differ: shape (rows, 2).

    Reference:
        Sanchez et al. (2023), "Stay on topic with Classifier-Free Guidance", arXiv:2306.17806.
    """

    def __init__(self, runtime: AnyRuntime, scale: float):
        self.runtime, self.scale, self.vocab_size = runtime, scale, runtime.vocab_size

    def step(self, token_ids: np.ndarray, states: list[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
        """Read one token a row with both states; returns the features of both, one after the other, and the states."""
        pairs = token_ids if token_ids.ndim == 2 else np.stack([token_ids, token_ids], axis=1)
        half, num_rows = len(states) // 2, len(token_ids)
        joined = [np.concatenate(pair) for pair in zip(states[:half], states[half:], strict=True)]
        features, joined = self.runtime.step(pairs.T.reshape(-1), joined)
        return features, [state[:num_rows] for state in joined] + [state[num_rows:] for state in joined]

    def logits(self, features: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Return the combined log-probabilities, shape (rows, vocab_size)."""
        conditioned, plain = np.split(log_softmax(self.runtime.logits(features)), 2)
        return plain + self.scale * (conditioned - plain)
