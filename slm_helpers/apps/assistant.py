"""A small assistant: a command goes in as words or as sound, and an action on a made-up home comes out.

The home is a handful of lists and dictionaries, and the weather is made up. What is real is the way from words to actions: intent and
slots, a question back where a detail is missing or the command was not understood, and sound as the answer to such a question.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from slm_helpers.tasks.intent_slot import IntentSlotParser
from slm_helpers.tasks.keyword_spotting import KeywordSpotter

import numpy as np

_ONES = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
NUMBERS = {word: number for number, word in enumerate(_ONES.split())} | {word: 10 * n for n, word in enumerate(_TENS.split(), 2)}
_UNITS = {"hour": 3600, "minute": 60, "second": 1, "day": 86400}
_STATES = {"on": "on", "off": "off", "out": "off"}
# What an action cannot do without, and the question that asks for it.
REQUIRED_SLOTS = {
    "set_timer": ("duration", "For how many minutes?"),
    "set_alarm": ("time", "For what time?"),
    "set_temperature": ("temperature", "How many degrees?"),
    "call_contact": ("contact", "Whom shall I call?"),
    "send_message": ("contact", "Who shall get the message?"),
    "add_to_list": ("item", "What shall I write down?"),
    "create_event": ("event", "What shall I call it?"),
    "navigate": ("place", "Where to?"),
}
_ANSWER_UNITS = {"duration": "minutes", "temperature": "degrees"}  # unit of an answer that is a bare number


@dataclass
class Home:
    """The state that actions change."""

    timers: list[int] = field(default_factory=list)  # seconds
    alarms: list[str] = field(default_factory=list)
    lights: dict[str, str] = field(default_factory=dict)  # by room or lamp
    heating: dict[str, str] = field(default_factory=dict)  # by room
    lists: dict[str, list[str]] = field(default_factory=dict)
    calendar: list[str] = field(default_factory=list)
    sent: list[str] = field(default_factory=list)
    playing: str = ""
    doing: str = ""  # a call, a journey


@dataclass(frozen=True)
class Action:
    """What came of one command."""

    heard: str  # the words that were understood, from text or sound
    intent: str
    slots: dict[str, str]
    confidence: float
    done: bool  # False: a question is open, or nothing was done
    reply: str


class Assistant:
    """Read or hear commands one after the other; `home` holds what they have changed."""

    def __init__(self, parser: IntentSlotParser, spotter: KeywordSpotter | None = None, *, min_confidence: float = 0.25):
        """Take the models, fitted or loaded.

        Args:
            parser: Of commands.
            spotter: One whose classes are the digits "0" to "9", for answers by voice.
            min_confidence: A command of lower confidence is not carried out; the assistant asks to say it another way.
        """
        for model, kind in ((parser, IntentSlotParser), (spotter, KeywordSpotter)):
            if model is not None and not isinstance(model, kind):
                raise TypeError(f"{kind.__name__} is needed here, but this is a {type(model).__name__}. Open one by {kind.__name__}.load.")
        if spotter is not None and not set(map(str, spotter.classes_)) <= set("0123456789"):
            raise ValueError(f"The spotter knows {', '.join(map(str, spotter.classes_[:5]))}, but one of the digits 0 to 9 is needed.")
        self.parser, self.spotter, self.min_confidence = parser, spotter, min_confidence
        self.home = Home()
        self._open: tuple[str, dict[str, str]] | None = None  # intent and slots of a command that waits for an answer

    def read(self, text: str) -> Action:
        """Carry out a command in words, or take them as the answer to the open question."""
        words = as_words(text)
        if not words:
            raise ValueError("The command is empty. Say what you want, e.g. 'set a timer for ten minutes'.")
        if self._open is not None:
            return self._answer(" ".join(words), 1.0)
        parsed = self.parser.predict([" ".join(words)])[0]
        intent, confidence = parsed["intent"], parsed["confidence"]
        slots: dict[str, str] = {}
        for slot in parsed["slots"]:
            name, said = slot["slot"], slot["text"]
            slots[name] = f"{slots[name]} and {said}" if name in slots else said  # "milk and eggs" are two items
        if confidence < self.min_confidence:
            return Action(" ".join(words), intent, slots, confidence, False, "I am not sure what you mean. Please say it another way.")
        return self._act(" ".join(words), intent, slots, confidence)

    def hear(self, sound: str | Path | np.ndarray) -> Action:
        """Take a spoken digit, a WAV file or samples, as the answer to the open question."""
        if self.spotter is None:
            raise ValueError("This assistant has no keyword spotter. Give it one, or use read().")
        probs = self.spotter.predict_proba([sound])[0]
        digit, confidence = str(self.spotter.classes_[probs.argmax()]), float(probs.max())
        said = next(word for word, number in NUMBERS.items() if str(number) == digit)
        if self._open is None:
            return Action(said, "", {}, confidence, False, f"I heard {said}, but I have not asked for a number.")
        if confidence < self.min_confidence:
            intent, slots = self._open
            return Action(said, intent, slots, confidence, False, "I did not catch that. Please say it again.")
        return self._answer(said, confidence)

    def _answer(self, words: str, confidence: float) -> Action:
        intent, slots = self._open
        self._open = None
        slot, _ = REQUIRED_SLOTS[intent]
        whole = f"{words} {_ANSWER_UNITS[slot]}" if words in NUMBERS and slot in _ANSWER_UNITS else words
        return self._act(words, intent, slots | {slot: whole}, confidence)

    def _act(self, heard: str, intent: str, slots: dict[str, str], confidence: float) -> Action:
        slot, question = REQUIRED_SLOTS.get(intent, ("", ""))
        unclear = slot == "duration" and slot in slots and seconds_of(slots[slot]) is None
        if slot and (slot not in slots or unclear) and not (intent == "set_temperature" and len(slots)):
            self._open = (intent, slots)
            return Action(heard, intent, slots, confidence, False, question)
        if intent not in _ACTIONS:
            return Action(heard, intent, slots, confidence, False, f"I understood {intent}, but that is not something I can do.")
        return Action(heard, intent, slots, confidence, True, _ACTIONS[intent](self.home, slots))


def as_words(text: str) -> list[str]:
    """Return a command as the models were taught to read it: lower case, no punctuation, small numbers as words.

    Example:
        >>> as_words("Set a timer for 25 minutes, please!")
        ['set', 'a', 'timer', 'for', 'twenty', 'five', 'minutes', 'please']
    """
    names = {number: word for word, number in NUMBERS.items()}
    words = []
    for word in text.lower().replace("'", "").replace("’", "").replace("%", " percent").split():
        bare = word.strip('.,;:!?"()')
        if bare.isascii() and bare.isdigit() and int(bare) < 100:
            number = int(bare)
            words += [names[number]] if number in names else [names[number - number % 10], names[number % 10]]
        elif bare:
            words.append(bare)
    return words


def seconds_of(text: str) -> int | None:
    """Return how long a time span in words is, or None if it cannot be read.

    Example:
        >>> [seconds_of(text) for text in ("an hour and a half", "three quarters of an hour", "five minutes thirty", "a while")]
        [5400, 2700, 330, None]
    """
    total, number, unit = 0.0, None, None
    for word in text.split():
        name = word.removesuffix("s") if word.removesuffix("s") in (*_UNITS, "quarter") else word
        if name in _UNITS:
            unit = _UNITS[name]
            total, number = total + unit * (1 if number is None else number), None
        elif word in NUMBERS:
            number = (number or 0) + NUMBERS[word]
        elif name in ("half", "quarter"):
            part = 0.5 if name == "half" else 0.25
            if word == "quarters":
                number = part * (number or 1)
            elif number is None and unit is not None:
                total += part * unit  # an hour and a half
            else:
                number = (number or 0) + part
        elif word not in ("a", "an", "and", "of", "more", "another"):
            return None
    if number is not None:
        if unit is None or unit == 1:
            return None
        total += number * unit / 60  # five minutes thirty
    return round(total) or None


def _where(slots: dict[str, str], default: str = "house") -> str:
    return slots.get("device") or slots.get("room") or default


def _set_timer(home: Home, slots: dict[str, str]) -> str:
    home.timers.append(seconds_of(slots["duration"]))
    minutes, seconds = divmod(home.timers[-1], 60)
    return f"Timer started: {minutes} min {seconds:02d} s."


def _set_alarm(home: Home, slots: dict[str, str]) -> str:
    home.alarms.append(" ".join([*([slots["date"]] if "date" in slots else []), slots["time"]]))
    return f"Alarm set: {home.alarms[-1]}."


def _control_lights(home: Home, slots: dict[str, str]) -> str:
    place = _where(slots)
    turned = "on" if home.lights.get(place, "off") == "off" else "off"  # "it is too dark in here" does not say which
    light = slots.get("color") or slots.get("level") or _STATES.get(slots.get("state", ""), turned)
    home.lights |= dict.fromkeys([*home.lights, place] if place == "house" else [place], light)
    return f"Light, {place}: {home.lights[place]}."


def _set_temperature(home: Home, slots: dict[str, str]) -> str:
    home.heating[_where(slots)] = slots.get("temperature") or _STATES.get(slots.get("state", ""), "changed")
    return f"Heating, {_where(slots)}: {home.heating[_where(slots)]}."


def _add_to_list(home: Home, slots: dict[str, str]) -> str:
    name = slots.get("list", "shopping")
    home.lists.setdefault(name, []).append(slots["item"])
    return f"On the {name} list: {', '.join(home.lists[name])}."


def _create_event(home: Home, slots: dict[str, str]) -> str:
    home.calendar.append(", ".join(slots[name] for name in ("event", "date", "time", "place", "contact") if name in slots))
    return f"In the calendar: {home.calendar[-1]}."


def _send_message(home: Home, slots: dict[str, str]) -> str:
    home.sent.append(f"{slots['contact']}: {slots.get('message', '(empty)')}")
    return f"Sent to {home.sent[-1]}."


def _play_music(home: Home, slots: dict[str, str]) -> str:
    home.playing = next((slots[name] for name in ("song", "playlist", "artist", "genre") if name in slots), "something you may like")
    return f"Playing {home.playing}."


def _call_contact(home: Home, slots: dict[str, str]) -> str:
    home.doing = f"call to {slots['contact']}"
    return f"Calling {slots['contact']}."


def _navigate(home: Home, slots: dict[str, str]) -> str:
    home.doing = f"journey to {slots['place']}"
    return f"Taking you to {slots['place']}{' by ' + slots['transport'] if 'transport' in slots else ''}."


def _get_weather(home: Home, slots: dict[str, str]) -> str:
    # Made up, and always the same for the same place and day.
    place, date = slots.get("place", "here"), slots.get("date", "today")
    number = sum(map(ord, place + date))
    return f"Weather, {place}, {date}: {('sunny', 'cloudy', 'rain')[number % 3]}, {5 + number % 20} degrees (made up)."


def _read_news(home: Home, slots: dict[str, str]) -> str:
    return f"There is no news{' on ' + slots['topic'] if 'topic' in slots else ''}: this assistant is not connected to anything."


_ACTIONS: dict[str, Callable[[Home, dict[str, Any]], str]] = {
    "set_timer": _set_timer,
    "set_alarm": _set_alarm,
    "control_lights": _control_lights,
    "set_temperature": _set_temperature,
    "add_to_list": _add_to_list,
    "create_event": _create_event,
    "send_message": _send_message,
    "play_music": _play_music,
    "call_contact": _call_contact,
    "navigate": _navigate,
    "get_weather": _get_weather,
    "read_news": _read_news,
}
