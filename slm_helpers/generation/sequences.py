"""Decode sequences with an encoder-decoder: greedy or beam search."""

import zlib
from collections.abc import Sequence
from functools import partial
from typing import Any

from slm_helpers._checks import check_positive
from slm_helpers.deploy.engine import EncoderDecoderEngine
from slm_helpers.generation.beam import Hypothesis, beam_search, expand_logits, greedy_search
from slm_helpers.models.rows import map_batches, pad_rows, quiet_retracing

import numpy as np

_BATCH = 64  # sequences decoded side by side


class KerasDecoder:
    """The methods of an `EncoderDecoderEngine` through Keras, to check it by; several times as slow.

    Args:
        model: From `build_encoder_decoder` or `build_pointer_generator`; its present weights are used.
    """

    def __init__(self, model: Any):
        from slm_helpers.models.encoder_decoder import make_decoder_step, make_encoder

        self.builder_config, self.vocab_size = model.builder_config, model.output_shape[-1]
        self._encoder, self._step = make_encoder(model), make_decoder_step(model)

    def encode(self, source_ids: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Read sources; returns the decoder's first states, and what each step reads besides."""
        with quiet_retracing():
            *states, memory = (np.asarray(part) for part in self._encoder.predict_on_batch(source_ids))
        wanted = self._step.inputs[1 + len(states) : -2]
        return states + [np.zeros((len(source_ids), state.shape[-1]), "float32") for state in wanted], [memory, source_ids]

    def expand(self, token_ids: np.ndarray, states: list, fixed: list, num_best: int, penalties: np.ndarray) -> tuple:
        """Write one token a row, as `EncoderDecoderEngine.expand`."""

        def step(token_ids: np.ndarray, states: list[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
            with quiet_retracing():
                logits, *states = (np.asarray(part) for part in self._step.predict_on_batch([token_ids, *states]))
            return logits, states

        return expand_logits(step, np.flatnonzero(np.isneginf(penalties)))(token_ids, states, fixed, num_best)


def decode_sequences(
    model: Any,
    sources: Sequence[np.ndarray],
    *,
    start_id: int,
    end_id: int,
    suppress_token_ids: Sequence[int] = (),
    beam_size: int = 1,
    length_penalty: float = 1.0,
    no_repeat_ngram: int = 0,
    max_ratio: float = 2.0,
    batch_size: int = _BATCH,
) -> list[list[Hypothesis]]:
    """Write the target of each source, side by side and sorted by length.

    Args:
        model: An `EncoderDecoderEngine`, a `KerasDecoder`, or a Keras model from `build_encoder_decoder` or `build_pointer_generator`, of
            whose present weights such an engine is made: it decodes faster than Keras.
        sources: Token ids of each, one at least.
        start_id: What the decoder reads first.
        end_id: What ends a target.
        suppress_token_ids: Token ids that are not written, e.g. padding.
        beam_size: 1 takes the most probable token each time; more searches.
        length_penalty: Of the search, see `beam_search`.
        no_repeat_ngram: Of the search too.
        max_ratio: A target is cut at this many tokens for each of the source, and ten.
        batch_size: Sources taken together.

    Returns:
        For each source, in their order, what was found, best first: one sequence, or `beam_size` of them.
    """
    check_positive(beam_size=beam_size, batch_size=batch_size)
    decoder = model if isinstance(model, EncoderDecoderEngine | KerasDecoder) else _engine_of(model)
    penalties = np.zeros(decoder.vocab_size, "float32")
    penalties[list(suppress_token_ids)] = -np.inf
    order = sorted(range(len(sources)), key=lambda row: len(sources[row]))
    found: list[list[Hypothesis]] = [[] for _ in sources]

    def run(picked: list[int]) -> list[list[Hypothesis]]:
        rows = [sources[row] for row in picked]
        states, fixed = decoder.encode(pad_rows(rows, len(rows)))
        arguments: dict[str, Any] = {"fixed": fixed, "end_id": end_id, "max_tokens": int(10 + max_ratio * len(rows[-1]))}
        expand, first_ids = partial(decoder.expand, penalties=penalties), np.full(len(rows), start_id, "int32")
        if beam_size == 1:
            return [[each] for each in greedy_search(expand, first_ids, states, **arguments)]
        arguments |= {"length_penalty": length_penalty, "no_repeat_ngram": no_repeat_ngram}
        return beam_search(expand, first_ids, states, beam_size=beam_size, **arguments)

    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    for picked, best in zip(batches, map_batches(decoder, run, batches), strict=True):
        for row, hypotheses in zip(picked, best, strict=True):
            found[row] = hypotheses
    return found


def _engine_of(model: Any) -> EncoderDecoderEngine:
    """Return the engine of a Keras model with its present weights; it is made anew if they have changed."""
    from slm_helpers._backend import cached_on, keras

    weights = {weight.path: keras.ops.convert_to_numpy(weight) for weight in model.weights}
    checksum = 0
    for values in weights.values():
        checksum = zlib.adler32(np.ascontiguousarray(values).view("uint8").reshape(-1), checksum)
    kept = cached_on(model, "decoder", dict)
    if checksum not in kept:
        kept.clear()
        kept[checksum] = EncoderDecoderEngine.from_weights(model.builder_config, weights)
    return kept[checksum]
