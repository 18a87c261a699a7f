"""The conformance class of connectors, against daemons in processes of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from proxystore_endpoint.connector import EndpointConnector

from proxystore_core.exceptions import MissingReason
from proxystore_core.testing import ConnectorConformance
from tests.endpoint.local.solo import Solo, running
from tests.endpoint.rest import TOKEN, serve


@pytest.fixture(scope="module", autouse=True)
def no_leaks(watch_leaks: Any) -> Iterator[None]:
    """Watch the module: a daemon serves all tests of a class."""
    with watch_leaks():
        yield


@pytest.fixture(scope="class")
def solo(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Solo]:
    home = tmp_path_factory.mktemp("home")
    options: ClassVar = {
        name: str(home / value) if name.endswith("_dir") else value
        for name, value in request.cls.options.items()
    }
    with running(home, **options) as solo:
        yield solo


class Conformance(ConnectorConformance):
    options: ClassVar[dict[str, Any]]

    @pytest.fixture
    def connector(self, solo: Solo) -> Iterator[EndpointConnector]:
        with EndpointConnector([solo.uuid], str(solo.home)) as connector:
            yield connector
            for key in connector.keys():
                connector.evict(key)


class TestInMemory(Conformance):
    options: ClassVar = {"memory_quota": "200 MB"}


class TestOnDisk(Conformance):
    """With so little memory that all but the smallest objects are spilled."""

    options: ClassVar = {"memory_quota": 16_384, "spill_dir": "spill"}


class TestDurable(Conformance):
    options: ClassVar = {"memory_quota": "10 MB", "persist_dir": "persist"}


class TestOverRest(ConnectorConformance):
    """In a process that has no endpoint of its own."""

    @pytest.fixture
    def connector(self, tmp_path: Path) -> Iterator[EndpointConnector]:
        with serve(tmp_path, memory_quota="200 MB") as served:
            uuid, server = served.endpoint.endpoint_id, served.server
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("PROXYSTORE_ENDPOINT_TOKEN", TOKEN)
                with EndpointConnector(
                    [uuid], str(tmp_path), host=server.host, port=server.port
                ) as connector:
                    yield connector

    def test_explains_what_is_gone(self, connector: Any, other: Any) -> None:
        """It does not say more than it knows: the API tells people why, and not programs."""
        key = connector.put(b"expired")
        other.expire(key)
        assert connector.get(key) is None
        assert connector.missing_reason(key) is MissingReason.UNKNOWN
