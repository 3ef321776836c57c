"""Parts of the continual learning experiment: its benchmarks, methods and runs."""
