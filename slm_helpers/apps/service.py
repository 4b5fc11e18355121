"""A small customer service: for each message a reply from a list, or escalation to a person; and replies written freely.

A classifier reads the intent, the reply comes from a list that people wrote, and a message is escalated to a person where the
classifier is not confident enough. How confident is enough follows from what each kind of decision costs.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from slm_helpers._backend import keras
from slm_helpers._checks import check_share
from slm_helpers.baselines.nearest import NearestText
from slm_helpers.generation.generator import TextGenerator
from slm_helpers.generation.sampling import Sampler
from slm_helpers.models.language_model import build_language_model
from slm_helpers.models.registry import backbone_config, load_backbone_weights
from slm_helpers.models.saved import SavedModel
from slm_helpers.tasks.text_classification import text_probs
from slm_helpers.training.batches import Examples
from slm_helpers.training.config import TrainConfig
from slm_helpers.training.finetune import fit_examples

import numpy as np
import pandas as pd

ESCALATION = "I am passing this on to a colleague, who will read all of it and answer you here."
ROLES = {"customer": "Customer:", "agent": "Agent:"}
GENERATOR_CONFIG = TrainConfig(epochs=3, batch_size=4, learning_rate=1e-3)
MAX_REPLY_TOKENS = 60
_SMALL_NUMBERS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_NUMBERS = {word: str(number) for number, word in enumerate(_SMALL_NUMBERS, 2)}
_DAYS = "today|tomorrow|(?:mon|tues|wednes|thurs|fri|satur|sun)days?"
_FACT = re.compile(rf'"[^"]+"|[\w.+-]+@[\w.-]+\w|\d+(?:[.,:/-]\d+)*|\b(?:{"|".join(_NUMBERS)}|{_DAYS})\b', re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What a decision on one message costs, in minutes of the staff's time."""

    correct: float = 0.0  # answered correctly
    wrong: float = 12.0  # answered wrongly: the customer writes again, more annoyed than before, and somebody corrects it
    escalated_correct: float = 4.0  # escalated although the answer would have been correct
    escalated_wrong: float = 4.0  # escalated, and the answer would have been wrong

    def __post_init__(self) -> None:
        """Check that the costs leave something to decide."""
        if self.correct >= self.escalated_correct or self.escalated_wrong >= self.wrong:
            raise ValueError(
                f"A correct answer costs {self.correct} and escalating it {self.escalated_correct}, a wrong answer {self.wrong} and "
                f"escalating it {self.escalated_wrong}: there is something to decide only if escalating costs more than a correct answer "
                "and less than a wrong one."
            )

    @property
    def break_even(self) -> float:
        """Return the probability of being correct above which an answer is expected to cost less than escalation (Elkan 2001)."""
        gain, loss = self.escalated_correct - self.correct, self.wrong - self.escalated_wrong
        return loss / (gain + loss)

    def of(self, correct: Sequence[bool], answered: Sequence[bool]) -> np.ndarray:
        """Return the cost of each message: `correct` says whether the answer is or would have been correct."""
        correct, answered = np.asarray(correct, dtype=bool), np.asarray(answered, dtype=bool)
        unanswered = np.where(correct, self.escalated_correct, self.escalated_wrong)
        return np.where(answered, np.where(correct, self.correct, self.wrong), unanswered)


def choose_threshold(confidence: Sequence[float], correct: Sequence[bool], costs: Costs) -> float:
    """Return the confidence from which on to answer so that the mean cost is least; of equally good ones the highest.

    Args:
        confidence: Of each message of a part that was not trained on, shape (num_messages,).
        correct: Whether the answer would be correct, shape (num_messages,).
        costs: Of the decisions.

    Returns:
        0 where answering always is best, 1.01 (more than any confidence) where escalating always is.

    Raises:
        ValueError: If there is no message, a confidence is NaN, or the lengths differ.
    """
    confidence, correct = np.asarray(confidence, dtype="float64"), np.asarray(correct, dtype=bool)
    if not confidence.size or confidence.shape != correct.shape or np.isnan(confidence).any():
        raise ValueError(
            f"There are {confidence.size} confidences ({int(np.isnan(confidence).sum())} NaN) and {correct.size} answers, but one of each "
            "for every message is needed, and one message at least."
        )
    levels = np.unique(confidence)
    # Halfway between two neighbours: the messages on either side are equally far from the border.
    candidates = np.concatenate([[0.0], (levels[:-1] + levels[1:]) / 2, [1.01]])
    means = np.array([costs.of(correct, confidence >= level).mean() for level in candidates])
    return float(candidates[np.flatnonzero(means <= means.min() + 1e-12)[-1]])


def false_alarm_threshold(scores: Sequence[float], *, rate: float) -> float:
    """Return the lowest threshold at which at most this share of the scores, of messages that are in scope, reaches it.

    Args:
        scores: How much each message looks out of scope.
        rate: Share of false alarms that is accepted, in [0, 1).
    """
    check_share(rate=rate)
    levels = np.sort(np.asarray(scores, dtype="float64"))[::-1]
    if not len(levels):
        raise ValueError("There is no score of a message in scope to find the threshold by.")
    return float(np.nextafter(levels[int(rate * len(levels))], np.inf))


@dataclass(frozen=True)
class Decision:
    """What is done with one message."""

    intent: str
    confidence: float
    escalated: bool
    reply: str


@dataclass
class ServiceAssistant:
    """Intent classifier, replies and threshold joined.

    Raises:
        ValueError: If the classifier is for another task, an intent has no reply, or the threshold is below 0.
    """

    classifier: SavedModel  # of the task classify, whose labels are the intents
    replies: Mapping[str, Sequence[str]]  # by intent
    threshold: float  # confidence from which on messages are answered; above 1: never
    margin: float = 0.1  # by which another reply must be nearer than the first one to an intent, which should be the most general
    escalated_intents: tuple[str, ...] = ("speak_to_human",)  # intents whose reply announces a person
    max_words: int = 400  # of a message
    _finder: "ReplyFinder" = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Check that the parts fit together."""
        if self.classifier.task != "classify":
            raise ValueError(f"A model for the task 'classify' is needed here, but this one is for {self.classifier.task!r}.")
        without = [label for label in self.classifier.labels if not self.replies.get(label)]
        if without:
            raise ValueError(f"The intent {without[0]!r} has no reply. Write one at least for each of: {', '.join(without[:10])}.")
        if self.threshold < 0:
            raise ValueError(f"threshold is {self.threshold}, but must be 0 or more: the confidence from which on messages are answered.")
        self._finder = ReplyFinder([(label, text) for label in self.classifier.labels for text in self.replies[label]])

    def decide(self, messages: Sequence[str], *, queries: Sequence[str] | None = None) -> list[Decision]:
        """Decide on messages, each by itself.

        Args:
            messages: What the classifier reads.
            queries: Texts by which the reply to an intent is chosen; the messages themselves unless given.

        Raises:
            ValueError: If a message is empty or has more than `max_words` words.
        """
        for number, message in enumerate(messages, 1):
            self._check(message, f"Message {number} of {len(messages)}" if len(messages) > 1 else "The message")
        if not len(messages):
            return []
        probs = text_probs(self.classifier, list(messages))
        decisions = []
        for query, row in zip(messages if queries is None else queries, probs, strict=True):
            intent, confidence = self.classifier.labels[int(row.argmax())], float(row.max())
            unsure = confidence < self.threshold
            reply = ESCALATION if unsure else self._finder.best(query, intent, margin=self.margin)
            decisions.append(Decision(intent, confidence, unsure or intent in self.escalated_intents, reply))
        return decisions

    def replay(self, turns: Sequence[Mapping[str, str]], *, context_turns: int = 3) -> list[tuple[str, Decision]]:
        """Decide on each of the customer's turns of a conversation.

        A turn such as "58839, in blue." says nothing by itself: the classifier reads it behind the customer's turns before it. Where
        the same reply would come again, the conversation is escalated; from then on a person answers.

        Args:
            turns: As in a corpus of dialogues: speaker ("customer" or "agent") and text.
            context_turns: Turns of the customer that are read together, the present one among them.

        Returns:
            Each turn of the customer with the decision; the reply is empty where a person has taken over before.
        """
        said = [turn["text"] for turn in turns if turn["speaker"] == "customer"]
        for number, text in enumerate(said, 1):
            self._check(text, f"Turn {number} of the customer")
        together = [" ".join(said[max(0, last + 1 - context_turns) : last + 1]) for last in range(len(said))]
        decisions, given, with_person = [], set(), False
        for decision in self.decide(together, queries=said):
            if with_person:
                decision = replace(decision, escalated=True, reply="")
            elif decision.reply in given:
                decision = replace(decision, escalated=True, reply=ESCALATION)
            given.add(decision.reply)
            with_person = decision.escalated
            decisions.append(decision)
        return list(zip(said, decisions, strict=True))

    def _check(self, message: str, name: str) -> None:
        if not isinstance(message, str) or not message.strip():
            raise ValueError(f"{name} is empty. Ask the customer to write what it is about.")
        if (size := len(message.split())) > self.max_words:
            raise ValueError(
                f"{name} has {size:,} words, but at most {self.max_words} are read: a longer one holds more than one request. "
                "Hand it to a person, or raise max_words."
            )


class ReplyFinder:
    """Find the reply nearest to a text: cosine of TF-IDF vectors over words."""

    def __init__(self, replies: Sequence[tuple[str, str]]):
        """Read replies, pairs of an intent and a text."""
        from sklearn.feature_extraction.text import TfidfVectorizer

        if not replies:
            raise ValueError("There is no reply to choose from.")
        self.labels, self.texts = (list(column) for column in zip(*replies, strict=True))
        self._nearest = NearestText(TfidfVectorizer(sublinear_tf=True)).fit(self.texts, self.labels)

    def best(self, text: str, intent: str, *, margin: float = 0.0) -> str:
        """Return the first of the replies to an intent, or the nearest one if it is nearer by more than `margin`."""
        rows = [row for row, label in enumerate(self.labels) if label == intent]
        near = self._nearest.similarities([text])[0, rows]
        return self.texts[rows[int(near.argmax()) if near.max() > near[0] + margin else 0]]

    def nearest_texts(self, texts: Sequence[str]) -> list[str]:
        """Return for each text the most similar reply of any intent."""
        return [self.texts[row] for row in self._nearest.nearest(texts)]

    def nearest_labels(self, texts: Sequence[str]) -> np.ndarray:
        """Return the intent of the nearest reply of all, shape (num_texts,)."""
        return np.array(self._nearest.predict(texts))


def facts_in(text: str) -> set[str]:
    """Return what a reader could check: numbers, times, days, things in quotation marks (menus, say), addresses; in lower case."""
    found = {match.group().strip('"').lower() for match in _FACT.finditer(text)}
    return {_NUMBERS.get(fact, fact) for fact in found}  # three days are 3 days


def repeats(text: str, *, num_words: int = 4) -> bool:
    """Return whether a run of so many words stands in a text twice."""
    words = re.findall(r"\w+", text.lower())
    runs = [tuple(words[start : start + num_words]) for start in range(len(words) - num_words + 1)]
    return len(runs) > len(set(runs))


def as_turns(message: str, reply: str) -> list[dict[str, str]]:
    """Return a message and its reply as a conversation of two turns."""
    return [{"speaker": "customer", "text": message}, {"speaker": "agent", "text": reply}]


def train_reply_generator(
    conversations: Mapping[str, Iterable[Sequence[Mapping[str, str]]]], *, base: SavedModel, config: TrainConfig = GENERATOR_CONFIG
) -> tuple[SavedModel, pd.DataFrame]:
    """Teach a language model to write the agent's turns: it reads whole conversations, and the agent's words alone count.

    Args:
        conversations: For train and perhaps valid: conversations, each a list of turns.
        base: A language model; it stays as it is.
        config: Settings of the training.

    Returns:
        A language model of its own, and the history of its training.

    Raises:
        ValueError: If train holds no turn of an agent, or a speaker is neither customer nor agent.
    """
    parts = {split: [_encode_turns(base, turns) for turns in part] for split, part in conversations.items()}
    if not any((targets >= 0).any() for _, targets in parts.get("train", [])):
        raise ValueError("train has no turn of an agent to learn from.")
    keras.utils.set_random_seed(config.seed)
    model = build_language_model(**backbone_config(base.model), dropout=0.2)
    load_backbone_weights(model, base.model)
    examples = {
        split: Examples({"token_ids": [ids for ids, _ in part]}, [targets for _, targets in part], along="token_ids")
        for split, part in parts.items()
        if part
    }
    history = fit_examples(model, examples["train"], examples.get("valid"), config=config)
    return replace(base, model=model, folder=None), history


def generate_replies(
    saved: SavedModel, conversations: Sequence[Sequence[Mapping[str, str]]], *, temperature: float = 0.0, seed: int = 42
) -> list[str]:
    """Return the agent's next turn for each conversation, all written side by side.

    Args:
        saved: From `train_reply_generator`.
        conversations: Turns so far; the last is the customer's.
        temperature: 0 takes the most probable token each time.
        seed: Of the draws.
    """
    prompts = ["".join(f"{_role(turn)} {_one_line(turn['text'])}\n" for turn in turns) + ROLES["agent"] for turns in conversations]
    texts = TextGenerator(saved.model, saved.tokenizer).generate_batch(
        prompts, sampler=Sampler(temperature=temperature), max_tokens=MAX_REPLY_TOKENS, seed=seed, stop="\n"
    )
    return [_one_line(text) for text in texts]


def _role(turn: Mapping[str, str]) -> str:
    if turn["speaker"] not in ROLES:
        raise ValueError(f"The speaker is {turn['speaker']!r}, but must be one of {', '.join(ROLES)}.")
    return ROLES[turn["speaker"]]


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _encode_turns(base: SavedModel, turns: Sequence[Mapping[str, str]]) -> tuple[np.ndarray, np.ndarray]:
    """Return the token ids of a conversation and, at each place, the next token if it is the agent's, else -1."""
    ids, counts = [np.array([base.tokenizer.end_id])], [np.array([False])]
    for turn in turns:
        # Cut where `generate_replies` cuts its prompt, so that both see the same tokens.
        for text, learned in ((_role(turn), False), (f" {_one_line(turn['text'])}\n", turn["speaker"] == "agent")):
            piece = base.tokenizer.encode(text)
            ids.append(piece)
            counts.append(np.full(len(piece), learned))
    joined, counted = np.concatenate(ids).astype("int32"), np.concatenate(counts)
    return joined[:-1], np.where(counted[1:], joined[1:], -1)
