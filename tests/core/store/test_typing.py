"""What a type checker makes of stores."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

api = pytest.importorskip("mypy.api")

PROGRAM = """
from proxystore_core.connectors.local import LocalConnector
from proxystore_core.store import Store
from proxystore_core.store.ref import borrow, mut_borrow

with Store("x") as store:
    reveal_type(store)
    reveal_type(store.proxy([1]))
    reveal_type(store.proxy(True, skip_nonproxiable=True))
    reveal_type(store.proxy_batch(["a"]))
    reveal_type(store.locked_proxy("a"))
    reveal_type(store.owned_proxy("a"))
    reveal_type(borrow(store.owned_proxy("a")))
    reveal_type(mut_borrow(store.owned_proxy("a")))
reveal_type(Store("y", LocalConnector()).connector)
"""

TYPES = [
    "Store[SharedMemoryConnector]",
    "Proxy[list[int]]",
    "bool",
    "list[Proxy[str]]",
    "ProxyLocker[str]",
    "OwnedProxy[str]",
    "RefProxy[str]",
    "RefMutProxy[str]",
    "LocalConnector",
]


def test_types(tmp_path: Path) -> None:
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    cache = tmp_path / "cache"
    out, _, _ = api.run(["--strict", f"--cache-dir={cache}", "--follow-imports=silent", str(path)])
    assert "error" not in out, out
    assert [re.sub(r"[\w.]+\.", "", t) for t in re.findall(r'"(.*)"', out)] == TYPES
