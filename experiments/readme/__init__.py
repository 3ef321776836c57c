"""Fills the tables of RESULTS.md. Run as ``python -m experiments.readme``."""
