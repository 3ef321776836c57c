"""Scales and signs that leave a network's function unchanged."""
