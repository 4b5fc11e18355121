"""The tasks: for each a module with COLUMNS, PREDICT_COLUMNS, DEFAULT, `train`, `evaluate` and `predict`, shared by pages and shell."""
