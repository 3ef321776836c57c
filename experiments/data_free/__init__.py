"""Compares data-free losses at equal seconds. Run as ``python -m experiments.data_free``."""
