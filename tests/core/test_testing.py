"""The conformance class finds what it is there to find."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

BROKEN = """
import threading, time
import pytest
from proxystore_core.connectors.local import LocalConnector, LocalKey
from proxystore_core.testing import ConnectorConformance

class Base(ConnectorConformance):
    kind = LocalConnector
    sizes = (0, 10, 70_000)
    large = 200_000

    @pytest.fixture
    def connector(self):
        with self.kind() as connector:
            yield connector

class TestGood(Base):
    pass

def broken(method):
    class Kind(LocalConnector):
        pass
    setattr(Kind, method.__name__, method)
    return type("TestBroken", (Base,), {"kind": Kind})

@broken
def get(self, key):
    found = self._objects.data.get(key)
    return None if found is None else found[:100_000]
TestTruncates = get

@broken
def get(self, key):
    found = self._objects.data.get(key)
    return None if found is None else bytearray(found)
TestHandsOutWritable = get

@broken
def evict(self, key):
    del self._objects.data[key]
TestEvictsOnceOnly = evict

@broken
def evict(self, key):
    pass
TestNeverEvicts = evict

@broken
def put(self, obj):
    key = self._objects.issue()
    self._objects.data[key] = obj
    return key
TestKeepsNoCopy = put

@broken
def put_batch(self, objs):
    return [self.put(obj) for obj in objs]
TestHalfABatch = put_batch

@broken
def put(self, obj):
    key = LocalKey("always the same")
    self.set(key, obj)
    return key
TestOneKey = put

@broken
def config(self):
    return {}
TestSharesNothing = config

@broken
def close(self):
    self._objects.data.clear()
TestClearsOnClose = close

@broken
def put_parts(self, parts):
    return self.put(b"".join(bytes(part) for part in parts[:1000]))
TestFewParts = put_parts

@broken
def missing_reason(self, key):
    from proxystore_core.exceptions import MissingReason
    return MissingReason.EVICTED
TestGuessesReasons = missing_reason

@broken
def usage(self):
    from proxystore_core.connectors.protocols import Usage
    return Usage(len(self._objects.data), 0)
TestMiscounts = usage

@broken
def keys(self):
    return iter([])
TestListsNothing = keys

@broken
def set(self, key, obj):
    if obj is None or isinstance(obj, (str, int, list)):
        raise TypeError
    data = bytearray(obj)
    self._objects.data[key] = data
    for start in range(0, len(data), 4096):
        data[start:start + 4096] = bytes(min(4096, len(data) - start))
        time.sleep(0)
    data[:] = obj
TestTears = set

@broken
def from_config(config):
    return LocalConnector()
TestAttachesElsewhere = from_config

del get, evict, put, put_batch, config, close, put_parts, missing_reason, usage, keys, set
del from_config
"""

CATCHES = {
    "TestTruncates": "test_returns_what_was_put",
    "TestHandsOutWritable": "test_hands_out_read_only_bytes",
    "TestEvictsOnceOnly": "test_evicts",
    "TestNeverEvicts": "test_evicts",
    "TestKeepsNoCopy": "test_keeps_its_own_copy",
    "TestHalfABatch": "test_batch_is_all_or_nothing",
    "TestOneKey": "test_keys_travel",
    "TestSharesNothing": "test_consumers_share_the_channel",
    "TestClearsOnClose": "test_consumers_share_the_channel",
    "TestFewParts": "test_parts",
    "TestGuessesReasons": "test_explains_what_is_gone",
    "TestMiscounts": "test_counts_what_it_holds",
    "TestListsNothing": "test_lists_its_keys",
    "TestTears": "test_set_is_never_seen_half_done",
    "TestAttachesElsewhere": "test_config_is_small_and_plain",
}


@pytest.fixture(scope="module")
def failures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    path = tmp_path_factory.mktemp("conformance") / "test_broken.py"
    path.write_text(BROKEN)
    args = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-rf", "--tb=no", str(path)]
    done = subprocess.run(
        [sys.executable, *args], cwd=path.parent, capture_output=True, text=True, timeout=100
    )
    found = defaultdict(set)
    for name, test in re.findall(r"^FAILED \S*::(\w+)::(\w+)", done.stdout, re.MULTILINE):
        found[name].add(test)
    assert "passed" in done.stdout, done.stdout + done.stderr
    return found


def test_accepts_what_is_right(failures: dict[str, set[str]]) -> None:
    assert "TestGood" not in failures


@pytest.mark.parametrize(("broken", "test"), CATCHES.items())
def test_catches(failures: dict[str, set[str]], broken: str, test: str) -> None:
    assert test in failures[broken]


def test_says_what_to_override(tmp_path: Path) -> None:
    path = tmp_path / "test_bare.py"
    path.write_text(
        "from proxystore_core.testing import ConnectorConformance\n"
        "class TestBare(ConnectorConformance): pass\n"
    )
    args = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(path)]
    done = subprocess.run(args, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert "Override the fixture `connector`" in done.stdout


def test_without_pytest() -> None:
    code = (
        "import sys; sys.modules['pytest'] = None\n"
        "from proxystore_core.exceptions import MissingExtraError\n"
        "try:\n    import proxystore_core.testing\n"
        "except MissingExtraError as error:\n    print(error)\n"
    )
    printed = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert "pip install 'proxystore-core[test]'" in printed
