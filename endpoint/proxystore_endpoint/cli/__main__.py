"""`python -m proxystore_endpoint.cli` is `proxystore-endpoint`."""

from __future__ import annotations

import sys

from proxystore_endpoint.cli import main

if __name__ == "__main__":
    sys.exit(main())
