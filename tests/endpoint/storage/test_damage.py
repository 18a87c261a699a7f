"""Bit flips and truncation on disk: told, or harmless."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path

import pytest
from proxystore_endpoint.exceptions import DatabaseCorruptError
from proxystore_endpoint.storage import Storage

from proxystore_core.exceptions import CorruptObjectError
from tests.endpoint.storage.conftest import ENDPOINT

SIZES = (10, 3000, 20_000, 100_000)


def content(number: int) -> bytes:
    return random.Random(number).randbytes(SIZES[number % len(SIZES)])


FILL = """
    import json, os, sys
    from proxystore_endpoint.storage import Storage
    contents = [bytes.fromhex(line) for line in sys.stdin.read().split("/")]
    storage = Storage(sys.argv[1], memory_quota="20 MB", persist_dir=sys.argv[2])
    for number, content in enumerate(contents):
        storage.put(f"key{number}", [content])
        if number >= 30:
            storage.evict(f"key{number - 10}")
    print("done", flush=True)
    os.kill(os.getpid(), 9)
"""


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a killed daemon left: keys 20 to 29 were evicted, the log was not yet merged."""
    directory = tmp_path_factory.mktemp("killed") / "persist"
    args = [sys.executable, "-c", textwrap.dedent(FILL), ENDPOINT, str(directory)]
    contents = "/".join(content(number).hex() for number in range(40))
    done = subprocess.run(
        args, input=contents, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "done\n", done.stderr
    return directory


LIVE = {f"key{number}" for number in (*range(20), *range(30, 40))}


def outcome(directory: Path) -> str:
    """Open a storage and read everything; say what came of it, and fail if damage passed."""
    try:
        storage = Storage(ENDPOINT, memory_quota="20 MB", persist_dir=str(directory))
    except DatabaseCorruptError:
        return "refused"
    with storage:
        told = bool(storage.problems())
        found = set(storage.keys())
        for key in found:
            try:
                view = storage.open(key).view
            except CorruptObjectError:
                told = True
                assert storage.usage().damaged
                continue
            assert view == content(int(key[3:])), key
        if not told:
            assert found == LIVE
        for key in found:
            assert storage.evict(key)
        storage.put("new", [b"data"])
        assert storage.open("new").view == b"data"
    return "told" if told else "harmless"


def flips(killed: Path, tmp_path: Path, count: int, seed: int) -> Counter[str]:
    """Flip one bit, or cut one file, in so many copies of what is on disk."""
    chance = random.Random(seed)
    outcomes: Counter[str] = Counter()
    files = sorted(path.relative_to(killed) for path in killed.rglob("*") if path.stat().st_size)
    for number in range(count):
        copy = tmp_path / f"copy{number}"
        shutil.copytree(killed, copy)
        path = copy / chance.choice([file for file in files if (killed / file).is_file()])
        size = path.stat().st_size
        if chance.random() < 0.2:
            os.truncate(path, chance.randrange(size))
        else:
            with open(path, "r+b") as file:
                file.seek(chance.randrange(size))
                byte = file.read(1)[0] ^ (1 << chance.randrange(8))
                file.seek(-1, 1)
                file.write(bytes([byte]))
        outcomes[outcome(copy)] += 1
        shutil.rmtree(copy)
    return outcomes


def test_undamaged(killed: Path, tmp_path: Path) -> None:
    shutil.copytree(killed, tmp_path / "copy")
    assert outcome(tmp_path / "copy") == "harmless"


def test_flips_and_cuts(killed: Path, tmp_path: Path) -> None:
    outcomes = flips(killed, tmp_path, 60, seed=1)
    assert outcomes["told"] > 20
    assert outcomes["refused"] == 0


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_a_thousand_flips_and_cuts(killed: Path, tmp_path: Path) -> None:
    outcomes = flips(killed, tmp_path, 1000, seed=2)
    assert outcomes["told"] > 400
    assert outcomes["refused"] < 10


@pytest.mark.parametrize("part", ["objects.db", "objects.db-wal", "acknowledged"])
def test_a_file_that_is_gone(killed: Path, tmp_path: Path, part: str) -> None:
    shutil.copytree(killed, tmp_path / "copy")
    (tmp_path / "copy" / part).unlink()
    assert outcome(tmp_path / "copy") == "told"


def test_what_is_damaged_is_kept_for_people(killed: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(killed, copy)
    (copy / "objects.db-wal").unlink()
    (copy / "objects.db").write_bytes(b"this is no database" * 1000)
    with Storage(ENDPOINT, memory_quota="20 MB", persist_dir=str(copy)) as storage:
        assert "0 objects were saved" in storage.problems()[0]
        assert (copy / "objects.db.damaged-1").exists()
        assert len(list((copy / "files").iterdir())) > 5  # whose they were may still be found out
        storage.put("key", [b"data"])
    with Storage(ENDPOINT, memory_quota="20 MB", persist_dir=str(copy)) as storage:
        assert list(storage.keys()) == ["key"]


def test_an_evicted_file_does_not_come_back(make, tmp_path: Path) -> None:
    storage = make(persist=True)
    storage.put("key", [bytes(100_000)])
    path = Path(storage._areas.durable.files.path(storage._index.all()[0].row.file))
    kept = tmp_path / "kept"
    shutil.copy(path, kept)
    storage.evict("key")
    storage.close()
    shutil.copy(kept, path)  # as if the device had lost that it was removed
    storage = make(persist=True)
    assert list(storage.keys()) == []
    assert not path.exists()


def test_damage_while_it_runs(make) -> None:
    storage = make(persist=True)
    storage.put("key", [bytes(100_000)])
    path = Path(storage._areas.durable.files.path(storage._index.all()[0].row.file))
    storage.make_room(10)
    os.truncate(path, 50_000)
    for _ in range(2):
        with pytest.raises(CorruptObjectError, match="50000 bytes instead of 100000"):
            storage.open("key")
    assert storage.usage().damaged == 1
    assert storage.evict("key")
    assert storage.usage().damaged == 0
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
