"""Connectivity over widths and batch sizes, raw and aligned: see :mod:`experiments.taxonomy.__main__`."""
