"""The text of the base models: what goes in, what stays out, how it is cut, marked and encoded."""

from slm_helpers.recipes import pretraining_text as module
from slm_helpers.recipes.pretraining_text import Source

import numpy as np
import pandas as pd
import pytest

WORDS = ["ant", "bear", "cat", "dog", "elk", "fox", "goat", "hen", "ibis", "jay", "kite", "lark", "mole", "newt", "owl", "pig"]


def sentence(rng, length=30):
    return " ".join(rng.choice(WORDS, length)) + "."


def book(rng, num_paragraphs):
    return "\n\n".join(sentence(rng) for _ in range(num_paragraphs))


@pytest.fixture
def sets(monkeypatch):
    """Stand-ins for four sources, one a form; a train book holds a paragraph of a test book and repeats one of its own."""
    rng = np.random.default_rng(0)
    test_book = book(rng, 30)
    stolen = "It said: " + test_book.split("\n\n")[3].upper()
    repeated = " ".join(sentence(rng) for _ in range(4))
    long_book = "\n\n".join([book(rng, 400), repeated, stolen, repeated.replace(".", "!")])
    turns = [[{"speaker": "a", "text": f"{sentence(rng, 6)}\n"}, {"speaker": "b", "text": sentence(rng, 5)}] for _ in range(9)]
    turns[2][1]["text"] = turns[6][0]["text"] = sentence(rng, 20)  # 2 is in train, 6 in valid
    lines = [f"{sentence(rng, 4)} {WORDS[i % 16]} {WORDS[i // 16]}" for i in range(70)]  # all different
    frames = {
        "books": pd.DataFrame({"text": [long_book, sentence(rng), book(rng, 3), test_book], "split": ["train", "train", "valid", "test"]}),
        "talks": pd.DataFrame({"turns": turns, "split": ["train"] * 5 + ["valid"] * 4}),
        "requests": pd.DataFrame({"text": [*lines, lines[3], lines[5].upper()], "split": ["train"] * 71 + ["test"]}),
        "reviews": pd.DataFrame({"text": ["good", "bad"], "split": ["train", "test"]}),
    }

    def load(name, split=None):
        frame = frames[name]
        return frame if split is None else frame[frame["split"] == split]

    sources = {
        "books": Source("public domain"),
        "talks": Source("MIT", "whole", module.SOURCES["multiwoz21"].texts),
        "requests": Source("CC0", "lines"),
    }
    monkeypatch.setattr(module, "load_dataset", load)
    monkeypatch.setattr(module, "SOURCES", sources)
    monkeypatch.setattr(module, "SCORED_ONLY", {"reviews": "test"})
    monkeypatch.setattr(module, "VALIDATION_SETS", ("books", "talks"))
    return {"stolen": stolen, "repeated": repeated, "lines": lines}


def test_every_source_names_a_licence_that_allows_products():
    free = ("public domain", "CC0", "CC BY 2.0", "CC BY 3.0", "CC BY 4.0", "CC BY-SA", "Apache", "MIT", "BSD", "CDLA")
    for name, source in module.SOURCES.items():
        assert source.licence.startswith(free), name
        assert source.form in ("paragraphs", "whole", "lines")
    assert not set(module.SCORED_ONLY) & set(module.SOURCES)
    assert not {"imdb", "abc_news", "webnlg", "dream", "mctest", "dailydialog", "commonsense_dialogues"} & set(module.SOURCES)


def test_held_out_parts_and_a_valid_part_dealt_in_two(sets):
    held_out = module.held_out_texts(["books", "talks", "requests", "reviews"])
    assert {name: len(texts) for name, texts in held_out.items()} == {
        "books/valid": 1, "books/test": 1, "talks/valid": 2, "talks/test": 2, "requests/test": 1, "reviews/test": 1
    }  # fmt: skip


def test_what_is_held_out_or_repeated_is_left_out(sets):
    gathered = {name: (documents, counts) for name, documents, counts in module.gather_documents()}
    books, counts = gathered["books"]
    text = "\n\n".join(books)
    assert sets["stolen"] not in text
    assert text.count(sets["repeated"]) == 1 and sets["repeated"].replace(".", "!") not in text
    assert counts == {"paragraphs": 404, "paragraphs_left_out": 2}
    assert "\n\n\n" not in text and text.count("\n\n") == 401
    assert gathered["talks"][1] == {"paragraphs": 5, "paragraphs_left_out": 1}
    requests = "\n".join(gathered["requests"][0]).split("\n")
    assert sorted(requests) == sorted(line for i, line in enumerate(sets["lines"]) if i != 5)  # each once, none of test


def test_books_are_cut_and_lines_put_together(sets):
    first, second = ([documents for _, documents, _ in module.gather_documents(seed=seed)] for seed in (1, 2))
    books, talks, requests = first
    assert max(map(len, books)) < module.PART_CHARS + 1000 and len(books) == 4
    assert [len(document.split("\n")) for document in requests] == [30, 30, 9]
    assert second[:2] == first[:2] and second[2] != requests
    assert all(talk.count("\n") == 1 for talk in talks)
    assert [talk.startswith("- ") and "\n- " in talk for talk in talks] == [True, False, False, True][: len(talks)] or len(talks) == 4


def test_text_is_encoded_once_with_an_end_after_each_document(sets, tmp_path, monkeypatch):
    tokenizer, folder = module.encode_text(tmp_path, vocab_size=300)
    table = pd.read_csv(folder / "sources.csv").set_index("source")
    tokens = np.load(folder / "tokens.npy", mmap_mode="r")
    assert tokens.dtype == np.uint16 and len(tokens) == table["tokens"].sum()
    assert (tokens == tokenizer.end_id).sum() == table["documents"].sum()
    documents = [text for _, texts, _ in module.gather_documents() for text in texts]
    assert table["bytes"].sum() == sum(len(text.encode()) for text in documents)
    first = tokens[: np.flatnonzero(tokens == tokenizer.end_id)[0]]
    assert tokenizer.decode(first) == documents[0]
    assert table["licence"].to_dict() == {"books": "public domain", "talks": "MIT", "requests": "CC0"}
    monkeypatch.setattr(module, "gather_documents", lambda **_: pytest.fail("gathered twice"))
    module.encode_text(tmp_path, vocab_size=300)
    assert module.encode_text(tmp_path, vocab_size=280)[0].vocab_size == 280
