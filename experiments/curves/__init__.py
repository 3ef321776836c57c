"""Curves between networks, aligned first or not: see :mod:`experiments.curves.__main__`."""
