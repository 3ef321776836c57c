"""Compares every method on the same pairs. Run as ``python -m experiments.compare_methods``."""
