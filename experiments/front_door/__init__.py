"""What one call of :func:`sinkhorn_rebasin.align` gives with its defaults; see :mod:`experiments.front_door.__main__`."""
