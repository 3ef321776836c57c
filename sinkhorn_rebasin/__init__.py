"""Differentiable weight-space alignment of neural networks."""
