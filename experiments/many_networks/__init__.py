"""Several networks merged into one: see :mod:`experiments.many_networks.__main__`."""
