"""Averages of random initialisations: see :mod:`experiments.averaging.__main__`."""
