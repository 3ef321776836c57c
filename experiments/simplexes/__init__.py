"""Three networks in one simplex after alignment: see :mod:`experiments.simplexes.__main__`."""
