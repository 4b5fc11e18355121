"""A model or a collection of texts to what can be said about it."""
