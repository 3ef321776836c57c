"""The command ``python -m sinkhorn_rebasin``, the same as ``sinkhorn-rebasin``."""

import sys

from sinkhorn_rebasin.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
