"""`python -m proxystore_core.cli`: the command where no script is installed."""

from __future__ import annotations

import sys

from proxystore_core.cli import main

if __name__ == "__main__":
    sys.exit(main())
