"""What the tests of the connectors share."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from proxystore_core.connectors._layout import FREE, OBJECTS, PARTIAL
from proxystore_core.connectors._ledger import Ledger
from proxystore_core.connectors._segments import charge_of
from proxystore_core.connectors.shared_memory import SharedMemoryConnector, SharedMemoryKey


@pytest.fixture
def run() -> Callable[..., str]:
    """Run code in a fresh interpreter; return what it prints."""

    def run(code: str, *args: object) -> str:
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code), *map(str, args)],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture
def path_of() -> Callable[..., Path]:
    """Return where an object of a store lies."""

    def path_of(store: SharedMemoryConnector, key: SharedMemoryKey) -> Path:
        return Path(store.directory, OBJECTS, key.object_id)

    return path_of


@pytest.fixture
def inode_of(path_of) -> Callable[..., int]:
    """Return the inode of an object of a store."""
    return lambda store, key: path_of(store, key).stat().st_ino


@pytest.fixture
def check_books() -> Callable[[SharedMemoryConnector], None]:
    """Check that the books of a store say what its files say, and that nothing is half written."""

    def check_books(store: SharedMemoryConnector) -> None:
        root = Path(store.directory)
        ledger = Ledger(store.directory, store._channel.info.token, 0)
        sizes = {
            part: [charge_of(path.stat().st_size) for path in root.joinpath(part).iterdir()]
            for part in (OBJECTS, FREE, PARTIAL)
        }
        with ledger as books:
            assert sizes[PARTIAL] == []
            assert books.free == sum(sizes[FREE])
            assert books.free_count == len(sizes[FREE])
            assert books.used == sum(sizes[OBJECTS] + sizes[FREE])
        ledger.close()

    return check_books
