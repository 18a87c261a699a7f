"""`proxystore_core.store.executor`, by the names that code written for ProxyStore uses."""

from __future__ import annotations

import inspect
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

import proxystore_core.autoproxy.executor as implementation
import proxystore_core.store.executor as names
from proxystore_core.proxy import Proxy
from proxystore_core.store import Store
from proxystore_core.store.executor import ProxyAlways, ProxyNever, ProxyType, StoreExecutor


def test_the_names_are_those_of_the_engine() -> None:
    assert StoreExecutor is implementation.StoreExecutor
    assert (ProxyAlways, ProxyNever) == (implementation.ProxyAlways, implementation.ProxyNever)


def test_the_signature_starts_as_upstream() -> None:
    parameters = list(inspect.signature(StoreExecutor.__init__).parameters.values())[1:]
    assert [p.name for p in parameters[:3]] == ["executor", "store", "should_proxy"]
    assert [p.kind for p in parameters[3:5]] == [inspect.Parameter.KEYWORD_ONLY] * 2
    assert [p.name for p in parameters[3:5]] == ["ownership", "close_store"]


def test_importing_the_stores_does_not_import_the_engine() -> None:
    code = (
        "import sys, proxystore_core.store, proxystore_core.store.executor as e;"
        "assert not [m for m in sys.modules if 'autoproxy' in m];"
        "assert 'StoreExecutor' in dir(e); e.StoreExecutor;"
        "assert 'proxystore_core.autoproxy.executor' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_other_names_are_no_attributes() -> None:
    with pytest.raises(AttributeError, match="Nothing"):
        names.Nothing  # noqa: B018  # reading it is the test


def test_the_documented_use() -> None:
    def concat(base: str, *, num: int) -> str:
        return f"{base}-{num}"

    store = Store("executor-example")
    with StoreExecutor(ThreadPoolExecutor(1), store, should_proxy=ProxyType(str)) as executor:
        result = executor.submit(concat, "foobar", num=42).result()
        assert isinstance(result, Proxy)
        assert result == "foobar-42"
