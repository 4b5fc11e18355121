"""Use a language model: continue a text and score a text, each as one compiled loop with the state carried along."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from numbers import Real

from slm_helpers.backend import keras
from slm_helpers.checks import check_positive
from slm_helpers.evaluation import bits_per_byte, bits_per_char
from slm_helpers.models import make_stepwise, zero_states
from slm_helpers.tokenizers import Tokenizer

import numpy as np

ops = keras.ops

MAX_PROMPT_TOKENS = 100_000
_CHUNK = 16  # tokens per compiled call: short enough to stream, long enough to hide the cost of a call
_PROMPT_CHUNK = 256
_SEGMENT, _WARM_UP = 1024, 256  # tokens of a long text scored side by side, and read before without being scored


@dataclass
class Generation:
    """What `TextGenerator.generate` returns."""

    samples: list[str]  # continuations, without the prompt
    prompt: str
    num_tokens: int  # over all samples
    first_token_seconds: float
    seconds: float
    token_ids: list[list[int]] = field(repr=False, default_factory=list)

    @property
    def tokens_per_second(self) -> float:
        """Tokens of all samples together per second, the prompt's reading included."""
        return self.num_tokens / self.seconds


class TextGenerator:
    """Continue and score texts with a language model and its tokeniser; keep one, for its first calls compile."""

    def __init__(self, model: keras.Model, tokenizer: Tokenizer):
        """Prepare the loops.

        Args:
            model: From `build_language_model`.
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
        self._stepwise = make_stepwise(model)
        self._losses = _Losses(self._stepwise)
        self._decoders: dict[bool, keras.Model] = {}

    def generate(
        self,
        prompt: str = "",
        *,
        max_tokens: int = 100,
        temperature: float = 0.8,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int = 42,
        num_samples: int = 1,
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
            seed: Same seed, same text.
            num_samples: Continuations drawn side by side.
            stop_at_end: Stop at the end of the document; if False that token is never drawn.
            on_text: Called with each new piece of the first sample, for streaming to the screen.

        Raises:
            ValueError: If a setting is out of range, or the prompt is too long or holds characters the model never saw.

        Reference:
            Holtzman et al. (2020), "The Curious Case of Neural Text Degeneration", arXiv:1904.09751 (top-p).
        """
        check_positive(max_tokens=max_tokens, num_samples=num_samples)
        _check_sampling(temperature, top_k, top_p)
        started = time.perf_counter()
        ids, states = self._read(prompt, num_samples)
        rng = np.random.default_rng(seed)
        decoder = self._decoder(filtered=bool(top_k) or top_p < 1)
        vocab_size = self.tokenizer.vocab_size
        settings = [np.full((num_samples,), v, "float32") for v in (temperature, top_k or vocab_size, top_p, float(stop_at_end))]
        done = np.zeros((num_samples,), dtype="int32")
        written = np.zeros((num_samples, 0), dtype="int32")
        first_token_seconds, shown = 0.0, ""
        while written.shape[1] < max_tokens and not done.all():
            # Random numbers come from NumPy, so that every backend writes the same text.
            uniforms = rng.random((num_samples, _CHUNK), dtype="float32")
            new, ids, done, *states = _run(decoder, [ids, done, uniforms, *settings, *states])
            written = np.concatenate([written, new], axis=1)[:, :max_tokens]
            first_token_seconds = first_token_seconds or time.perf_counter() - started
            if on_text is not None:
                text = self.tokenizer.decode(written[0]).rstrip("\ufffd")  # a character may need several tokens
                on_text(text[len(shown) :])
                shown = text
        kept = [row[: _length(row, self.tokenizer.end_id)].tolist() for row in written]
        samples = [self.tokenizer.decode(row) for row in kept]
        if on_text is not None and samples[0] != shown:
            on_text(samples[0][len(shown) :])  # the last character stayed unfinished
        return Generation(
            samples=samples,
            prompt=prompt,
            num_tokens=sum(map(len, kept)),
            first_token_seconds=first_token_seconds,
            seconds=time.perf_counter() - started,
            token_ids=kept,
        )

    def token_losses(self, text: str) -> np.ndarray:
        """Return the cross-entropy in nats of each token of `text` after those before it; the first follows an <end>."""
        if not text:
            raise ValueError("The text is empty: there is nothing to score.")
        ids = np.concatenate([[self.tokenizer.end_id], self._encode(text)]).astype("int32")
        inputs, targets = ids[:-1], ids[1:]
        if len(inputs) <= 2 * _SEGMENT:
            return self._pass(inputs[None], targets[None])[0]
        # A long text is cut into segments that are scored side by side; each but the first reads the tokens before it without
        # scoring them, for a recurrent state forgets what is some hundred steps back.
        losses = [self._pass(inputs[None, :_SEGMENT], targets[None, :_SEGMENT])[0]]
        starts = np.arange(_SEGMENT, len(inputs), _SEGMENT)
        inputs, targets = (np.concatenate([part, np.zeros(_SEGMENT, "int32")]) for part in (inputs, targets))
        for group in np.array_split(starts, -(-len(starts) // 32)):
            places = group[:, None] + np.arange(-_WARM_UP, _SEGMENT)
            losses.append(self._pass(inputs[places], targets[places])[:, _WARM_UP:].reshape(-1))
        return np.concatenate(losses)[: len(inputs) - _SEGMENT]

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

    def _encode(self, text: str) -> np.ndarray:
        ids = self.tokenizer.encode(text)
        if (ids == self.tokenizer.unk_id).any():
            unknown = sorted({c for c in text if self.tokenizer.encode(c)[0] == self.tokenizer.unk_id})
            raise ValueError(
                f"The text holds {len(unknown)} character(s) that this character model never saw, e.g. {unknown[0]!r}. "
                "Remove them, or use a model with a BPE tokeniser, which knows every text."
            )
        return ids

    def _read(self, prompt: str, num_samples: int) -> tuple[np.ndarray, list[np.ndarray]]:
        """Read all of the prompt but its last token; returns that token and the states, one row per sample."""
        ids = np.concatenate([[self.tokenizer.end_id], self._encode(prompt)]).astype("int32")
        if len(ids) > MAX_PROMPT_TOKENS:
            raise ValueError(
                f"The prompt has {len(ids):,} tokens, but at most {MAX_PROMPT_TOKENS:,} are read. Shorten it to its last part."
            )
        states = zero_states(self.model, 1)
        for start in range(0, len(ids) - 1, _PROMPT_CHUNK):
            part = ids[start : min(start + _PROMPT_CHUNK, len(ids) - 1)]
            _, *states = _run(self._losses, [part[None], np.zeros((1, len(part)), "int32"), *states])
        return np.repeat(ids[-1:], num_samples), [np.repeat(state, num_samples, axis=0) for state in states]

    def _pass(self, inputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
        states = zero_states(self.model, len(inputs))
        losses = []
        for start in range(0, inputs.shape[1], _PROMPT_CHUNK):
            part = slice(start, start + _PROMPT_CHUNK)
            new, *states = _run(self._losses, [inputs[:, part], targets[:, part], *states])
            losses.append(new)
        return np.concatenate(losses, axis=1)

    def _decoder(self, *, filtered: bool) -> keras.Model:
        if filtered not in self._decoders:
            self._decoders[filtered] = _Decoder(make_stepwise(self.model, single_token=True), self.tokenizer.end_id, filtered)
        return self._decoders[filtered]


class _Losses(keras.Model):
    """[inputs, targets, *states] -> [losses, *states]: the logits of a long text never leave the compiled call."""

    def __init__(self, stepwise: keras.Model):
        super().__init__(name="losses")
        self.stepwise = stepwise

    def call(self, arguments: list) -> list:
        inputs, targets, *states = arguments
        logits, *states = self.stepwise([inputs, *states])
        losses = keras.losses.sparse_categorical_crossentropy(targets, ops.cast(logits, "float32"), from_logits=True)
        return [losses, *states]


class _Decoder(keras.Model):
    """Write _CHUNK tokens in one compiled loop.

    [last token, done, uniforms, temperature, top_k, top_p, may end, *states] -> [tokens, last token, done, *states].
    """

    def __init__(self, step: keras.Model, end_id: int, filtered: bool):
        super().__init__(name="decoder")
        self.step, self.end_id, self.filtered = step, end_id, filtered

    def call(self, arguments: list) -> list:
        last, done, uniforms, temperature, top_k, top_p, may_end, *states = arguments
        last, done = ops.cast(last, "int32"), ops.cast(done, "int32")
        vocab_size = self.step.outputs[0].shape[-1]
        token = ops.arange(vocab_size)
        # <pad> and <unk> are never written; <end> only if asked for.
        never = ops.cast(token < 2, "float32")[None] + ops.cast(token == self.end_id, "float32")[None] * (1 - may_end)[:, None]
        written = ops.zeros((ops.shape(last)[0], _CHUNK), dtype="int32")

        def one_more(i, last, done, written, *states):
            logits, *new_states = self.step([last, *states])
            logits = ops.cast(logits, "float32") - 1e9 * never
            drawn = _draw(logits, ops.take(uniforms, i, axis=1), temperature, top_k, top_p, self.filtered)
            drawn = ops.where(done > 0, self.end_id, drawn)
            place = ops.cast(ops.arange(_CHUNK) == i, "int32")[None]
            return (i + 1, drawn, ops.where(drawn == self.end_id, 1, done), written + place * drawn[:, None], *new_states)

        _, last, done, written, *states = ops.while_loop(lambda i, *rest: i < _CHUNK, one_more, (0, last, done, written, *states))
        return [written, last, done, *states]


def _draw(logits, uniform, temperature, top_k, top_p, filtered: bool):
    """Draw one token id per row of `logits`, shape (batch, vocab_size), by inverting the cumulated probabilities."""
    greedy = ops.cast(ops.argmax(logits, axis=-1), "int32")
    probs = ops.softmax(logits / ops.maximum(temperature, 1e-4)[:, None], axis=-1)
    if filtered:
        ranked = ops.flip(ops.sort(probs, axis=-1), axis=-1)
        rank = ops.cast(ops.arange(ranked.shape[-1]), "float32")[None]
        # The most likely tokens whose mass before them is below top_p, at most top_k; never none.
        kept = ops.logical_and(ops.cumsum(ranked, axis=-1) - ranked < top_p[:, None], rank < top_k[:, None])
        lowest = ops.min(ops.where(kept, ranked, 1.0), axis=-1, keepdims=True)
        probs = ops.where(probs >= lowest, probs, 0.0)
    cumulated = ops.cumsum(probs, axis=-1)
    threshold = (uniform * 0.999999)[:, None] * cumulated[:, -1:]
    drawn = ops.cast(ops.sum(ops.cast(cumulated <= threshold, "int32"), axis=-1), "int32")
    return ops.where(temperature > 0, drawn, greedy)


def _run(model: keras.Model, arguments: list[np.ndarray]) -> list[np.ndarray]:
    """Call a model compiled by whichever backend runs; NumPy in, NumPy out."""
    return [np.asarray(value) for value in model.predict_on_batch(arguments)]


def _length(row: np.ndarray, end_id: int) -> int:
    """Return how many tokens stand before the first <end>."""
    ends = np.flatnonzero(row == end_id)
    return int(ends[0]) if len(ends) else len(row)


def _check_sampling(temperature: float, top_k: int, top_p: float) -> None:
    if not isinstance(temperature, Real) or not 0 <= temperature < float("inf"):
        raise ValueError(f"temperature is {temperature!r}, but must be 0 or more. Use 0 for greedy choice.")
    if top_k < 0 or int(top_k) != top_k:
        raise ValueError(f"top_k is {top_k!r}, but must be a whole number of 0 or more. Use 0 for all tokens.")
    if not 0 < top_p <= 1:
        raise ValueError(f"top_p is {top_p!r}, but must lie in (0, 1]. Use 1 for all tokens.")
