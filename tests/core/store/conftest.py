from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from proxystore_core.connectors.file import FileConnector
from proxystore_core.connectors.local import LocalConnector, LocalKey
from proxystore_core.connectors.shared_memory import SharedMemoryConnector
from proxystore_core.store import Store


@pytest.fixture
def make_connector(tmp_path: Path) -> Callable[[str], Any]:
    """Make connectors of a kind; the caller closes them."""

    def make(kind: str) -> Any:
        if kind == "local":
            return LocalConnector()
        if kind == "file":
            return FileConnector(str(tmp_path / "objects"))
        return SharedMemoryConnector()

    return make


@pytest.fixture(params=["local", "file", "shm"])
def store(request: pytest.FixtureRequest, make_connector: Callable[[str], Any]) -> Iterator[Store]:
    """A store over each of the connectors."""
    with Store(f"test-{request.param}", make_connector(request.param)) as store:
        yield store


@pytest.fixture
def local_store() -> Iterator[Store]:
    """A store inside this process."""
    with Store("test", LocalConnector()) as store:
        yield store


@pytest.fixture
def shm_store() -> Iterator[Store]:
    """The default store."""
    with Store("test") as store:
        yield store


class PlainConnector:
    """A connector of a third party: the `Connector` protocol and nothing beside.

    Tests can wait for its gets, hold them back and make them fail.
    """

    channels: ClassVar[dict[str, dict[LocalKey, bytes]]] = {}

    def __init__(self, channel: str) -> None:
        self.channel = channel
        self.data = self.channels.setdefault(channel, {})
        self.gets: list[LocalKey] = []
        self.before_get: Callable[[LocalKey], None] = lambda key: None
        self.after_get: Callable[[LocalKey], None] = lambda key: None
        self.closed = 0

    def put(self, obj: Any) -> LocalKey:
        key = LocalKey(f"{self.channel}-{len(self.data)}-{threading.get_ident()}")
        self.data[key] = bytes(obj)
        return key

    def put_batch(self, objs: Sequence[Any]) -> list[LocalKey]:
        return [self.put(obj) for obj in objs]

    def get(self, key: LocalKey) -> bytes | None:
        self.gets.append(key)
        self.before_get(key)
        found = self.data.get(key)
        self.after_get(key)
        return found

    def get_batch(self, keys: Sequence[LocalKey]) -> list[bytes | None]:
        return [self.get(key) for key in keys]

    def exists(self, key: LocalKey) -> bool:
        return key in self.data

    def evict(self, key: LocalKey) -> None:
        self.data.pop(key, None)

    def config(self) -> dict[str, Any]:
        return {"channel": self.channel}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> PlainConnector:
        return cls(**config)

    def close(self) -> None:
        self.closed += 1
        self.data.clear()


@pytest.fixture
def plain(request: pytest.FixtureRequest) -> PlainConnector:
    return PlainConnector(request.node.nodeid)


@pytest.fixture
def plain_store(plain: PlainConnector) -> Iterator[Store]:
    """A store over a connector that has nothing but the `Connector` protocol."""
    with Store("plain", plain) as store:
        yield store


@pytest.fixture(params=["local", "file", "shm", "plain"])
def any_store(
    request: pytest.FixtureRequest, make_connector: Callable[[str], Any], plain: PlainConnector
) -> Iterator[Store]:
    """A store over each of the connectors, and over one of a third party."""
    connector = plain if request.param == "plain" else make_connector(request.param)
    with Store("test", connector) as store:
        yield store
