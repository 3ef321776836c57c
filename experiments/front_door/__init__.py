"""What one call of :func:`sinkhorn_rebasin.align` gives with its defaults."""
