"""Fill or check the generated parts of the pages; see :mod:`experiments.readme.pages`."""

from experiments.readme.pages import main

if __name__ == "__main__":
    raise SystemExit(main())
