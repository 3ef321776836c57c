"""Recurrent networks and mixtures of experts merged: see :mod:`experiments.merge_families.__main__`."""
