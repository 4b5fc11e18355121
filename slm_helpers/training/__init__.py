"""A network and arrays to weights."""
