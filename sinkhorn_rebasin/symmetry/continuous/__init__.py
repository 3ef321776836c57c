"""Continuous symmetries of any network: found from numbers, and one representative of each network."""
