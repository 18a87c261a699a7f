from __future__ import annotations

import gc
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from proxystore_core.autoproxy import Envelope, Ref, Session
from proxystore_core.autoproxy.handles import Keeper
from proxystore_core.autoproxy.received import receive
from proxystore_core.autoproxy.refs import channel_for, channel_of
from proxystore_core.autoproxy.results import auto_factory, lent, lent_ref
from proxystore_core.connectors.file import FileConnector
from proxystore_core.exceptions import ProxyResolveError
from proxystore_core.proxy import describe, is_proxy, is_resolved
from proxystore_core.store import Store
from proxystore_core.store.config import StoreConfig


def put(store: Store[Any], obj: Any = b"x" * 100) -> Ref:
    return Ref(channel_of(store), store.put(obj), 100, describe(obj))


def test_who_receives_a_result_owns_it(store: Store[Any], count: Any) -> None:
    ref = put(store)
    found = receive({"a": [ref, 1]}, 4)
    assert is_proxy(found["a"][0])
    assert not is_resolved(found["a"][0])
    again = receive(ref, 0)
    assert auto_factory(again) is auto_factory(found["a"][0])
    del found
    assert again == b"x" * 100
    assert count(store) == 1
    del again
    assert count(store) == 0
    assert receive([1, "a"], 4) == [1, "a"]


def test_a_received_proxy_pickles_as_a_reference(store: Store[Any], count: Any) -> None:
    received = receive(put(store, np.ones(1000)), 4)
    pickled = pickle.dumps([received])
    assert len(pickled) < 1000
    (borrowed,) = pickle.loads(pickled)
    ref = lent_ref(borrowed)
    assert ref is not None
    assert ref == auto_factory(received).ref  # type: ignore[union-attr]
    assert lent_ref(received) is None
    assert lent_ref(3) is None
    assert borrowed.shape == (1000,)
    assert not is_resolved(borrowed)
    assert float(borrowed.sum()) == 1000
    del received
    gc.collect()
    assert count(store) == 1  # somebody may still ask for it
    store.evict(ref.key)


def test_what_was_changed_pickles_by_value(store: Store[Any], count: Any) -> None:
    received = receive(put(store, [1, 2]), 4)
    received.append(3)
    assert pickle.loads(pickle.dumps(received)) == [1, 2, 3]
    del received
    assert count(store) == 0


def test_a_session_takes_over(store: Store[Any], count: Any) -> None:
    with Session(store) as session:
        received = receive([put(store), put(store)], 4)
        mine = session.result(Envelope(put(store)))
        session.take_over([received, mine, 3])
        session.take_over([received, mine, 3])  # again is no error
        stats = session.stats()
        assert (stats.results, stats.result_nbytes, stats.alive) == (3, 300, 3)
        assert type(pickle.loads(pickle.dumps(received[0]))) is bytes  # as results of sessions
        del mine
        one = received.pop()
        assert count(store) == 2
        del one
        assert count(store) == 1
        task = session.prepare(len, (received[0],))
        assert type(task.args[0]) is Ref
        task.lease.release()
    assert count(store) == 0
    assert received[0] == b"x" * 100  # brought home


def test_a_closed_session_takes_nothing(store: Store[Any], count: Any) -> None:
    session = Session(store)
    session.close()
    received = receive(put(store), 4)
    session.take_over(received)
    assert count(store) == 1
    del received
    assert count(store) == 0


def test_a_session_takes_only_what_lies_in_its_store(store: Store[Any], count: Any) -> None:
    with Store("other") as other, Session(other) as session:
        received = receive(put(store), 4)
        session.take_over(received)
        assert session.stats().results == 0
        del received
        assert count(store) == 0


def test_a_keeper_hands_over_with_the_last_holder_in_sight(store: Store[Any], count: Any) -> None:
    one, two = Keeper(store, lends=True), Keeper(store)
    entry = one.adopt(put(store))
    one.lend(entry)
    two.take_over(entry)
    assert entry.keeper is two
    assert entry.alive
    one.close()
    assert count(store) == 1
    del entry
    gc.collect()
    assert count(store) == 0
    assert two.evicted == 1
    two.close()


def test_what_is_out_of_reach_says_so_when_it_is_used(tmp_path: Path) -> None:
    with Store("f", FileConnector(str(tmp_path / "objects"))) as made:
        ref = put(made)
        wire = pickle.dumps(ref)
    (tmp_path / "objects").write_text("no directory")
    received = receive(pickle.loads(wire), 4)
    with pytest.raises(ProxyResolveError):
        len(received[:3])


def test_lent_proxies_of_nothing(store: Store[Any]) -> None:
    ref = put(store)
    store.evict(ref.key)
    with pytest.raises(ProxyResolveError, match="evicted"):
        lent(ref)[:3]


def test_received_objects_go_with_the_process(tmp_path: Path) -> None:
    script = """
        import pickle, sys
        from proxystore_core.autoproxy import Ref
        from proxystore_core.autoproxy.received import receive
        from proxystore_core.autoproxy.refs import channel_of
        from proxystore_core.connectors.file import FileConnector
        from proxystore_core.store import Store

        store = Store("s", FileConnector(sys.argv[1], clear=False))
        kept = receive(Ref(channel_of(store), store.put("x"), 10), 4)
        lent = receive(Ref(channel_of(store), store.put("y"), 10), 4)
        pickle.dumps(lent)
        del lent
        print(len(list(store.keys())))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.strip() == "2", done.stderr
    assert not list(tmp_path.iterdir())


def test_equal_configurations_are_one_channel(tmp_path: Path) -> None:
    path = str(tmp_path)
    with Store("same", FileConnector(path)) as made:
        data = {"name": "same", "connector": {"kind": "file", "options": made.connector.config()}}
        again = channel_for(StoreConfig.from_dict(data))
        assert again is channel_of(made)
    assert channel_for(StoreConfig.from_dict({**data, "name": "different"})) is not again


def test_sessions_tell_their_settings(store: Store[Any]) -> None:
    from proxystore_core.autoproxy import Policy

    with Session(store, Policy(threshold=10)) as session:
        assert session.settings().policy.threshold == 10
        other = Policy(threshold=20)
        assert session.settings(other) is session.settings(other)
        assert session.settings(other).policy is other
