"""Soft and hard permutations of wide groups: scores on a few candidates of each row."""
