"""Customer service: what decisions cost, when the desk hands over, what it refuses, and replies written by a language model."""

from slm_helpers.apps import service
from slm_helpers.apps.service import (
    ESCALATION,
    Costs,
    ReplyFinder,
    ServiceAssistant,
    choose_threshold,
    facts_in,
    false_alarm_threshold,
    repeats,
)
from slm_helpers.models.language_model import build_language_model
from slm_helpers.models.saved import SavedModel
from slm_helpers.tasks.text_classification import TextClassifier
from slm_helpers.text.tokenizers import train_bpe_tokenizer
from slm_helpers.training.config import TrainConfig

import keras
import numpy as np
import pandas as pd
import pytest

LABELS = ["refund", "speak_to_human", "track"]
REPLIES = {
    "refund": ["Your money is back within five days.", "A gift card share goes back to the card."],
    "track": ["Tell me the order number."],
    "speak_to_human": ["A colleague is coming."],
}


@pytest.fixture
def desk(monkeypatch):
    """A desk whose classifier is sure of messages with an exclamation mark and reads the intent from their words."""
    asked = []

    def probs(saved, texts):
        asked.append(list(texts))
        rows = []
        for text in texts:
            place = next((i for i, word in enumerate(["money", "person", "where"]) if word in text), 2)
            top = 0.9 if "!" in text else 0.4
            rows.append([top if i == place else (1 - top) / 2 for i in range(3)])
        return np.array(rows)

    monkeypatch.setattr(service, "text_probs", probs)
    made = ServiceAssistant(SavedModel(model=None, task="classify", labels=LABELS), REPLIES, threshold=0.6, max_words=20)
    made.asked = asked
    return made


# Costs


def test_costs_of_the_four_kinds_of_decision():
    costs = Costs(correct=1, wrong=20, escalated_correct=5, escalated_wrong=3)
    np.testing.assert_array_equal(costs.of([True, False, True, False], [True, True, False, False]), [1, 20, 5, 3])


def test_above_the_break_even_answering_costs_less():
    costs = Costs(correct=1, wrong=20, escalated_correct=5, escalated_wrong=3)
    for probability, answer in ((costs.break_even + 0.01, True), (costs.break_even - 0.01, False)):
        mean = {
            kind: probability * costs.of([True], [kind])[0] + (1 - probability) * costs.of([False], [kind])[0] for kind in (True, False)
        }
        assert (mean[True] < mean[False]) == answer
    assert Costs().break_even == pytest.approx(2 / 3)


def test_costs_that_leave_nothing_to_decide_are_refused():
    with pytest.raises(ValueError, match="something to decide"):
        Costs(wrong=3)


def test_the_threshold_of_least_cost():
    confidence, right = [0.2, 0.4, 0.6, 0.8], [False, False, True, True]
    assert choose_threshold(confidence, right, Costs()) == pytest.approx(0.5)
    assert choose_threshold(confidence, [True] * 4, Costs()) == 0
    assert choose_threshold(confidence, [False] * 4, Costs()) > 1
    rng = np.random.default_rng(0)
    confidence = rng.random(300)
    right, costs = rng.random(300) < confidence, Costs()
    best = costs.of(right, confidence >= choose_threshold(confidence, right, costs)).mean()
    assert all(best <= costs.of(right, confidence >= level).mean() + 1e-9 for level in np.linspace(0, 1.1, 200))


def test_no_more_false_alarms_than_are_borne():
    scores = [0.1, 0.9, 0.3, 0.5, 0.5, 0.2, 0.7, 0.4, 0.6, 0.8]
    for rate in (0.0, 0.1, 0.25, 0.5):
        threshold = false_alarm_threshold(scores, rate=rate)
        assert (np.array(scores) >= threshold).mean() <= rate
    assert (np.array(scores) >= false_alarm_threshold(scores, rate=0.1)).sum() == 1
    with pytest.raises(ValueError, match="rate"):
        false_alarm_threshold(scores, rate=1.0)
    with pytest.raises(ValueError, match="no score"):
        false_alarm_threshold([], rate=0.1)


# The desk


def test_the_desk_answers_when_it_is_sure_and_hands_over_when_it_is_not(desk):
    sure, unsure, person = desk.decide(["my money, five days gone!", "my money", "a person please!"])
    assert (sure.intent, sure.escalated, sure.reply) == ("refund", False, REPLIES["refund"][0])
    assert (unsure.intent, unsure.escalated, unsure.reply) == ("refund", True, ESCALATION)
    assert (person.escalated, person.reply) == (True, REPLIES["speak_to_human"][0])
    assert desk.decide(["money on my gift card!"])[0].reply == REPLIES["refund"][1]
    assert desk.decide([]) == []


def test_a_conversation_is_read_with_what_the_customer_said_before(desk):
    turns = [
        {"speaker": "customer", "text": "where is it!"},
        {"speaker": "agent", "text": "What number?"},
        {"speaker": "customer", "text": "58839"},
        {"speaker": "customer", "text": "Thanks"},
    ]
    decisions = desk.replay(turns, context_turns=2)
    assert [text for text, _ in decisions] == ["where is it!", "58839", "Thanks"]
    assert desk.asked[-1] == ["where is it!", "where is it! 58839", "58839 Thanks"]
    assert [(decision.escalated, decision.reply) for _, decision in decisions] == [
        (False, REPLIES["track"][0]),
        (True, ESCALATION),  # it would say the same again
        (True, ""),  # a person has taken over
    ]
    desk.threshold = 0.95
    assert [decision.reply for _, decision in desk.replay(turns)] == [ESCALATION, "", ""]


@pytest.mark.parametrize("message", ["", "  \n ", None])
def test_an_empty_message_is_refused(desk, message):
    with pytest.raises(ValueError, match="Message 2 of 2 is empty"):
        desk.decide(["hello", message])


def test_a_message_of_five_thousand_words_is_refused(desk):
    with pytest.raises(ValueError, match=r"The message has 5,000 words, but at most 20 are read.*max_words"):
        desk.decide(["word " * 5000])
    with pytest.raises(ValueError, match="Turn 1 of the customer has 5,000 words"):
        desk.replay([{"speaker": "customer", "text": "word " * 5000}])


def test_a_desk_whose_parts_do_not_fit_is_refused():
    saved = SavedModel(model=None, task="classify", labels=LABELS)
    with pytest.raises(ValueError, match="The intent 'track' has no reply"):
        ServiceAssistant(saved, REPLIES | {"track": []}, threshold=0.5)
    with pytest.raises(ValueError, match="this one is for 'lm'"):
        ServiceAssistant(SavedModel(model=None), REPLIES, threshold=0.5)
    with pytest.raises(ValueError, match="threshold is -1"):
        ServiceAssistant(saved, REPLIES, threshold=-1)


def test_one_intent_only_is_refused():
    frame = pd.DataFrame({"text": ["hello", "good day"], "label": ["greet"] * 2, "split": ["train", "valid"]})
    with pytest.raises(ValueError, match="1 class"):
        TextClassifier(None).fit_frame(frame)


# Replies


def test_the_nearest_reply_shares_the_rare_words():
    finder = ReplyFinder([(label, text) for label in REPLIES for text in REPLIES[label]])
    assert finder.nearest_labels(["which order number do you need", "gift card share"]).tolist() == ["track", "refund"]
    assert finder.best("nothing in common, xyz", "refund") == REPLIES["refund"][0]
    assert finder.best("card", "refund") == REPLIES["refund"][1]
    assert finder.best("card", "refund", margin=0.99) == REPLIES["refund"][0]
    with pytest.raises(ValueError, match="no reply"):
        ReplyFinder([])


def test_facts_and_repetition():
    text = 'Under "My orders" until 18:30, or write to care@example.com within 30 days. It costs 3.20 euros.'
    assert facts_in(text) == {"my orders", "18:30", "care@example.com", "30", "3.20"}
    assert facts_in("Within Three working days, on Friday or tomorrow.") == {"3", "friday", "tomorrow"}
    assert facts_in("No fact here, the weekend is fine.") == set()
    assert repeats("We will look into it, and we will look into it.") and not repeats("We will look into it and we will.")


def test_the_writer_learns_the_agents_words_alone_and_writes_many_at_once():
    asked = ["The red door please?", "The blue door?", "And now the green one?"]
    talks = [service.as_turns(message, "Take the lift.") for message in asked]
    texts = [turn["text"] for turns in talks for turn in turns]
    tokenizer = train_bpe_tokenizer([*texts, "Customer: Agent:\n"], vocab_size=320)
    keras.utils.set_random_seed(0)
    base = SavedModel(model=build_language_model(tokenizer.vocab_size, units=24, embedding_dim=16), tokenizer=tokenizer)
    ids, targets = service._encode_turns(base, talks[0])
    assert tokenizer.decode(targets[targets >= 0]) == " Take the lift.\n" and len(ids) == len(targets)
    np.testing.assert_array_equal(ids[1:][targets[:-1] >= 0], targets[:-1][targets[:-1] >= 0])
    writer, history = service.train_reply_generator(
        {"train": talks, "valid": talks[:2]}, base=base, config=TrainConfig(epochs=40, batch_size=3, learning_rate=2e-2)
    )
    assert set(history["split"]) == {"train", "valid"}
    assert service.generate_replies(writer, [turns[:1] for turns in talks]) == ["Take the lift."] * 3
    assert service.generate_replies(writer, []) == []
    with pytest.raises(ValueError, match="The speaker is 'bot'"):
        service.generate_replies(writer, [[{"speaker": "bot", "text": "hi"}]])
    with pytest.raises(ValueError, match="no turn of an agent"):
        service.train_reply_generator({"train": [talks[0][:1]]}, base=base)


@pytest.mark.parametrize(
    ("confidence", "correct"), [([], []), ([0.5], []), ([0.5, float("nan")], [True, False]), ([[0.5, 0.6]], [True, False])]
)
def test_a_threshold_needs_one_confidence_and_one_answer_a_message(confidence, correct):
    with pytest.raises(ValueError, match="one message at least"):
        choose_threshold(confidence, correct, Costs())


def test_series_of_messages_are_read_like_lists(desk):
    messages = pd.Series(["my money!", "a person please!"], index=[7, 3])
    assert desk.decide(messages, queries=messages) == desk.decide(messages.tolist())
    threshold = choose_threshold(pd.Series([0.1, 0.9], index=[5, 6]), pd.Series([False, True], index=[5, 6]), Costs())
    assert threshold == pytest.approx(0.5)
