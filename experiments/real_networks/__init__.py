"""Checks discovery on networks with published weights. Run as ``python -m experiments.real_networks``."""
