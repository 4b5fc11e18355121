"""Use a language model: continue a text, by drawing or by beam search, and score a text.

Both run in NumPy with the state carried along (`slm_helpers.generation.runtime`); a model with layers that have no NumPy form goes through
its compiled Keras calls instead.
"""

import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from numbers import Integral

from slm_helpers._backend import keras
from slm_helpers._checks import check_positive
from slm_helpers.generation.beam import beam_search
from slm_helpers.generation.runtime import Runtime, open_runtime
from slm_helpers.generation.sampling import SamplingRule
from slm_helpers.metrics.language_model import bits_per_byte, bits_per_char
from slm_helpers.models.language_model import make_stateful_model, recurrent_layers, zero_states
from slm_helpers.text.tokenizers import Tokenizer

import numpy as np

MAX_PROMPT_TOKENS = 100_000
_LOOK = 16  # tokens between looks at the text, for streaming and for its end
_READ_CHUNK = 1024  # tokens of a prompt read in one call
_SCORE_CHUNK = 256  # tokens scored in one call ...
_SCORE_ROWS = 128  # ... and of these, scored against the vocabulary at a time, so that the scores stay in the processor's cache
_SEGMENT, _WARM_UP = 1024, 256  # tokens of a long text scored side by side, and read before without being scored
_SIDE_BY_SIDE = 32  # texts or segments scored in one call


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

    def __init__(self, model: keras.Model, tokenizer: Tokenizer):
        """Bring a model and its tokeniser together.

        Args:
            model: From `build_language_model`. Its weights are read anew by each call, so it may be trained in between.
            tokenizer: The one the model was trained with.
        """
        vocab_size = model.output_shape[-1]
        if tokenizer.vocab_size != vocab_size:
            raise ValueError(
                f"The tokeniser has {tokenizer.vocab_size} ids, but the model scores {vocab_size}. "
                "Use the tokeniser the model was trained with."
            )
        self.model = model
        self.tokenizer = tokenizer
        self._compiled: _CompiledRuntime | None = None
        self._single_step: keras.Model | None = None

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
            repetition_window: How many of the sample's last tokens the penalty looks at.
            no_repeat_ngram: Never write a run of this many tokens twice in a sample, as long as another token is left; 0 is off.
            seed: Same seed, same text. The text of a sample depends on its number and the seed, not on how many there are.
            num_samples: Continuations drawn side by side.
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
        rule = SamplingRule(
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            repetition_penalty=repetition_penalty,
            repetition_window=repetition_window,
            no_repeat_ngram=no_repeat_ngram,
        )
        if not isinstance(seed, Integral) or seed < 0:
            raise ValueError(f"seed is {seed!r}, but must be a whole number of 0 or more. Pass e.g. seed=42.")
        stops = _check_stops(stop)
        started = time.perf_counter()
        runtime = self._open()
        ids, states = self._read(runtime, prompt, num_samples)
        texts = [_Text(self.tokenizer, stops) for _ in range(num_samples)]
        never = self._never(stop_at_end)
        first_token_seconds = 0.0
        for _ in _write(runtime, ids, states, texts, rule=rule, never=never, seed=seed, max_tokens=max_tokens):
            first_token_seconds = first_token_seconds or time.perf_counter() - started
            if on_text is not None and (piece := texts[0].new_piece()):
                on_text(piece)
        for text in texts:
            text.finish()
        if on_text is not None and (piece := texts[0].new_piece()):
            on_text(piece)
        return Generation(
            samples=[text.text for text in texts],
            prompt=prompt,
            num_tokens=sum(len(text.token_ids) for text in texts),
            first_token_seconds=first_token_seconds,
            seconds=time.perf_counter() - started,
            token_ids=[text.token_ids for text in texts],
        )

    def generate_each(
        self,
        prompts: Sequence[str],
        *,
        rule: SamplingRule,
        max_tokens: int = 100,
        seed: int = 42,
        stop: str | Sequence[str] = (),
        stop_at_end: bool = True,
    ) -> list[str]:
        """Continue several prompts side by side, once each; returns the continuations, without the prompts.

        Many times as fast as one after the other: a step of the model costs little more for fifty rows than for one.

        Args:
            prompts: As in `generate`; they may differ in length.
            rule: How tokens are drawn, e.g. SamplingRule(temperature=0.8).
            max_tokens: Tokens of each continuation at most.
            seed: As in `generate`; a continuation depends on its prompt's place in the list and the seed.
            stop: As in `generate`.
            stop_at_end: As in `generate`.
        """
        check_positive(max_tokens=max_tokens)
        if isinstance(prompts, str):
            raise TypeError("prompts is one string, but must be a list of prompts. Use generate for one.")
        stops, runtime = _check_stops(stop), self._open()
        texts = [_Text(self.tokenizer, stops) for _ in prompts]
        if texts:
            ids, states = zip(*(self._read(runtime, prompt, 1) for prompt in prompts), strict=True)
            joined = [np.concatenate(parts) for parts in zip(*states, strict=True)]
            never = self._never(stop_at_end)
            for _ in _write(runtime, np.concatenate(ids), joined, texts, rule=rule, never=never, seed=seed, max_tokens=max_tokens):
                pass
        for text in texts:
            text.finish()
        return [text.text for text in texts]

    def beam(
        self,
        prompt: str = "",
        *,
        beam_size: int = 4,
        max_tokens: int = 100,
        length_penalty: float = 0.6,
        stop_at_end: bool = True,
    ) -> Generation:
        """Find likely continuations of `prompt` by `beam_search`; its first call compiles.

        Args:
            prompt: May be empty: then a new document begins.
            beam_size: Continuations kept while searching, and returned, best first.
            max_tokens: Where a continuation is cut.
            length_penalty: 0 compares plain log-probabilities, which favours short texts; 1 nearly the mean per token.
            stop_at_end: Let continuations end where the document does; if False all have `max_tokens` tokens.
        """
        check_positive(beam_size=beam_size, max_tokens=max_tokens)
        started = time.perf_counter()
        ids, states = self._read(self._open(), prompt, 1)
        self._single_step = self._single_step or make_stateful_model(self.model, single_token=True)
        found = beam_search(
            self._single_step,
            ids,
            states,
            end_id=self.tokenizer.end_id,
            beam_size=beam_size,
            max_tokens=max_tokens,
            length_penalty=length_penalty,
            never=self._never(stop_at_end),
        )[0]
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
        runtime = self._open()
        losses: list[np.ndarray] = [np.empty(0, "float32")] * len(sequences)
        # Texts of about the same length side by side: what is padded (on the right) is scored in vain.
        short = sorted(
            (place for place, ids in enumerate(sequences) if len(ids) - 1 <= 2 * _SEGMENT), key=lambda place: len(sequences[place])
        )
        for group in (short[start : start + _SIDE_BY_SIDE] for start in range(0, len(short), _SIDE_BY_SIDE)):
            padded = np.zeros((len(group), len(sequences[group[-1]])), dtype="int32")
            for row, place in enumerate(group):
                padded[row, : len(sequences[place])] = sequences[place]
            for place, found in zip(group, _losses(runtime, padded[:, :-1], padded[:, 1:]), strict=True):
                losses[place] = found[: len(sequences[place]) - 1]
        for place, ids in enumerate(sequences):
            if len(ids) - 1 > 2 * _SEGMENT:
                losses[place] = _segment_losses(runtime, ids[:-1], ids[1:])
        return losses

    def score(self, text: str) -> dict[str, float]:
        """Return bits_per_byte, bits_per_char, perplexity, num_tokens and num_bytes of `text`, every token counted."""
        losses = self.token_losses(text).astype("float64")
        return {
            "bits_per_byte": bits_per_byte(losses.sum(), text),
            "bits_per_char": bits_per_char(losses.sum(), text),
            "perplexity": float(np.exp(losses.mean())),
            "num_tokens": len(losses),
            "num_bytes": len(text.encode()),
        }

    def _open(self) -> "Runtime | _CompiledRuntime":
        """Return the model with its present weights, ready to step."""
        if self._compiled is None:
            try:
                return open_runtime(self.model)
            except TypeError:
                self._compiled = _CompiledRuntime(self.model)
        return self._compiled

    def _never(self, stop_at_end: bool) -> list[int]:
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

    def _read(self, runtime: "Runtime | _CompiledRuntime", prompt: str, num_samples: int) -> tuple[np.ndarray, list[np.ndarray]]:
        """Read all of the prompt but its last token; returns that token and the states, one row per sample."""
        ids = np.concatenate([[self.tokenizer.end_id], self._encode(prompt)]).astype("int32")
        if len(ids) - 1 > MAX_PROMPT_TOKENS:
            raise ValueError(
                f"The prompt has {len(ids) - 1:,} tokens, but at most {MAX_PROMPT_TOKENS:,} are read. Shorten it to its last part."
            )
        states = runtime.zero_states(1)
        for start in range(0, len(ids) - 1, _READ_CHUNK):
            _, states = runtime.read(ids[None, start : min(start + _READ_CHUNK, len(ids) - 1)], states)
        return np.repeat(ids[-1:], num_samples), [np.repeat(state, num_samples, axis=0) for state in states]


class _CompiledRuntime:
    """The methods of `Runtime` through the compiled Keras model, for layers that have no NumPy form; its features are the logits."""

    def __init__(self, model: keras.Model):
        if not recurrent_layers(model):
            raise TypeError(
                f"{model.name} has no recurrent layer that could carry a state from token to token. Use a model from build_language_model."
            )
        self.vocab_size = model.output_shape[-1]
        self.model, self.stepwise = model, make_stateful_model(model)

    def zero_states(self, batch_size: int) -> list[np.ndarray]:
        return zero_states(self.model, batch_size)

    def read(self, token_ids: np.ndarray, states: list[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
        logits, *states = (np.asarray(value, dtype="float32") for value in self.stepwise.predict_on_batch([token_ids, *states]))
        return logits, states

    def step(self, token_ids: np.ndarray, states: list[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
        logits, states = self.read(token_ids[:, None], states)
        return logits[:, 0], states

    def logits(self, features: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        return features.copy()  # the caller may write into it


def _write(
    runtime: "Runtime | _CompiledRuntime",
    ids: np.ndarray,
    states: list[np.ndarray],
    texts: "list[_Text]",
    *,
    rule: SamplingRule,
    never: list[int],
    seed: int,
    max_tokens: int,
) -> Iterator[None]:
    """Write into the texts, one row each, until they have ended; yields after the first token and then every _LOOK tokens."""
    # Random numbers come from NumPy, a stream of its own for each sample: every backend and every batch writes the same text.
    streams = [np.random.default_rng([seed, number]) for number in range(len(texts))]
    rows = np.arange(len(texts))  # those still written
    written = np.zeros((len(texts), _LOOK), dtype="int32")
    room = np.empty((len(texts), runtime.vocab_size), dtype="float32")
    length = 0
    while length < max_tokens and len(rows):
        num_new = min(_LOOK if length else 1, max_tokens - length)
        if length + num_new > written.shape[1]:
            written = np.pad(written, ((0, 0), (0, written.shape[1])))
        uniforms = np.array([streams[row].random(num_new) for row in rows])
        for now in range(length, length + num_new):
            features, states = runtime.step(ids, states)
            logits = runtime.logits(features, room[: len(rows)])
            logits[:, never] = -np.inf
            ids = rule.draw(logits, uniforms[:, now - length], written[rows, :now] if rule.looks_back else None)
            written[rows, now] = ids
        for row in rows:
            texts[row].add(written[row, length : length + num_new].tolist())
        length += num_new
        yield
        going_on = np.array([not texts[row].ended for row in rows])
        if not going_on.all():
            rows, ids, states = rows[going_on], ids[going_on], [state[going_on] for state in states]


class _Text:
    """The text of one sample while it is written: decodes only what is new, and ends at the end token or before a stop string."""

    def __init__(self, tokenizer: Tokenizer, stops: list[str]):
        self.tokenizer, self.stops = tokenizer, stops
        self.text, self.token_ids, self.ended = "", [], False
        self._whole, self._pending, self._shown = "", [], 0  # decoded for good; tokens whose last character may go on; given out

    def add(self, token_ids: list[int]) -> None:
        """Append tokens, up to the end token if it is among them."""
        if self.tokenizer.end_id in token_ids:
            token_ids = token_ids[: token_ids.index(self.tokenizer.end_id)]
            self.ended = True
        self.token_ids += token_ids
        self._pending += token_ids
        if self.stops:  # else the text is not needed yet
            self._decode()

    def _decode(self) -> None:
        """Bring the text up to the last token, and end it before a stop string."""
        new = self.tokenizer.decode(self._pending)
        if not new.endswith("\ufffd"):  # a character may need several tokens
            self._whole, self._pending, new = self._whole + new, [], ""
        searched = max(0, len(self.text) - max(map(len, self.stops), default=0))
        self.text = self._whole + new.rstrip("\ufffd")
        found = [(place + len(stop), place) for stop in self.stops if (place := self.text.find(stop, searched)) >= 0]
        if found:
            self.text, self.ended, self._pending = self.text[: min(found)[1]], True, []
            while self.token_ids and self.tokenizer.decode(self.token_ids[:-1]).startswith(self.text):
                self.token_ids.pop()

    def finish(self) -> None:
        """Close the text: a last character that stayed unfinished shows as U+FFFD."""
        if self._pending:
            self.text = self._whole + self.tokenizer.decode(self._pending)
            self._whole, self._pending = self.text, []
        self.ended = True

    def new_piece(self) -> str:
        """Return what may be shown and was not yet: all but what may be the beginning of a stop string."""
        if self._pending and not self.ended:
            self._decode()
        safe = len(self.text)
        if not self.ended:
            safe -= max((_overlap(self.text, stop) for stop in self.stops), default=0)
        piece = self.text[self._shown : safe]
        self._shown = max(self._shown, safe)
        return piece


def _overlap(text: str, stop: str) -> int:
    """Return how many of the last characters of `text` are the beginning of `stop`."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)


def _losses(runtime: "Runtime | _CompiledRuntime", inputs: np.ndarray, targets: np.ndarray, *, num_unscored: int = 0) -> np.ndarray:
    """Return the cross-entropy of each target, shape (batch, time), without those of the first `num_unscored` steps."""
    states = runtime.zero_states(len(inputs))
    losses = []
    for start in range(0, inputs.shape[1], _SCORE_CHUNK):
        part = slice(start, start + _SCORE_CHUNK)
        features, states = runtime.read(inputs[:, part], states)
        if start >= num_unscored:
            flat = features.reshape(-1, features.shape[-1])
            losses.append(_cross_entropy(runtime, flat, targets[:, part].reshape(-1)).reshape(len(inputs), -1))
    return np.concatenate(losses, axis=1)


def _segment_losses(runtime: "Runtime | _CompiledRuntime", inputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the cross-entropy of each target of a long text, shape (time,).

    The text is cut into segments that are scored side by side; each but the first reads the tokens before it without scoring
    them, for a recurrent state forgets what is some hundred steps back.
    """
    losses = [_losses(runtime, inputs[None, :_SEGMENT], targets[None, :_SEGMENT])[0]]
    starts = np.arange(_SEGMENT, len(inputs), _SEGMENT)
    num_tokens = len(inputs)
    inputs, targets = (np.concatenate([part, np.zeros(_SEGMENT, "int32")]) for part in (inputs, targets))
    for group in np.array_split(starts, -(-len(starts) // _SIDE_BY_SIDE)):
        places = group[:, None] + np.arange(-_WARM_UP, _SEGMENT)
        losses.append(_losses(runtime, inputs[places], targets[places], num_unscored=_WARM_UP).reshape(-1))
    return np.concatenate(losses)[:num_tokens]


def _cross_entropy(runtime: "Runtime | _CompiledRuntime", features: np.ndarray, targets: np.ndarray) -> np.ndarray:
    losses = np.empty(len(targets), dtype="float32")
    out = np.empty((min(_SCORE_ROWS, len(targets)), runtime.vocab_size), dtype="float32")
    for start in range(0, len(targets), _SCORE_ROWS):
        rows = slice(start, start + _SCORE_ROWS)
        logits = runtime.logits(features[rows], out[: len(targets[rows])])
        logits -= logits.max(axis=-1, keepdims=True)
        wanted = np.take_along_axis(logits, targets[rows, None], axis=1)[:, 0]
        losses[rows] = np.log(np.exp(logits, out=logits).sum(axis=-1)) - wanted
    return losses


def _check_stops(stop: str | Sequence[str]) -> list[str]:
    if not isinstance(stop, Iterable):
        raise TypeError(f"stop is {stop!r:.40}, but must be a string or several. Leave it out for none.")
    stops = [stop] if isinstance(stop, str) else list(stop)
    for string in stops:
        if not isinstance(string, str):
            raise TypeError(f"A stop string is {string!r:.40} ({type(string).__name__}), but must be text.")
        if not string:
            raise ValueError("A stop string is empty: every sample would end at once. Leave stop out for none.")
    return stops
