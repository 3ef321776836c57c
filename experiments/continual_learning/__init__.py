"""Teaches a sequence of tasks by every method. Run as ``python -m experiments.continual_learning``."""
