from slm_helpers.text.personal_data import find_personal_data, is_card_number, is_iban, mask_personal_data

import pytest


@pytest.mark.parametrize(
    ("text", "kind", "part"),
    [
        ("mail to ann.lee+shop@mail.example.org, please", "e-mail address", "ann.lee+shop@mail.example.org"),
        ("IBAN: DE89 3704 0044 0532 0130 00.", "IBAN", "DE89 3704 0044 0532 0130 00"),
        ("card 4111 1111 1111 1111 expires", "card number", "4111 1111 1111 1111"),
        ("host 192.168.0.17 is down", "IP address", "192.168.0.17"),
        ("SSN 078-05-1120", "US social security number", "078-05-1120"),
        ("ring +49 (0)30 901820 now", "telephone number", "+49 (0)30 901820"),
        ("ring (555) 010-9999 now", "telephone number", "(555) 010-9999"),
        ("ring 555-010-9999.", "telephone number", "555-010-9999"),
        ("ring 07700 900123 today", "telephone number", "07700 900123"),
        ("thanks @ann_lee!", "user name", "@ann_lee"),
    ],
)
def test_each_kind_is_found_where_it_stands(text, kind, part):
    (finding,) = find_personal_data(text)
    assert (finding.kind, text[finding.start : finding.end]) == (kind, part)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "In 1999-2004 they paid 1,234,567.89 for 300 pages.",
        "version 10.2.3 of 2024-05-17 at 12:30:45",
        "card 4111 1111 1111 1112 has a wrong check digit",
        "DE88 3704 0044 0532 0130 00 has wrong check digits",
        "order 0000000000000000",
        "the score was 100-99-98 and 3.14159265358979",
        "meet me @ noon, 5 @ 10 each",
        "999.999.999.999 is no address",
    ],
)
def test_numbers_that_are_none_are_left_alone(text):
    assert find_personal_data(text) == []


def test_check_digits():
    assert is_card_number("5500-0000-0000-0004") and not is_card_number("5500000000000005")
    assert is_iban("GB82 WEST 1234 5698 7654 32") and not is_iban("GB83 WEST 1234 5698 7654 32")


def test_masking_keeps_the_rest():
    assert mask_personal_data("a ann@x.org b 192.168.0.1 c") == "a [e-mail address] b [IP address] c"
    assert mask_personal_data("nothing here") == "nothing here"
