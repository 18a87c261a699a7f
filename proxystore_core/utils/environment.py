"""Where this process runs."""

from __future__ import annotations

import os
from pathlib import Path


def home_dir() -> str:
    """Return the absolute path of the directory for what is kept between runs.

    `$PROXYSTORE_HOME` where it is set, else `proxystore` in `$XDG_DATA_HOME`,
    else `~/.local/share/proxystore`. It need not exist.
    """
    path = os.environ.get("PROXYSTORE_HOME")
    if not path:
        data = os.environ.get("XDG_DATA_HOME")
        base = Path(data) if data else Path.home() / ".local" / "share"
        return str((base / "proxystore").absolute())
    return str(Path(path).absolute())


def hostname() -> str:
    """Return the name of this host."""
    return os.uname().nodename
