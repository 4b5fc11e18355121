"""A saved model folder to something that runs without Keras."""
