"""Is discovery sound on the networks people have? Run as ``python -m experiments.zoo``."""
