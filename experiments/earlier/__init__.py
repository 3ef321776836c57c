"""Measures this tree beside an earlier one. Run as ``python -m experiments.earlier``."""
