"""The outside world as DataFrames: bundled corpora, public sets and a person's own files."""

from slm_helpers.data.loading import list_datasets, load_dataset, skipped_rows
from slm_helpers.data.results import compare_on, missed_aims, read_results
from slm_helpers.data.splits import find_shared_runs, make_splits, make_windows, normalise_text

__all__ = [
    "compare_on",
    "find_shared_runs",
    "list_datasets",
    "load_dataset",
    "make_splits",
    "make_windows",
    "missed_aims",
    "normalise_text",
    "read_results",
    "skipped_rows",
]
