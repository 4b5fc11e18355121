"""The text of one sample while it is written: decoded piece by piece, ended by the end token or a stop string."""

from collections.abc import Iterable, Sequence

from slm_helpers.text.tokenizers import Tokenizer


class TextBuilder:
    """The text of one sample while it is written: decodes only what is new, and ends at the end token or before a stop string."""

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str] = ()):
        self.tokenizer, self.stops = tokenizer, list(stops)
        self.text, self.token_ids, self.ended = "", [], False
        self.log_prob, self.num_scored = 0.0, 0  # of the tokens, the end token among them
        self._whole, self._pending, self._shown = "", [], 0  # decoded for good; tokens whose last character may go on; given out

    def add(self, token_ids: list[int], log_probs: Sequence[float] = ()) -> None:
        """Append tokens, up to the end token if it is among them; `log_probs` are theirs."""
        num_scored = len(token_ids)
        if self.tokenizer.end_id in token_ids:
            num_scored = token_ids.index(self.tokenizer.end_id) + 1
            token_ids = token_ids[: num_scored - 1]
            self.ended = True
        self.log_prob += float(sum(log_probs[:num_scored]))
        self.num_scored += num_scored
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
        ends = [(start + len(stop), start) for stop in self.stops if (start := self.text.find(stop, searched)) >= 0]
        if ends:
            self.text, self.ended, self._pending = self.text[: min(ends)[1]], True, []
            while self.token_ids and self.tokenizer.decode(self.token_ids[:-1]).startswith(self.text):
                self.token_ids.pop()

    def finish(self) -> str:
        """Close the text and return it: a last character that stayed unfinished shows as U+FFFD."""
        if self._pending:
            self.text = self._whole + self.tokenizer.decode(self._pending)
            self._whole, self._pending = self.text, []
        self.ended = True
        return self.text

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


def check_stops(stop: str | Sequence[str]) -> list[str]:
    """Return one or several stop strings as a list. Raises TypeError if one is no text, and ValueError if one is empty."""
    if not isinstance(stop, Iterable):
        raise TypeError(f"stop is {stop!r:.40}, but must be a string or several. Leave it out for none.")
    stops = [stop] if isinstance(stop, str) else list(stop)
    for string in stops:
        if not isinstance(string, str):
            raise TypeError(f"A stop string is {string!r:.40} ({type(string).__name__}), but must be text.")
        if not string:
            raise ValueError("A stop string is empty: every sample would end at once. Leave stop out for none.")
    return stops


def _overlap(text: str, stop: str) -> int:
    """Return how many of the last characters of `text` are the beginning of `stop`."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)
