"""The outside world as DataFrames: bundled corpora, public sets and a person's own files."""
