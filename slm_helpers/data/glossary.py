"""The terms of the notebooks in five languages: data/glossary.csv."""

from slm_helpers._paths import DATA_DIR, check_checkout

import pandas as pd


def load_glossary(notebook: str | None = None) -> pd.DataFrame:
    """Return terms with their Chinese, Spanish, German and French names and a meaning in one line.

    Args:
        notebook: Only the terms that a notebook brings first, by its number, e.g. "02"; None: all.

    Returns:
        Columns term, zh, es, de, fr, meaning, notebook; sorted by term.

    Raises:
        ValueError: If no term belongs to the notebook.
    """
    terms = pd.read_csv(check_checkout(DATA_DIR) / "glossary.csv", dtype=str)
    if notebook is None:
        return terms
    found = terms[terms["notebook"] == notebook].reset_index(drop=True)
    if not len(found):
        raise ValueError(f"No term belongs to notebook {notebook!r}. There are terms of: {', '.join(sorted(set(terms['notebook'])))}.")
    return found
