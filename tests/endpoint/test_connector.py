"""The connector to endpoints: which one it finds, what it does when that is gone."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from uuid import uuid4

import pytest
from proxystore_endpoint.connector import (
    EndpointConnector,
    EndpointConnectorError,
    EndpointKey,
)
from proxystore_endpoint.exceptions import EndpointUnreachableError, PeerUnreachableError

from proxystore_core.connectors.protocols import (
    AccountingConnector,
    Connector,
    DeferrableConnector,
    EnumerableConnector,
    ExplainingConnector,
    TrustedConnector,
    VectoredConnector,
    VectoredDeferrableConnector,
    ZeroCopyConnector,
)
from proxystore_core.exceptions import (
    ConnectorClosedError,
    ConnectorConfigError,
    InvalidKeyError,
    StoreConfigError,
)
from proxystore_core.store import Store
from proxystore_core.store.config import ConnectorConfig
from tests.endpoint.local.solo import running

SMALL = {"memory_quota": "20 MB"}


class TestFinding:
    def test_the_home_endpoint(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PROXYSTORE_HOME", str(tmp_path))
        (tmp_path / "other").mkdir()
        (tmp_path / "other" / "config.toml").write_text("no = configuration")
        with running(tmp_path, **SMALL) as solo:
            elsewhere = str(uuid4())
            with EndpointConnector([elsewhere, solo.uuid]) as connector:
                assert str(connector.endpoint_uuid) == solo.uuid
                assert solo.uuid in repr(connector)
                key = connector.put(b"data")
                assert key.endpoint_id == solo.uuid
                assert connector.config() == {"endpoints": [elsewhere, solo.uuid]}
                with EndpointConnector.from_config(connector.config()) as other:
                    assert other.get(key) == b"data"

    def test_the_next_one_when_the_first_is_dead(self, tmp_path: Path) -> None:
        with (
            running(tmp_path, "first", **SMALL) as first,
            running(tmp_path, "second", **SMALL) as second,
        ):
            first.kill()
            uuids = [first.uuid, second.uuid]
            with EndpointConnector(uuids, str(tmp_path)) as connector:
                assert str(connector.endpoint_uuid) == second.uuid
            first.start()
            with EndpointConnector(uuids, str(tmp_path)) as connector:
                assert str(connector.endpoint_uuid) == first.uuid

    def test_none(self, tmp_path: Path) -> None:
        with running(tmp_path, **SMALL) as solo:
            solo.kill()
            unknown = str(uuid4())
            with pytest.raises(EndpointConnectorError) as caught:
                EndpointConnector([unknown, solo.uuid], str(tmp_path))
            assert caught.value.tried[unknown] == f"not configured in {tmp_path}"
            assert "cannot be reached" in caught.value.tried[solo.uuid]
            assert "proxystore-endpoint start" in str(caught.value)

    @pytest.mark.parametrize("endpoints", [[], "5f1de1c2-7c3e-4e0e-8b6d-1f3f2d5f9a01", ["x"], [3]])
    def test_what_is_no_list_of_uuids(self, endpoints) -> None:
        with pytest.raises(ConnectorConfigError):
            EndpointConnector(endpoints)

    def test_half_an_address(self) -> None:
        with pytest.raises(ConnectorConfigError, match="together"):
            EndpointConnector([uuid4()], host="127.0.0.1")


class TestLosing:
    def test_goes_on_with_the_next(self, tmp_path: Path) -> None:
        with (
            running(tmp_path, "first", **SMALL) as first,
            running(tmp_path, "second", **SMALL) as second,
            EndpointConnector([first.uuid, second.uuid], str(tmp_path)) as connector,
        ):
            lost = connector.put(b"lost")
            first.kill()
            key = connector.put(b"data")
            assert key.endpoint_id == second.uuid
            assert connector.get(key) == b"data"
            with pytest.raises(PeerUnreachableError):
                connector.exists(lost)
            with pytest.raises(PeerUnreachableError):
                connector.get_batch([key, lost, lost])
            with pytest.raises(PeerUnreachableError):
                connector.set(lost, b"data")

    def test_only_one(self, tmp_path: Path) -> None:
        with (
            running(tmp_path, **SMALL) as solo,
            EndpointConnector([solo.uuid], str(tmp_path)) as connector,
        ):
            key = connector.put(b"data")
            solo.kill()
            started = time.monotonic()
            with pytest.raises(EndpointUnreachableError):
                connector.put(b"data")
            with pytest.raises(EndpointUnreachableError):
                connector.exists(key)
            assert time.monotonic() - started < 5
            solo.start()
            assert connector.get(connector.put(b"again")) == b"again"

    def test_threads_find_the_next_one_once(self, tmp_path: Path) -> None:
        with (
            running(tmp_path, "first", **SMALL) as first,
            running(tmp_path, "second", **SMALL) as second,
            EndpointConnector([first.uuid, second.uuid], str(tmp_path)) as connector,
        ):
            failures: list[BaseException] = []
            started = threading.Barrier(5)

            def work() -> None:
                try:
                    started.wait(10)
                    for turn in range(100):
                        key = connector.put(b"data")
                        if key.endpoint_id == second.uuid:
                            assert connector.get(key) == b"data"
                            if turn > 90:
                                return
                except BaseException as error:
                    failures.append(error)

            threads = [threading.Thread(target=work) for _ in range(4)]
            for thread in threads:
                thread.start()
            started.wait(10)
            first.kill()
            for thread in threads:
                thread.join(60)
            assert failures == []
            assert str(connector.endpoint_uuid) == second.uuid

    def test_closed(self, tmp_path: Path) -> None:
        with running(tmp_path, **SMALL) as solo:
            connector = EndpointConnector([solo.uuid], str(tmp_path))
            connector.close()
            connector.close()
            with pytest.raises(ConnectorClosedError):
                connector.put(b"data")


class TestOptions:
    def test_durability_and_ttl(self, tmp_path: Path) -> None:
        options = {**SMALL, "persist_dir": str(tmp_path / "persist"), "durability": "memory"}
        with running(tmp_path, **options) as solo:
            durable = EndpointConnector([solo.uuid], str(tmp_path), durability="durable", ttl=60)
            config = durable.config()
            assert (config["durability"], config["ttl"]) == ("durable", 60)
            kept, passing = durable.put(b"kept"), EndpointConnector([solo.uuid], str(tmp_path))
            lost = passing.put(b"lost")
            solo.kill()
            solo.start()
            assert passing.get(kept) == b"kept"
            assert passing.get(lost) is None
            durable.close()
            passing.close()

    def test_the_token_stays_here(self, tmp_path: Path) -> None:
        with (
            running(tmp_path, **SMALL) as solo,
            EndpointConnector(
                [solo.uuid], str(tmp_path), host="127.0.0.1", port=1, token="secret"
            ) as connector,
        ):
            assert "secret" not in json.dumps(connector.config())
            assert "secret" not in repr(connector)

    def test_keys(self, tmp_path: Path) -> None:
        with (
            running(tmp_path, **SMALL) as solo,
            EndpointConnector([solo.uuid], str(tmp_path)) as connector,
        ):
            for key in (("a", solo.uuid), EndpointKey("a", "b"), EndpointKey("a", None), None):
                with pytest.raises(InvalidKeyError):
                    connector.get(key)
            upper = EndpointKey(connector.put(b"data").object_id, solo.uuid.upper())
            assert connector.get(upper) == b"data"

    def test_abilities(self, tmp_path: Path) -> None:
        with (
            running(tmp_path, **SMALL) as solo,
            EndpointConnector([solo.uuid], str(tmp_path)) as connector,
        ):
            for ability in (
                AccountingConnector,
                Connector,
                DeferrableConnector,
                EnumerableConnector,
                ExplainingConnector,
                TrustedConnector,
                VectoredConnector,
                VectoredDeferrableConnector,
                ZeroCopyConnector,
            ):
                assert isinstance(connector, ability)


class TestStores:
    def test_proxies_resolve_in_other_processes(self, tmp_path: Path) -> None:
        import numpy as np

        with running(tmp_path, memory_quota="100 MB") as solo:
            connector = EndpointConnector([solo.uuid], str(tmp_path))
            with Store("endpoint", connector, register=True) as store:
                array = np.arange(1_000_000.0)
                proxies = [store.proxy(array), store.proxy({"small": 1})]
                future = store.future()
                code = """
                    import pickle, sys
                    array, small, future = pickle.load(sys.stdin.buffer)
                    future.set_result(float(array.sum()) + small["small"])
                """
                done = subprocess.run(
                    [sys.executable, "-c", textwrap.dedent(code)],
                    input=pickle.dumps((*proxies, future)),
                    capture_output=True,
                    timeout=60,
                    check=False,
                )
                assert done.returncode == 0, done.stderr.decode()
                assert future.result() == array.sum() + 1

    def test_the_short_name(self, tmp_path: Path) -> None:
        with running(tmp_path, **SMALL) as solo:
            options = {"endpoints": [solo.uuid], "proxystore_dir": str(tmp_path)}
            names = (
                "endpoint",
                "EndpointConnector",
                "proxystore.connectors.endpoint.EndpointConnector",
            )
            for name in names:
                config = ConnectorConfig(name, options)
                assert config.short_kind() == "endpoint"
                with config.get_connector() as connector:
                    key = connector.put(b"data")
                    assert config.make_key(tuple(key)) == key
                    assert type(config.make_key(tuple(key))) is EndpointKey
            with pytest.raises(StoreConfigError):
                ConnectorConfig("endpoint", {"unknown": 1}).get_connector()

    def test_core_does_not_load_it(self) -> None:
        code = (
            "import sys, proxystore_core.store, proxystore_core.store.config; "
            "print(any(name.startswith('proxystore_endpoint') for name in sys.modules))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.stdout == "False\n"

    def test_says_which_extra_is_missing(self, tmp_path: Path) -> None:
        (tmp_path / "msgspec.py").write_text("raise ModuleNotFoundError('no', name='msgspec')")
        code = """
            from proxystore_core.exceptions import MissingExtraError
            from proxystore_core.store.config import ConnectorConfig
            try:
                ConnectorConfig("endpoint", {}).get_connector_type()
            except MissingExtraError as error:
                print(error.extra)
        """
        env = {**os.environ, "PYTHONPATH": str(tmp_path)}
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, env=env
        )
        assert done.stdout == "endpoint\n", done.stderr
