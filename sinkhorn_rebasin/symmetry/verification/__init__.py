"""Proof by numbers: permuted at random, the network must compute what it computed before."""
