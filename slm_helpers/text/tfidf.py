"""TF-IDF vectors of texts over words, characters or both, as all baselines take them."""

from slm_helpers._checks import check_choice

ANALYZERS = ("word", "char", "both")
MANY_ROWS_TIMES_CLASSES = 300_000  # from which on linear models take a usual regularisation instead of trying four
_WORD = r"(?u)\b\w+\b"  # one letter is a word too
_WORD_OR_SIGN = r"(?u)\w+|[^\w\s]"


def build_tfidf(analyzer: str = "both", *, char_ngrams: tuple[int, int] = (2, 5), punctuation: bool = False):
    """Build a scikit-learn vectorizer of words and word pairs, of character n-grams within words, or of both side by side.

    Args:
        analyzer: "word", "char" or "both".
        char_ngrams: Shortest and longest character n-gram.
        punctuation: Whether punctuation marks count as words.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_union

    check_choice(ANALYZERS, analyzer=analyzer)
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=_WORD_OR_SIGN if punctuation else _WORD)
    characters = TfidfVectorizer(analyzer="char_wb", ngram_range=char_ngrams, sublinear_tf=True)
    return {"word": words, "char": characters}.get(analyzer) or make_union(words, characters)
