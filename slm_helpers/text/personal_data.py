"""Personal data that a pattern can find: e-mail and network addresses, telephone, card and account numbers, user names.

What has a check digit (cards, accounts) is checked by it. Names and street addresses have no pattern: an empty result is no proof that a
text names nobody.

Reference:
    ISO/IEC 7812-1 (Luhn's check digit of cards) and ISO 13616 (IBAN, remainder 97).
"""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """Something of one kind in a text, and where: first character and end."""

    kind: str
    start: int
    end: int


_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@(?:[\w-]{1,63}\.){1,4}[A-Za-z]{2,24}\b")
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?:[ ]?[A-Z0-9]{4}){2,7}(?:[ ]?[A-Z0-9]{1,3})?\b")
_CARD = re.compile(r"(?<![\d.,-])\d(?:[ -]?\d){12,18}(?![\d])")
_IP = re.compile(r"(?<![\d.])(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)(?![\d.])")
_SSN = re.compile(r"(?<![\d-])(?!000|666|9\d\d)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\d-])")
# A telephone number begins with + or 0 or a bracket, or has the groups of 3, 3 and 4 digits of North America.
_PHONE = re.compile(
    r"(?<![\w.,/-])(?<!\d )(?:\+\d{1,3}[ .-]?(?:\(0?\d{1,5}\)[ .-]?)?\d(?:[ ./-]?\d){5,12}|\(0?\d{2,5}\)[ .-]?\d(?:[ .-]?\d){4,9}|"
    r"0\d{2,4}[ /-]\d(?:[ -]?\d){4,8}|0\d{9,11}|\d{3}[ .-]\d{3}[ .-]\d{4})(?![\w-]|[.,/]\d)"
)
_HANDLE = re.compile(r"(?<![\w@.])@[A-Za-z_]\w{2,30}\b(?!\.\w)")
_HAS_DIGITS = re.compile(r"\d[^\n]{0,8}\d")
_PATTERNS = (_EMAIL, _IBAN, _CARD, _IP, _SSN, _PHONE, _HANDLE)
_NEEDS = ("@", "digits", "digits", "digits", "digits", "digits", "@")  # without it a text need not be searched
KINDS = ("e-mail address", "IBAN", "card number", "IP address", "US social security number", "telephone number", "user name")


def find_personal_data(text: str) -> list[Finding]:
    """Return what looks like personal data in a text, by where it begins; of findings that overlap, the first kind of KINDS.

    Example:
        >>> [f.kind for f in find_personal_data("Write to ann@example.org or call +49 30 901820.")]
        ['e-mail address', 'telephone number']
    """
    found: list[Finding] = []
    has = {"@": "@" in text, "digits": bool(_HAS_DIGITS.search(text))}
    for kind, needs, pattern in zip(KINDS, _NEEDS, _PATTERNS, strict=True):
        for match in pattern.finditer(text) if has[needs] else ():
            valid = {"IBAN": is_iban, "card number": is_card_number}.get(kind, bool)(match.group())
            if valid and not any(match.start() < other.end and other.start < match.end() for other in found):
                found.append(Finding(kind, *match.span()))
    return sorted(found, key=lambda finding: finding.start)


def mask_personal_data(text: str) -> str:
    """Return a text with what `find_personal_data` finds replaced by its kind in square brackets.

    Example:
        >>> mask_personal_data("Write to ann@example.org.")
        'Write to [e-mail address].'
    """
    for finding in reversed(find_personal_data(text)):
        text = f"{text[: finding.start]}[{finding.kind}]{text[finding.end :]}"
    return text


def is_card_number(text: str) -> bool:
    """Whether the digits of a text are 13 to 19, begin as cards do (2 to 6), and fulfil Luhn's check."""
    digits = [int(sign) for sign in text if sign.isdigit()]
    if not 13 <= len(digits) <= 19 or not 2 <= digits[0] <= 6 or len(set(digits)) < 2:
        return False
    doubled = [digit if place % 2 == 0 else digit * 2 - 9 * (digit > 4) for place, digit in enumerate(reversed(digits))]
    return sum(doubled) % 10 == 0


def is_iban(text: str) -> bool:
    """Whether a text is an IBAN with the right check digits: the remainder by 97 is 1."""
    signs = text.replace(" ", "").upper()
    if not re.fullmatch(r"[A-Z]{2}\d{2}[A-Z0-9]{11,30}", signs):
        return False
    return int("".join(str(int(sign, 36)) for sign in signs[4:] + signs[:4])) % 97 == 1
