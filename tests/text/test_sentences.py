"""The sentence that a question is asked of."""

from slm_helpers.text.sentences import MAX_WORDS, source_sentence

CONTEXT = "The mill stands by the Orr. In 1284 the monks of Wendle built a wooden bridge. It had 12 arches. Mr Finch mends it."


def test_a_question_is_asked_of_the_sentence_of_its_answer_and_of_the_words_around_it_where_that_is_long():
    row = {"context": CONTEXT, "answer": "12", "answer_start": CONTEXT.index("12 arches")}
    assert source_sentence(row) == "It had 12 arches."
    assert source_sentence({"context": CONTEXT, "answer": ""}) == CONTEXT
    words = [f"w{i}" for i in range(5000)]
    for place in (0, 2500, 4999):
        long = {"context": " ".join(words), "answer": words[place], "answer_start": " ".join(words).index(words[place])}
        cut = source_sentence(long).split()
        assert len(cut) == MAX_WORDS and words[place] in cut
    assert source_sentence({"context": " ".join(words), "answer": ""}).split() == words[:MAX_WORDS]
