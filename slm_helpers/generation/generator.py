"""Use a language model: continue a text, by sampling or by beam search, and score a text."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from numbers import Integral
from typing import TYPE_CHECKING, Any

from slm_helpers._checks import check_positive
from slm_helpers._threads import single_blas_thread
from slm_helpers.deploy.engine import LanguageModelEngine
from slm_helpers.generation.beam import beam_search, expand_logits
from slm_helpers.generation.decoding import GuidedRuntime, RandomNumbers, decode, random_streams
from slm_helpers.generation.processors import LogitsProcessor, repetition_processors
from slm_helpers.generation.runtime import Runtime, open_runtime
from slm_helpers.generation.sampling import Sampler
from slm_helpers.generation.scoring import sequence_losses
from slm_helpers.generation.streaming import TextBuilder, check_stops
from slm_helpers.metrics.language_model import bits_per_byte, bits_per_char
from slm_helpers.text.tokenizers import Tokenizer

import numpy as np

if TYPE_CHECKING:  # Keras is not needed to use a model that runs without it
    from slm_helpers._backend import keras
    from slm_helpers.generation.decoding import AnyRuntime

MAX_PROMPT_TOKENS = 100_000
MAX_SAMPLES = 4096  # written side by side: their logits and states are held at once
_READ_CHUNK = 1024  # tokens of a prompt read in one call


@dataclass
class Generation:
    """What `TextGenerator.generate` and `TextGenerator.beam` return."""

    samples: list[str]  # continuations, without the prompt
    prompt: str
    num_tokens: int  # over all samples
    first_token_seconds: float
    seconds: float
    token_ids: list[list[int]] = field(repr=False, default_factory=list)
    scores: list[float] = field(default_factory=list)  # of beam search: log-probability over the length penalty

    @property
    def tokens_per_second(self) -> float:
        """Tokens of all samples together per second, the prompt's reading included."""
        return self.num_tokens / self.seconds


class TextGenerator:
    """Continue and score texts with a language model and its tokeniser."""

    def __init__(self, model: keras.Model | LanguageModelEngine | Runtime, tokenizer: Tokenizer, *, compiled: bool = False):
        """Bring a model and its tokeniser together.

        Args:
            model: From `build_language_model`: its weights are read anew by each call, so it may be trained in between. Or what runs
                without Keras, from `slm_helpers.generation.opening.open_model`.
            tokenizer: The one the model was trained with.
            compiled: Run a Keras model as Keras compiles it, to check the others by; else in NumPy, where all its layers have a form.
        """
        vocab_size = model.vocab_size if isinstance(model, LanguageModelEngine | Runtime) else model.output_shape[-1]
        if tokenizer.vocab_size != vocab_size:
            raise ValueError(
                f"The tokeniser has {tokenizer.vocab_size} ids, but the model scores {vocab_size}. "
                "Use the tokeniser the model was trained with."
            )
        self.model = model
        self.tokenizer = tokenizer
        self.compiled = compiled
        self._runtime: Any = None

    def generate(
        self,
        prompt: str = "",
        *,
        max_tokens: int = 100,
        temperature: float = 0.8,
        top_k: int = 0,
        top_p: float = 1.0,
        repetition_penalty: float = 1.0,
        repetition_window: int = 64,
        no_repeat_ngram: int = 0,
        seed: int = 42,
        num_samples: int = 1,
        stop: str | Sequence[str] = (),
        stop_at_end: bool = True,
        on_text: Callable[[str], None] | None = None,
    ) -> Generation:
        """Continue `prompt` token by token.

        Args:
            prompt: May be empty: then a new document begins. At most MAX_PROMPT_TOKENS tokens.
            max_tokens: Tokens of each sample, unless the document ends before.
            temperature: Divides the logits; 0 takes the most likely token, 1 samples the model's own distribution.
            top_k: Draw among the k most likely tokens only; 0 for all.
            top_p: Draw among the fewest most likely tokens that hold this share of the probability (nucleus sampling).
            repetition_penalty: Makes tokens that the sample has just written less likely: their logits are divided by it if
                positive and multiplied if negative. 1 is off; 1.2 is usual.
            repetition_window: How many of the sample's last tokens the penalty is for.
            no_repeat_ngram: Never write an n-gram of this many tokens twice in a sample, as long as another token is left; 0 is off.
            seed: Same seed, same text. The text of a sample depends on its number and the seed, not on how many there are.
            num_samples: Continuations drawn side by side, at most MAX_SAMPLES.
            stop: A string, or several: a sample ends before the first of them that it completes, the longest if two end together.
            stop_at_end: Stop at the end of the document; if False that token is never drawn.
            on_text: Called with each new piece of the first sample, for streaming to the screen. What might turn out to be the
                beginning of a stop string is held back until that is known.

        Returns:
            The samples. Where a stop string cut a sample, its `token_ids` are those that were needed to write the text.

        Raises:
            TypeError: If the prompt or a stop string is not text.
            ValueError: If a setting is out of range, or the prompt is too long or holds characters the model never saw.

        Reference:
            Holtzman et al. (2020), "The Curious Case of Neural Text Degeneration", arXiv:1904.09751 (top-p).
            Keskar et al. (2019), "CTRL: A Conditional Transformer Language Model ...", arXiv:1909.05858 (repetition penalty).
        """
        check_positive(max_tokens=max_tokens, num_samples=num_samples)
        if num_samples > MAX_SAMPLES:
            raise ValueError(f"num_samples is {num_samples:,}, but at most {MAX_SAMPLES:,} are written at once. Use several calls.")
        sampler = Sampler(temperature=temperature, top_k=top_k, top_p=top_p)
        processors = repetition_processors(
            repetition_penalty=repetition_penalty, repetition_window=repetition_window, no_repeat_ngram=no_repeat_ngram
        )
        stops, random_numbers = check_stops(stop), random_streams(_check_seed(seed), num_samples)
        started, first_token = time.perf_counter(), []

        def show(texts: list[TextBuilder]) -> None:
            first_token.append(time.perf_counter())
            if on_text is not None and (piece := texts[0].new_piece()):
                on_text(piece)

        with single_blas_thread():
            texts = self.decode(
                *self.read_prompt(prompt, num_samples),
                sampler=sampler,
                random_numbers=random_numbers,
                max_tokens=max_tokens,
                stop=stops,
                stop_at_end=stop_at_end,
                processors=processors,
                on_block=show,
            )
        return Generation(
            samples=[text.text for text in texts],
            prompt=prompt,
            num_tokens=sum(len(text.token_ids) for text in texts),
            first_token_seconds=first_token[0] - started,
            seconds=time.perf_counter() - started,
            token_ids=[text.token_ids for text in texts],
        )

    def generate_batch(
        self,
        prompts: Sequence[str],
        *,
        sampler: Sampler,
        max_tokens: int = 100,
        seed: int = 42,
        stop: str | Sequence[str] = (),
        stop_at_end: bool = True,
        processors: Sequence[LogitsProcessor] = (),
    ) -> list[str]:
        """Continue several prompts side by side, once each; returns the continuations, without the prompts.

        Many times as fast as one after the other: a step of the model costs little more for fifty rows than for one.

        Args:
            prompts: As in `generate`; they may differ in length.
            sampler: How tokens are drawn, e.g. Sampler(temperature=0.8).
            max_tokens: Tokens of each continuation at most.
            seed: As in `generate`; a continuation depends on its prompt's position in the list and the seed.
            stop: As in `generate`.
            stop_at_end: As in `generate`.
            processors: Change the logits before a token is drawn, see `slm_helpers.generation.processors`.
        """
        check_positive(max_tokens=max_tokens)
        if isinstance(prompts, str):
            raise TypeError("prompts is one string, but must be a list of prompts. Use generate for one.")
        stops, prompts = check_stops(stop), list(prompts)
        options = {"sampler": sampler, "max_tokens": max_tokens, "stop": stops, "stop_at_end": stop_at_end, "processors": processors}
        if not prompts:
            return []
        with single_blas_thread():
            runtime, ids, states = self.read_prompts(prompts)
            texts = self.decode(runtime, ids, states, random_numbers=random_streams(_check_seed(seed), len(prompts)), **options)
        return [text.text for text in texts]

    def decode(
        self,
        runtime: AnyRuntime | GuidedRuntime,
        token_ids: np.ndarray,
        states: list[np.ndarray],
        *,
        sampler: Sampler,
        random_numbers: RandomNumbers,
        max_tokens: int,
        stop: str | Sequence[str] = (),
        stop_at_end: bool = True,
        processors: Sequence[LogitsProcessor] = (),
        with_log_probs: bool = False,
        on_block: Callable[[list[TextBuilder]], None] | None = None,
    ) -> list[TextBuilder]:
        """Write a text for each row with the loop of `slm_helpers.generation.decoding.decode`, whose arguments these are.

        `on_block` is called with the texts after the first token, then every few tokens, and once at the end.
        """
        stops = check_stops(stop)
        texts = [TextBuilder(self.tokenizer, stops) for _ in range(len(token_ids))]
        options = {"end_id": self.tokenizer.end_id, "suppress_token_ids": self._suppressed(stop_at_end), "with_log_probs": with_log_probs}
        options |= {"sampler": sampler, "random_numbers": random_numbers, "max_tokens": max_tokens, "processors": processors}
        for _ in decode(runtime, token_ids, states, texts, **options):
            if on_block is not None:
                on_block(texts)
        for text in texts:
            text.finish()
        if on_block is not None:
            on_block(texts)
        return texts

    def beam(
        self,
        prompt: str = "",
        *,
        beam_size: int = 4,
        max_tokens: int = 100,
        length_penalty: float = 0.6,
        stop_at_end: bool = True,
    ) -> Generation:
        """Find probable continuations of `prompt` by `beam_search`.

        Args:
            prompt: May be empty: then a new document begins.
            beam_size: Continuations kept while searching, and returned, best first.
            max_tokens: Where a continuation is cut.
            length_penalty: 0 compares plain log-probabilities, which favours short texts; 1 nearly the mean per token.
            stop_at_end: Let continuations end where the document does; if False all have `max_tokens` tokens.
        """
        check_positive(beam_size=beam_size, max_tokens=max_tokens)
        started = time.perf_counter()
        with single_blas_thread():
            runtime, ids, states = self.read_prompt(prompt)

            def step(token_ids: np.ndarray, states: list[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
                features, states = runtime.step(token_ids, states)
                return runtime.logits(features), states

            options = {"beam_size": beam_size, "max_tokens": max_tokens, "length_penalty": length_penalty, "end_id": self.tokenizer.end_id}
            found = beam_search(expand_logits(step, self._suppressed(stop_at_end)), ids, states, **options)[0]
        seconds = time.perf_counter() - started
        return Generation(
            samples=[self.tokenizer.decode(hypothesis.token_ids) for hypothesis in found],
            prompt=prompt,
            num_tokens=sum(len(hypothesis.token_ids) for hypothesis in found),
            first_token_seconds=seconds,  # nothing is known before the search is over
            seconds=seconds,
            token_ids=[hypothesis.token_ids for hypothesis in found],
            scores=[hypothesis.score for hypothesis in found],
        )

    def token_losses(self, text: str) -> np.ndarray:
        """Return the cross-entropy in nats of each token of `text` after those before it; the first follows an <end>."""
        return self.text_losses([text])[0]

    def text_losses(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Return `token_losses` of several texts, which are scored side by side: several times as fast as one after the other."""
        if isinstance(texts, str):
            raise TypeError("texts is one string, but must be a list of texts. Use token_losses for one.")
        sequences = [np.concatenate([[self.tokenizer.end_id], self._encode(text)]).astype("int32") for text in texts]
        for number, ids in enumerate(sequences):
            if len(ids) == 1:
                which = "The text" if len(sequences) == 1 else f"Text {number + 1} of {len(sequences)}"
                raise ValueError(f"{which} is empty: there is nothing to score.")
        with single_blas_thread():
            return sequence_losses(self.open(), sequences)

    def score(self, text: str) -> dict[str, float]:
        """Return bits_per_byte, bits_per_char, perplexity, num_tokens and num_bytes of `text`: every token counts, after all before it."""
        losses = self.token_losses(text).astype("float64")
        return {
            "bits_per_byte": bits_per_byte(losses.sum(), text),
            "bits_per_char": bits_per_char(losses.sum(), text),
            "perplexity": float(np.exp(losses.mean())),
            "num_tokens": len(losses),
            "num_bytes": len(text.encode()),
        }

    def open(self) -> AnyRuntime:
        """Return the model with its present weights, ready to step: in NumPy, or compiled if a layer has no NumPy form."""
        if isinstance(self.model, LanguageModelEngine | Runtime):
            return self.model
        if self._runtime is None and not self.compiled:
            try:
                return open_runtime(self.model)
            except TypeError:
                pass
        from slm_helpers.generation.compiled import CompiledRuntime

        self._runtime = self._runtime or CompiledRuntime(self.model)
        return self._runtime

    def read_prompt(self, prompt: str, num_samples: int = 1) -> tuple[AnyRuntime, np.ndarray, list[np.ndarray]]:
        """Return the runtime, and after all of the prompt but its last token: that token and the states, one row a sample."""
        runtime, ids, states = self.read_prompts([prompt])
        return runtime, np.repeat(ids, num_samples), [np.repeat(state, num_samples, axis=0) for state in states]

    def read_prompts(self, prompts: Sequence[str]) -> tuple[AnyRuntime, np.ndarray, list[np.ndarray]]:
        """Return the runtime, and after all of each prompt but its last token: that token and the states, one row a prompt."""
        runtime = self.open()
        last, states = zip(*(self._read(runtime, prompt) for prompt in prompts), strict=True)
        return runtime, np.array(last, dtype="int32"), [np.concatenate(parts) for parts in zip(*states, strict=True)]

    def _suppressed(self, stop_at_end: bool) -> list[int]:
        """Return the token ids that are not to be written."""
        return [self.tokenizer.pad_id, self.tokenizer.unk_id, *([] if stop_at_end else [self.tokenizer.end_id])]

    def _encode(self, text: str) -> np.ndarray:
        if not isinstance(text, str):
            raise TypeError(f"The text is {text!r:.40} ({type(text).__name__}), but must be a string; an empty one begins a new document.")
        half = re.search("[\ud800-\udfff]", text)
        if half:
            raise ValueError(
                f"The text holds half a character (U+{ord(half.group()):04X}) at position {half.start()}: it was read with a wrong "
                "encoding. Read it again as UTF-8, or remove such halves with text.encode(errors='ignore').decode()."
            )
        ids = self.tokenizer.encode(text)
        if (ids == self.tokenizer.unk_id).any():
            unknown = [c for c in sorted(set(text)) if self.tokenizer.encode(c)[0] == self.tokenizer.unk_id]
            raise ValueError(
                f"The text holds {len(unknown)} character(s) that this character model never saw, e.g. {unknown[0]!r}. "
                "Remove them, or use a model with a BPE tokeniser, which knows every text."
            )
        return ids

    def _read(self, runtime: AnyRuntime, prompt: str) -> tuple[int, list[np.ndarray]]:
        """Read all of a prompt but its last token; returns that token and the states, one row."""
        ids = np.concatenate([[self.tokenizer.end_id], self._encode(prompt)]).astype("int32")
        if len(ids) - 1 > MAX_PROMPT_TOKENS:
            raise ValueError(
                f"The prompt has {len(ids) - 1:,} tokens, but at most {MAX_PROMPT_TOKENS:,} are read. Shorten it to its last part."
            )
        states = runtime.zero_states(1)
        for start in range(0, len(ids) - 1, _READ_CHUNK):
            states = runtime.advance(ids[None, start : min(start + _READ_CHUNK, len(ids) - 1)], states)
        return int(ids[-1]), states


def _check_seed(seed: int) -> int:
    if not isinstance(seed, Integral) or seed < 0:
        raise ValueError(f"seed is {seed!r}, but must be a whole number of 0 or more. Pass e.g. seed=42.")
    return int(seed)
