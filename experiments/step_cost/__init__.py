"""Measures what one data-free step costs. Run as ``python -m experiments.step_cost``."""
