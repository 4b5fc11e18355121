"""Predictions and references to tables of scores with 95 % intervals; no Keras."""
