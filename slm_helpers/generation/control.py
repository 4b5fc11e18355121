"""Ask a language model for a text: a control code before each training text, and a generator that puts one before each start.

The code is ordinary text, "[topic: travel; length: 6 turns; words: ticket, platform]", so that it needs no new tokens and works from
the shell as part of a prompt. Trained on codes that lack some of their fields, a model can be asked for any; "[]" asks for nothing.

Reference:
    Keskar et al. (2019), "CTRL: A Conditional Transformer Language Model for Controllable Generation", arXiv:1909.05858; Sanchez et al.
    (2023), "Stay on topic with Classifier-Free Guidance", arXiv:2306.17806 (guidance).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from numbers import Real

from slm_helpers._checks import check_choice, check_positive, check_share
from slm_helpers._threads import single_blas_thread
from slm_helpers.generation.decoding import GuidedRuntime, random_streams
from slm_helpers.generation.generator import TextGenerator
from slm_helpers.generation.sampling import Sampler
from slm_helpers.models.saved import SavedModel

import numpy as np

UNITS = ("words", "turns")  # a turn is a line of a dialogue
_SPECIAL = re.compile(r"[\[\];,\n\r]")
_SENTENCE_END = re.compile(r"[.!?][\"')\]]*(?=\s|$)")
_TOKENS_PER = {"words": 1.7, "turns": 32}  # more than enough to write so many


@dataclass(frozen=True)
class Request:
    """What is asked for; each field may be left out."""

    topic: str = ""
    length: int | None = None
    words: tuple[str, ...] = ()  # that shall occur
    unit: str = "words"  # of the length, one of UNITS

    def __post_init__(self) -> None:
        """Check every field where it enters."""
        if isinstance(self.words, str):
            raise TypeError(f"words is the text {self.words!r:.40}, but must be several words, e.g. words=({self.words!r:.40},).")
        for value in (self.topic, *self.words):
            if not isinstance(value, str):
                raise TypeError(f"A topic or word is {value!r:.40} ({type(value).__name__}), but must be text.")
            if _SPECIAL.search(value):
                raise ValueError(
                    f"{value!r:.40} holds one of the signs [ ] ; , or a line end, which belong to the control code. Leave them out."
                )
        if not all(word.strip() for word in self.words):
            raise ValueError("One of the words is empty. Leave it out.")
        if self.length is not None:
            check_positive(length=self.length)
        check_choice(UNITS, unit=self.unit)

    @property
    def code(self) -> str:
        """The control code with its line end; "[]" if nothing is asked.

        Example:
            >>> Request(topic="travel", length=6, unit="turns").code
            '[topic: travel; length: 6 turns]\\n'
        """
        fields = {"topic": self.topic, "length": f"{self.length} {self.unit}" if self.length else "", "words": ", ".join(self.words)}
        return f"[{'; '.join(f'{name}: {value}' for name, value in fields.items() if value)}]\n"


def vary_request(request: Request, rng: np.random.Generator, *, drop_field: float = 0.25, drop_all: float = 0.2) -> Request:
    """Return a request with some of its fields left out at random, so that a model learns to do without any of them.

    Args:
        request: What the text fulfils.
        rng: Source of the choice.
        drop_field: Chance of each field to be left out.
        drop_all: Chance that nothing is asked.
    """
    check_share(drop_field=drop_field, drop_all=drop_all)
    out = rng.random(3) < drop_field
    if rng.random() < drop_all:
        out[:] = True
    return replace(
        request,
        topic="" if out[0] else request.topic,
        length=None if out[1] else request.length,
        words=() if out[2] else request.words,
    )


def count_length(text: str, unit: str = "words") -> int:
    """Return the words (between spaces) or the turns (lines that are not empty) of a text."""
    check_choice(UNITS, unit=unit)
    return len(text.split()) if unit == "words" else sum(bool(line.strip()) for line in text.split("\n"))


def cut_to_length(text: str, length: int, unit: str = "words") -> str:
    """Return a text up to the end of a sentence that comes nearest to so many words, or up to so many turns.

    A text without the end of a sentence there is cut after the word.
    """
    check_positive(length=length)
    check_choice(UNITS, unit=unit)
    if unit == "turns":
        lines = [line for line in text.split("\n") if line.strip()]
        return "\n".join(lines[:length])
    ends = [match.end() for match in _SENTENCE_END.finditer(text)]
    nearest = min(ends, key=lambda end: abs(len(text[:end].split()) - length), default=0)
    if nearest and abs(len(text[:nearest].split()) - length) <= max(5, length // 2):
        return text[:nearest]
    words = list(re.finditer(r"\S+", text))
    return text if len(words) <= length else text[: words[length - 1].end()]


def text_nats(generator: TextGenerator, texts: Sequence[str], codes: Sequence[str] | None = None) -> np.ndarray:
    """Return the cross-entropy of each text in nats, each after a control code if there are any (which do not count).

    Args:
        generator: The model.
        texts: What is scored.
        codes: From `Request.code`, one a text; empty ones too.
    """
    if codes is None:
        codes = [""] * len(texts)
    losses = generator.text_losses([code + text for code, text in zip(codes, texts, strict=True)])
    counts = [len(ids) for ids in generator.tokenizer.encode_batch(codes)]
    return np.array([part[count:].sum(dtype="float64") for part, count in zip(losses, counts, strict=True)])


def as_script(turns: Sequence[dict[str, str]]) -> str:
    """Return a dialogue as lines of the form `speaker: text`."""
    return "\n".join(f"{turn['speaker']}: {turn['text']}" for turn in turns)


def pick_words(texts: Sequence[str], train_texts: Sequence[str], num_words: int = 2) -> list[tuple[str, ...]]:
    """Return the words of each text that say most about it: the highest TF-IDF, counted over the training texts.

    Only words of four letters and more that stand in lower case, so that names are left out, and that some training text has.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    check_positive(num_words=num_words)
    weigh = TfidfVectorizer(lowercase=False, token_pattern=r"\b[a-z]{4,}\b", stop_words="english", sublinear_tf=True).fit(train_texts)
    names = weigh.get_feature_names_out()
    table = weigh.transform(texts).toarray()
    return [tuple(names[np.argsort(-row, kind="stable")[:num_words]]) for row in table]


def add_control_codes(
    texts: Sequence[str], requests: Sequence[Request], *, num_copies: int, no_code: float = 0.2, seed: int = 42
) -> list[str]:
    """Return training texts behind control codes, `num_copies` times over, each time with other fields and in another order.

    Args:
        texts: The training texts.
        requests: What each of them fulfils.
        num_copies: How often each text is returned.
        no_code: Share that gets no code at all, so that the model can also be used like any other, in [0, 1).
        seed: Of fields and order.
    """
    check_positive(num_copies=num_copies)
    check_share(no_code=no_code)
    rng = np.random.default_rng(seed)
    coded = []
    for number in np.concatenate([rng.permutation(len(texts)) for _ in range(num_copies)]):
        code = vary_request(requests[number], rng).code
        coded.append(texts[number] if rng.random() < no_code else code + texts[number])
    return coded


class ControlledGenerator:
    """Writes texts as asked with a model that was trained with control codes; one that was not takes starts and forced lengths alone."""

    def __init__(self, saved: SavedModel):
        """Take a model and, from its settings, the topics it knows and the unit of its lengths.

        Args:
            saved: A language model; `settings` may hold "control_codes" (true if it was trained with them; "lines" in older folders),
                "topics", a list of names, and "unit", one of UNITS.
        """
        self.generator = TextGenerator(saved.model, saved.tokenizer)
        self.control_codes = bool(saved.settings.get("control_codes", saved.settings.get("lines", False)))
        self.topics = list(saved.settings.get("topics", []))
        self.unit = saved.settings.get("unit", "words")

    def generate(
        self,
        start: str = "",
        *,
        topic: str = "",
        length: int | None = None,
        words: Sequence[str] = (),
        force_length: bool = False,
        guidance: float = 1.0,
        max_tokens: int = 400,
        temperature: float = 0.8,
        top_p: float = 0.9,
        seed: int = 42,
        num_samples: int = 1,
    ) -> list[str]:
        """Write texts, each with its start.

        Args:
            start: How the text begins; empty for a new text.
            topic: One of `topics`.
            length: Words or turns asked for, the start included.
            words: Words that shall occur.
            force_length: Also keep the length while sampling: the text does not end before and is cut at the end of the sentence
                nearest to it (of the turn, where the unit is turns). Else the model decides what it makes of the request.
            guidance: Guidance scale: what the code adds to the log-probability of a token, compared with the code that asks for
                nothing, is multiplied by this. 1 leaves it as the model learned it, 0 ignores it; others take twice the time.
            max_tokens: Where a text is cut that does not end by itself.
            temperature: As in `TextGenerator.generate`.
            top_p: As there.
            seed: As there.
            num_samples: Texts drawn side by side.

        Raises:
            ValueError: If the topic is unknown, the length is not 1 or more or is reached by the start, the start holds spaces only,
                or a setting is out of range.
            TypeError: If a text is none.
        """
        request = self._check(start, Request(topic, length, words if isinstance(words, str) else tuple(words), self.unit), force_length)
        if not isinstance(guidance, Real) or not 0 <= guidance < float("inf"):
            raise ValueError(f"guidance is {guidance!r}, but must be 0 or more. Use 1 for the code as it was learned, 3 for more of it.")
        if force_length:
            max_tokens = int(_TOKENS_PER[self.unit] * length) + 60
        prompt = (request.code if self.control_codes else "") + start
        options = {"max_tokens": max_tokens, "seed": seed, "num_samples": num_samples, "stop_at_end": not force_length}
        if guidance == 1 or not self.control_codes:
            samples = self.generator.generate(prompt, temperature=temperature, top_p=top_p, **options).samples
        else:
            plain = Request().code + start
            samples = self._guided(prompt, plain, guidance, Sampler(temperature=temperature, top_p=top_p), **options)
        texts = [start + sample for sample in samples]
        return [cut_to_length(text, length, self.unit) for text in texts] if force_length else texts

    def _guided(
        self, prompt: str, plain: str, guidance: float, sampler: Sampler, *, max_tokens: int, seed: int, num_samples: int, stop_at_end: bool
    ) -> list[str]:
        """Continue two prompts, with and without the request, by the same tokens."""
        check_positive(max_tokens=max_tokens, num_samples=num_samples)
        with single_blas_thread():
            runtime, ids, states = self.generator.read_prompts([prompt, plain])
            ids, *states = (np.repeat(part, num_samples, axis=0) for part in (ids, *states))
            texts = self.generator.decode(
                GuidedRuntime(runtime, guidance),
                ids.reshape(2, num_samples).T,
                [state[:num_samples] for state in states] + [state[num_samples:] for state in states],
                sampler=sampler,
                random_numbers=random_streams(seed, num_samples),
                max_tokens=max_tokens,
                stop_at_end=stop_at_end,
            )
        return [text.text for text in texts]

    def _check(self, start: str, request: Request, force_length: bool) -> Request:
        """Return the request if this model can fulfil it."""
        if not isinstance(start, str):
            raise TypeError(f"The start is {start!r:.40} ({type(start).__name__}), but must be text; an empty one begins a new text.")
        if start and not start.strip():
            raise ValueError("The start holds spaces only. Give its first words, or leave it out to begin a new text.")
        if request.topic and request.topic not in self.topics:
            known = f"it knows {', '.join(self.topics)}" if self.topics else "it was trained without topics"
            raise ValueError(f"The topic {request.topic!r:.40} is unknown to this model: {known}. Choose another, or give words.")
        if force_length and request.length is None:
            raise ValueError("force_length needs a length, e.g. length=100.")
        if not self.control_codes and (request.topic or request.words or (request.length is not None and not force_length)):
            raise ValueError(
                "This model was not trained with control codes, so it takes a start and a forced length (force_length=True) alone."
            )
        if request.length is not None and count_length(start, self.unit) >= request.length:
            present = count_length(start, self.unit)
            raise ValueError(f"The start has {present} {self.unit} already, but length is {request.length}. Ask for more.")
        return request
