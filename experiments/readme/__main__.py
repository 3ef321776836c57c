"""Fill the tables of RESULTS.md from receipts; see :mod:`experiments.reporting.readme`."""

from experiments.reporting.readme import main

if __name__ == "__main__":
    raise SystemExit(main())
