"""Continuous symmetries, found and proven."""
