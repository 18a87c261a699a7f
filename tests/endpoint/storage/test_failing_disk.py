"""Devices that fail at one call or another: a put that raises leaves what was there before."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from proxystore_endpoint.exceptions import EndpointStorageError
from proxystore_endpoint.storage import Storage, durable, files
from proxystore_endpoint.storage.database import Database

from proxystore_core.exceptions import StorageFullError

OLD, NEW = b"o" * 200_000, b"n" * 300_000


def failing(act: Callable[..., Any], at: int, code: int) -> Callable[..., Any]:
    """Return a function whose call number `at` (from 0) fails, and all later ones work."""
    calls = iter(range(1000))

    def call(*args: Any, **kwargs: Any) -> Any:
        if next(calls) == at:
            raise OSError(code, os.strerror(code))
        return act(*args, **kwargs)

    return call


def change(storage: Storage, how: str) -> None:
    if how == "put":
        storage.put("key", [NEW])
        return
    with storage.reserve("key", len(NEW)) as room:
        room.buffer[:] = NEW
        room.publish()


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize("how", ["put", "reserve"])
@pytest.mark.parametrize(
    ("module", "name", "calls"),
    [(files, "sync", 2), (files, "_allocate", 1), (durable, "write_file", 1)],
)
def test_files(make, monkeypatch, code, how, module, name, calls) -> None:
    for at in range(calls):
        storage = make(persist=True, spill=False)
        storage.put("key", [OLD])
        with monkeypatch.context() as patch:
            patch.setattr(module, name, failing(getattr(module, name), at, code))
            expected = StorageFullError if code == errno.ENOSPC else EndpointStorageError
            with pytest.raises(expected):
                change(storage, how)
        assert storage.open("key").view == OLD
        assert storage.usage().in_flight == 0
        assert storage.usage().disk == storage.usage().durable == 200_704
        storage.close()
        storage = make(persist=True, spill=False)
        assert storage.open("key").view == OLD
        assert storage.problems() == []
        change(storage, how)
        assert storage.open("key").view == NEW
        storage.close()


@pytest.mark.parametrize("how", ["put", "reserve"])
def test_commits(make, monkeypatch, how) -> None:
    storage = make(persist=True, spill=False)
    storage.put("key", [OLD])
    with monkeypatch.context() as patch:
        error = EndpointStorageError("the disk failed")
        patch.setattr(Database, "_attempt", lambda self, batch: error)
        with pytest.raises(EndpointStorageError, match="the disk failed"):
            change(storage, how)
        with pytest.raises(EndpointStorageError, match="the disk failed"):
            storage.evict("key")
    assert storage.open("key").view == OLD
    assert storage.usage().disk == 200_704
    change(storage, how)
    assert storage.open("key").view == NEW


def test_everything_is_synced_before_it_is_acknowledged(make, monkeypatch, tmp_path: Path) -> None:
    """The bytes, then the name, then the row: what is lost with the power was not acknowledged."""
    done: list[str] = []
    sync, commit = files.sync, Database.change

    def note_sync(path: Path) -> None:
        done.append("name" if path.is_dir() else "bytes")
        sync(path)

    def note_commit(self: Database, **changes: Any) -> None:
        done.append("row")
        commit(self, **changes)

    storage = make(persist=True)
    monkeypatch.setattr(files, "sync", note_sync)
    monkeypatch.setattr(Database, "change", note_commit)
    storage.put("key", [OLD])
    assert done == ["bytes", "name", "row"]
    path = next((tmp_path / "persist" / "files").glob("[!.]*"))
    done.clear()
    unlink = Path.unlink
    monkeypatch.setattr(
        Path, "unlink", lambda self, **kw: (done.append("unlink"), unlink(self, **kw))
    )
    storage.evict("key")
    assert done == ["row", "unlink"]
    assert not path.exists()
