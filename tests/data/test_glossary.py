import re

from slm_helpers.data.glossary import load_glossary

import pytest


def test_each_term_stands_once_in_order_with_a_name_in_every_language():
    terms = load_glossary()
    assert terms["term"].is_unique and terms["term"].tolist() == sorted(terms["term"], key=str.lower)
    assert not terms.isna().any().any() and not (terms == terms.apply(lambda column: column.str.strip())).eq(False).any().any()
    assert terms["notebook"].map(lambda number: bool(re.fullmatch(r"\d\d", number))).all()
    assert set(terms["notebook"]) >= {"00", "01", "02", "03", "04", "05"}


def test_chinese_names_are_in_chinese_script_but_for_international_ones():
    international = {"logits", "softmax"}
    names = load_glossary().set_index("term")["zh"]
    assert [term for term, name in names.items() if not re.search("[\u4e00-\u9fff]", name) and term not in international] == []


def test_terms_of_one_notebook_and_of_one_without():
    assert "vanishing gradient" in set(load_glossary("02")["term"]) and set(load_glossary("02")["notebook"]) == {"02"}
    with pytest.raises(ValueError, match="99"):
        load_glossary("99")
