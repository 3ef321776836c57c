"""Masks of pruned networks carried to other networks: see :mod:`experiments.masks.__main__`."""
