"""Same model, same seed, same text, from one version of the package to the next: what every way of decoding wrote when it was recorded.

`golden.json` was written by `python -m tests.generation.test_same_text`; write it anew only if a text is meant to change.
"""

import json
from pathlib import Path

from slm_helpers.generation.constrained import PlaceholderConstraint, sample_texts
from slm_helpers.generation.control import ControlledGenerator
from slm_helpers.generation.generator import TextGenerator
from slm_helpers.generation.sampling import Sampler
from slm_helpers.generation.sequences import decode_sequences
from slm_helpers.models.encoder_decoder import build_encoder_decoder, build_pointer_generator
from slm_helpers.models.language_model import build_language_model
from slm_helpers.models.saved import SavedModel
from slm_helpers.text.records import parse_facts
from slm_helpers.text.tokenizers import train_bpe_tokenizer

import numpy as np
import pytest

GOLDEN = Path(__file__).with_name("golden.json")
TOKENIZER = train_bpe_tokenizer(["The owl sat on the roof. The owl said nothing at all. name is #a in #b."], vocab_size=300)
PROMPT = "The owl"


def scrambled(model, scale=0.5):
    rng = np.random.default_rng(3)
    model.set_weights([rng.normal(0, scale, weight.shape) for weight in model.get_weights()])
    return model


def language_model(cell="gru"):
    """Return a model of random weights that ends a text after some twenty tokens."""
    sizes = {"embedding_dim": 8, "units": 12, "num_layers": 2, "tie_embeddings": False}
    model = scrambled(build_language_model(TOKENIZER.vocab_size, cell=cell, **sizes))
    bias = model.get_layer("logits").bias
    bias.assign(np.where(np.arange(TOKENIZER.vocab_size) == TOKENIZER.end_id, 1.5, bias))
    return model


def sampled():
    """Continuations by every setting of `TextGenerator.generate`, several samples each."""
    generator = TextGenerator(language_model(), TOKENIZER)
    settings = {
        "plain": {},
        "greedy": {"temperature": 0},
        "warm": {"temperature": 1.5, "num_samples": 3, "seed": 7},
        "top_k": {"top_k": 5, "num_samples": 2},
        "top_p": {"top_p": 0.7, "num_samples": 2},
        "no_end": {"stop_at_end": False, "num_samples": 2},
        "stop": {"stop": ["e", "Th"], "num_samples": 3, "temperature": 1.0},
        "repetition": {"repetition_penalty": 1.4, "repetition_window": 8, "no_repeat_ngram": 2, "num_samples": 2, "temperature": 0.4},
    }
    found = {name: generator.generate(PROMPT, max_tokens=40, **options).token_ids for name, options in settings.items()}
    sampler = Sampler(temperature=0.9, top_p=0.95)
    found["each"] = generator.generate_batch([PROMPT, "", "nothing at all"], sampler=sampler, max_tokens=30, stop="o")
    found["lstm"] = TextGenerator(language_model("lstm"), TOKENIZER).generate(PROMPT, max_tokens=40, num_samples=2).token_ids
    found["beam"] = generator.beam(PROMPT, beam_size=3, max_tokens=20).token_ids
    found["beam_without_end"] = generator.beam("", beam_size=2, max_tokens=20, stop_at_end=False, length_penalty=0).token_ids
    return found


def controlled():
    """Texts by control codes, plain, guided, and with a forced length."""
    settings = {"lines": True, "topics": ["home", "travel"], "unit": "words"}
    writer = ControlledGenerator(SavedModel(model=language_model(), tokenizer=TOKENIZER, settings=settings))
    options = {"max_tokens": 30, "num_samples": 2}
    return {
        "topic": writer.generate(PROMPT, topic="home", **options),
        "guided": writer.generate(PROMPT, topic="home", guidance=2.5, **options),
        "ignored": writer.generate("", topic="travel", words=("owl",), guidance=0, **options),
        "length": writer.generate(PROMPT, length=12, force_length=True, num_samples=2),
        "guided_length": writer.generate(PROMPT, topic="home", length=12, force_length=True, guidance=3, num_samples=2),
    }


def constrained():
    """Texts and their mean log-probabilities, with and without the constraint on placeholders."""
    letters = {"name": "a", "city": "b"}
    records = [parse_facts({"name": "Ada", "city": "Rome"}, letters), parse_facts({"name": "Bo"}, letters)]
    prompts, sampler = ["name = #a; city = #b:", "name = #a:"], Sampler(temperature=0.9)
    found = {}
    for name, guide in (("free", None), ("guided", PlaceholderConstraint(TOKENIZER, records, repeated=("city",)))):
        texts = sample_texts(language_model(), TOKENIZER, prompts, num_samples=3, sampler=sampler, constraint=guide, seed=5)
        found[name] = [[[text, round(score, 3)] for text, score in each] for each in texts]
    return found


def encoded_decoded():
    """Targets of two encoder-decoders, greedy and by beam search."""
    sources = [np.array(TOKENIZER.encode(text)) for text in ("The owl sat", "nothing at all", "roof")]
    found = {}
    for build, sizes in (
        (build_encoder_decoder, {"embedding_dim": 8, "encoder_units": 8, "units": 12}),
        (build_pointer_generator, {"embedding_dim": 8, "units": 12, "backward_units": 6, "memory_dim": 8}),
    ):
        model = scrambled(build(TOKENIZER.vocab_size, **sizes))
        for beam_size in (1, 3):
            options = {"start_id": TOKENIZER.end_id, "end_id": TOKENIZER.end_id, "suppress_token_ids": [0, 1], "max_ratio": 1.5}
            ids = decode_sequences(model, sources, beam_size=beam_size, no_repeat_ngram=2 * (beam_size > 1), **options)
            found[f"{build.__name__}_{beam_size}"] = [[each.token_ids for each in row] for row in ids]
    return found


WAYS = {"sampled": sampled, "controlled": controlled, "constrained": constrained, "encoded_decoded": encoded_decoded}


@pytest.mark.parametrize("way", WAYS)
def test_the_same_is_written_as_when_it_was_recorded(way):
    recorded = json.loads(GOLDEN.read_text(encoding="utf-8"))[way]
    found = json.loads(json.dumps(WAYS[way]()))
    assert found.keys() == recorded.keys()
    for name, value in recorded.items():
        assert found[name] == value, name


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps({way: write() for way, write in WAYS.items()}) + "\n", encoding="utf-8")
