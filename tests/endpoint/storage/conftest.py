"""What the tests of the storage share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from proxystore_endpoint.storage import Storage
from proxystore_endpoint.storage.clock import Clock

ENDPOINT = "5f1de1c2-7c3e-4e0e-8b6d-1f3f2d5f9a01"


class FakeClock(Clock):
    """A clock that goes when it is told to, and whose wall clock jumps."""

    def __init__(self) -> None:
        self.seconds, self.ahead, self.boots = 1000.0, 1.7e9, 1

    def now(self) -> float:
        return self.seconds

    def wall(self) -> float:
        return self.ahead + self.seconds

    def boot(self) -> str:
        return f"boot {self.boots}"

    def reboot(self) -> None:
        """Count from zero again, the wall clock going on."""
        self.ahead += self.seconds
        self.seconds, self.boots = 0.0, self.boots + 1


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Storage]]:
    """Make storages that are closed at the end; `spill` and `persist` give them directories."""
    made: list[Storage] = []

    def make(*, spill: bool = True, persist: bool = False, **options: Any) -> Storage:
        options.setdefault("memory_quota", "20 MB")
        if spill:
            options.setdefault("spill_dir", str(tmp_path / "spill"))
        if persist:
            options.setdefault("persist_dir", str(tmp_path / "persist"))
        made.append(Storage(ENDPOINT, **options))
        return made[-1]

    yield make
    for storage in made:
        storage.close()
