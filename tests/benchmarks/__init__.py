"""Measured speed, cost and quality: `make bench` runs all of it, `make test` none. Each module is a script with --help."""
