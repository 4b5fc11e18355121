"""Programs that made the repository's models and measured figures."""
