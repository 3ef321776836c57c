"""The soft permutation beside the published operator. Run as ``python -m experiments.sinkhorn_speed``."""
