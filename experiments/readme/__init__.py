"""Fills the generated parts of the pages from receipts. Run as ``python -m experiments.readme``."""
