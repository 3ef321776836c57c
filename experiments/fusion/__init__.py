"""Fusions of aligned pairs: plain means, Fisher merging, RegMean and RegMean++."""
