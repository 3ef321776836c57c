"""Two networks of different classes merged into one: see :mod:`experiments.label_sets.__main__`."""
