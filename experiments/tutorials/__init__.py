"""One idea a script, on scikit-learn's digits. Run as ``python -m experiments.tutorials.01_align_two_networks``.

Cells begin with ``# %%``, so that editors and notebooks run them one by one.
"""
