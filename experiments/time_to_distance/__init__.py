"""Times both implementations to one distance. Run as ``python -m experiments.time_to_distance``."""
