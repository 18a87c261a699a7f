"""Processes killed while they map, write and evict: nothing torn, nothing leaked."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from proxystore_core.connectors.shared_memory import SharedMemoryConnector

KILLING = Path(__file__).with_name("killing.py")


def survive(store: SharedMemoryConnector, kills: int, seed: int) -> None:
    """Have others use the store and be killed; then look whether all that is left is whole."""
    args = [sys.executable, str(KILLING), json.dumps(store.config()), str(kills), str(seed)]
    done = subprocess.run(args, stdout=subprocess.PIPE, text=True, check=True)
    assert done.stdout == ""
    for key in store.keys():
        data = bytes(store.get(key))
        assert data == data[:8] * (len(data) // 8)
        store.evict(key)
    assert store.usage()[:2] == (0, 0)
    with store._channel._ledger as books:
        books.recount()
        assert books.used == books.free == store.usage().reserved


def limited(**options) -> SharedMemoryConnector:
    return SharedMemoryConnector(quota="40 MB", recycle="16 MB", **options)


@pytest.mark.parametrize("spill", [True, False])
def test_kills(spill: bool, tmp_path: Path, check_books) -> None:
    with limited(spill=spill, spill_dir=str(tmp_path)) as store:
        survive(store, kills=100, seed=spill)
        check_books(store)


def test_kills_on_disk(tmp_path: Path, check_books) -> None:
    with limited(directory=str(tmp_path / "store")) as store:
        survive(store, kills=100, seed=7)
        check_books(store)


@pytest.mark.soak
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", range(3))
def test_two_thousand_kills(tmp_path: Path, check_books, seed: int) -> None:
    with limited(spill_dir=str(tmp_path)) as store:
        survive(store, kills=2000, seed=seed)
        check_books(store)
