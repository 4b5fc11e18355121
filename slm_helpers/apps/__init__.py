"""A customer service desk and a voice assistant, one notebook each."""
