"""Geodesics of normalised networks beside segments: see :mod:`experiments.geodesics.__main__`."""
