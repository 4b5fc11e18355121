"""Strings to token ids and features."""

from slm_helpers.text.tokenizers import Tokenizer, train_bpe_tokenizer, train_char_tokenizer

__all__ = ["Tokenizer", "train_bpe_tokenizer", "train_char_tokenizer"]
