"""Seeing the run: the operations of a network, one by one, with the labels of their tensors."""
