"""Lower layers of one network stitched to upper ones of another: see :mod:`experiments.stitching.__main__`."""
