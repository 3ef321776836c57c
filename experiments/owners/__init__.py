"""Networks of several owners merged without their data: see :mod:`experiments.owners.__main__`."""
