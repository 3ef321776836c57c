"""Finds planted permutations again. Run as ``python -m experiments.find_permutation``."""
