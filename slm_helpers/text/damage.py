"""Damage that a text took on its way: wrong encodings, markup and escapes that were never undone, characters that nobody sees.

Reference:
    Speer (2019), "ftfy", https://ftfy.readthedocs.io: UTF-8 that was read as Windows-1252.
"""

import html
import re

# UTF-8 read as Windows-1252 or Latin-1: a lead byte as a letter, then continuation bytes as signs.
_CONTINUATION = "\u0080-\u00bf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ"
_MOJIBAKE = re.compile(rf"[Â-ß][{_CONTINUATION}]|[à-ï][{_CONTINUATION}]{{2}}|[ðñòóô][{_CONTINUATION}]{{3}}")
_PATTERNS = {
    "replacement characters (U+FFFD)": re.compile("\ufffd"),
    "HTML entities": re.compile(r"&(?:[a-zA-Z]{2,8}|#\d{2,6}|#x[0-9a-fA-F]{2,5});"),
    "HTML tags": re.compile(r"</?(?:br|p|div|span|a|b|i|em|strong|li|ul|ol|h[1-6]|img|script|style|table|tr|td)\b[^<>]{0,200}/?>", re.I),
    "escaped characters": re.compile(r"\\(?:u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2})|(?<![A-Za-z]:)\\[nrt](?![\w\\])|\\n\\n|\\n[A-Z]"),
    "invisible characters": re.compile("[\u00ad\u200b\u2060-\u2064\u202a-\u202e\u2066-\u2069\ufeff]"),
    "controls (U+0080 to U+009F)": re.compile("[\u0080-\u009f]"),  # Windows-1252 that was read as Latin-1
    "private characters": re.compile("[\ue000-\uf8ff]"),
}
MOJIBAKE = "wrong encoding (mojibake)"
KINDS = (MOJIBAKE, *_PATTERNS)
_HAS_SIGN = re.compile(r"[^\x00-\x7f]|[&<\\]")


def find_damage(text: str) -> dict[str, int]:
    """Return how often each kind of damage stands in a text; {} for a sound one.

    Example:
        >>> find_damage("The cafÃ© &amp; bar")
        {'wrong encoding (mojibake)': 1, 'HTML entities': 1}
    """
    if not _HAS_SIGN.search(text):
        return {}
    found = {MOJIBAKE: sum(_is_mojibake(match.group()) for match in _MOJIBAKE.finditer(text))}
    found |= {kind: len(pattern.findall(text)) for kind, pattern in _PATTERNS.items()}
    if "&" in text and html.unescape(text) == text:
        found["HTML entities"] = 0
    return {kind: number for kind, number in found.items() if number}


def _is_mojibake(signs: str) -> bool:
    """Whether some signs, written as Windows-1252, are the bytes of one character in UTF-8."""
    try:
        data = b"".join(sign.encode("latin-1") if sign < "\u0100" else sign.encode("cp1252") for sign in signs)
        return len(data.decode("utf-8")) == 1
    except UnicodeError:
        return False
