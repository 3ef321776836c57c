"""Score matrix to soft or hard permutation."""
