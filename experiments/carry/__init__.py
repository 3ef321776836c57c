"""Carrying a fine-tune to another base: how much of it arrives, by which way, with how many data."""
