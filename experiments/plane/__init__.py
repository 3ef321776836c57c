"""The plane through a reference, a target and its aligned copy: see :mod:`experiments.plane.__main__`."""
