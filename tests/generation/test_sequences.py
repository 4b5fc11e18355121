"""An encoder-decoder writes the same by the engine without Keras as by Keras, and with the weights that it has now."""

from slm_helpers.generation.opening import open_model
from slm_helpers.generation.sequences import KerasDecoder, decode_sequences
from slm_helpers.models.encoder_decoder import build_encoder_decoder, build_pointer_generator
from slm_helpers.models.saved import save_model

import numpy as np
import pytest

END = 2
BUILD = {
    "attention": lambda: build_encoder_decoder(30, embedding_dim=6, encoder_units=5, units=8),
    "copying": lambda: build_pointer_generator(30, embedding_dim=6, units=8, backward_units=4, memory_dim=5),
}
OPTIONS = {"start_id": END, "end_id": END, "suppress_token_ids": (0, 1), "length_penalty": 0.7, "no_repeat_ngram": 2}


def scrambled(model, seed: int = 0):
    rng = np.random.default_rng(seed)
    model.set_weights([rng.normal(0, 0.6, weight.shape) for weight in model.get_weights()])
    return model


def some_sources() -> list[np.ndarray]:
    rng = np.random.default_rng(4)
    return [rng.integers(3, 30, size).astype("int32") for size in (5, 2, 9, 4, 4)]


@pytest.mark.parametrize("kind", BUILD)
@pytest.mark.parametrize("beam_size", [1, 3])
def test_engine_and_keras_write_the_same(tmp_path, kind, beam_size):
    folder = save_model(tmp_path / "model", scrambled(BUILD[kind]()))
    ways = [open_model(folder).model, open_model(folder, engine="keras").model, scrambled(BUILD[kind]())]
    assert [hasattr(way, "expand") for way in ways] == [True, True, False] and isinstance(ways[1], KerasDecoder)
    first, *others = (decode_sequences(way, some_sources(), beam_size=beam_size, batch_size=3, **OPTIONS) for way in ways)
    assert sum(len(rows) for rows in first) == 5 * beam_size
    for found in others:
        for ours, theirs in zip(first, found, strict=True):
            assert [each.token_ids for each in ours] == [each.token_ids for each in theirs]
            np.testing.assert_allclose([each.log_prob for each in ours], [each.log_prob for each in theirs], atol=1e-4)


def test_weights_that_have_changed_are_seen():
    model = scrambled(BUILD["attention"]())
    before = decode_sequences(model, some_sources(), **OPTIONS)
    assert decode_sequences(model, some_sources(), **OPTIONS) == before
    scrambled(model, seed=1)
    after = decode_sequences(model, some_sources(), **OPTIONS)
    assert after != before and after == decode_sequences(scrambled(BUILD["attention"](), seed=1), some_sources(), **OPTIONS)
