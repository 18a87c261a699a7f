"""Where the stores of a run lie."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def store_root(prefix: str) -> Iterator[Path]:
    """Let stores of this process lie in a directory of this run, whose content is ours alone.

    Args:
        prefix: How the name of the directory begins.
    """
    usual = os.environ.get("PROXYSTORE_SHM_ROOT")
    if usual:
        base = Path(usual).parent
    else:
        base = Path("/dev/shm" if os.access("/dev/shm", os.W_OK) else tempfile.gettempdir())
    root = Path(tempfile.mkdtemp(prefix=prefix, dir=base))
    os.environ["PROXYSTORE_SHM_ROOT"] = str(root)
    try:
        yield root
    finally:
        shutil.rmtree(root, ignore_errors=True)  # the last store to go may have removed it
        os.environ.pop("PROXYSTORE_SHM_ROOT")
        if usual:
            os.environ["PROXYSTORE_SHM_ROOT"] = usual
