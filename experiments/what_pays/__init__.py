"""What a merge pays for, beside distilling and fine-tuning: see :mod:`experiments.what_pays.__main__`."""
