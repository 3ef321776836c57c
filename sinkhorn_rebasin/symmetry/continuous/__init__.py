"""Turns and linear maps of hidden units that leave a network's function unchanged."""
