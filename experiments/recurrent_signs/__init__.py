"""Merges recurrent networks with and without signs. Run as ``python -m experiments.recurrent_signs``."""
