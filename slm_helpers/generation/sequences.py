"""Decode sequences with an encoder-decoder: greedy or beam search."""

from collections.abc import Sequence
from typing import Any

from slm_helpers._backend import cached_on, keras
from slm_helpers._checks import check_positive
from slm_helpers.generation.beam import Hypothesis, beam_search, greedy_search
from slm_helpers.models.encoder_decoder import make_decoder_step, make_encoder
from slm_helpers.models.rows import pad_rows, quiet_retracing

import numpy as np

_BATCH = 64  # sequences decoded side by side


def decode_sequences(
    model: keras.Model,
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
        model: From `build_encoder_decoder` or `build_pointer_generator`.
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
    encoder = cached_on(model, "encoder", lambda: make_encoder(model))
    step = cached_on(model, "decoder_step", lambda: make_decoder_step(model))
    order = sorted(range(len(sources)), key=lambda row: len(sources[row]))
    found: list[list[Hypothesis]] = [[] for _ in sources]
    for start in range(0, len(order), batch_size):
        picked = order[start : start + batch_size]
        rows = [sources[row] for row in picked]
        if keras.backend.backend() != "tensorflow":  # which alone takes any number of rows without compiling anew
            rows += rows[-1:] * (min(batch_size, len(order)) - len(rows))
        source_ids = pad_rows(rows, len(rows))
        with quiet_retracing():
            *first, memory = (keras.ops.convert_to_numpy(part) for part in encoder.predict_on_batch(source_ids))
            zeros = [np.zeros((len(rows), state.shape[-1]), "float32") for state in step.inputs[1 + len(first) : -2]]
            arguments: dict[str, Any] = {
                "end_id": end_id,
                "suppress_token_ids": suppress_token_ids,
                "max_tokens": int(10 + max_ratio * len(rows[-1])),
            }
            first_ids, states = np.full(len(rows), start_id, "int32"), [*first, *zeros, memory, source_ids]
            if beam_size == 1:
                best = [[each] for each in greedy_search(step, first_ids, states, **arguments)]
            else:
                arguments |= {"length_penalty": length_penalty, "no_repeat_ngram": no_repeat_ngram}
                best = beam_search(step, first_ids, states, beam_size=beam_size, **arguments)
        for row, hypotheses in zip(picked, best, strict=False):
            found[row] = hypotheses
    return found
