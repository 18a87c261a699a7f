"""Parts of the Globus Compute integration by themselves."""

from __future__ import annotations

import gc
import json
import pickle
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from typing import Any

import dill
import numpy as np
import proxystore_globus_compute
import pytest
from globus_compute_sdk.serialize import ComputeSerializer
from hypothesis import given
from hypothesis import strategies as st
from proxystore_globus_compute import marks, source
from proxystore_globus_compute.marks import Returned, framed, from_marks, to_marks, unframed
from proxystore_globus_compute.payloads import ReadyArgs, ReadyKwargs, ready
from proxystore_globus_compute.worker import RemoteFunction, attach

from proxystore_core.autoproxy import Envelope, Packed, Policy, Ref, Session
from proxystore_core.autoproxy.refs import channel_of
from proxystore_core.connectors.file import FileConnector
from proxystore_core.proxy import describe, is_proxy
from proxystore_core.store import Store


@pytest.fixture(scope="module")
def no_leaks(watch_leaks: Any) -> Iterator[None]:
    with watch_leaks():
        yield


@pytest.fixture
def store() -> Iterator[Store[Any]]:
    with Store("units", cache_size=0) as made:
        yield made
        gc.collect()
        assert not list(made.keys())


def put(store: Store[Any], obj: Any) -> Ref:
    return Ref(channel_of(store), store.put(obj), 10, describe(obj))


# Marks


def test_marks_are_json(store: Store[Any]) -> None:
    ref = put(store, np.ones((2, 3)))
    text = json.dumps(to_marks({"a": [ref, 1]}))
    assert "pickle" not in text
    (found, marked), plain = from_marks(json.loads(text)), from_marks([1, {"proxystore": 1}])
    assert marked
    assert found["a"][0] == ref
    assert found["a"][0].channel is ref.channel
    assert found["a"][0].info == ref.info
    assert found["a"][0].info.shape == (2, 3)
    assert type(found["a"][0].key) is type(ref.key)
    assert plain == ([1, {"proxystore": 1}], False)
    store.evict(ref.key)


def test_marks_name_the_store_with_all_that_makes_it(tmp_path: Any) -> None:
    options = {"cache_size": 3, "metrics": True, "verify": False, "cache_bytes": "1 MB"}
    with Store("f", FileConnector(str(tmp_path)), **options) as store:
        ref = put(store, "x")
        (found, _) = from_marks(json.loads(json.dumps(to_marks(ref))))
        assert found.channel.config == store.config()
        assert found.channel is ref.channel
    with Store("g", FileConnector(str(tmp_path)), serializer=pickle.dumps) as other:
        with pytest.raises(TypeError, match="serializer"):
            to_marks(put(other, "x"))
        broken = Returned(put(other, "x"), 3)
        with pytest.raises(TypeError):
            json.dumps(broken)


def test_marks_of_other_stores_are_left(store: Store[Any]) -> None:
    mark = to_marks(put(store, "x"))
    with Store("another") as other:
        assert from_marks(mark, channel_of(other)) == (mark, False)
        assert marks.returned({"proxystore": 1, "result": mark}, channel_of(other)) is None
    assert marks.returned({"proxystore": 1, "result": mark}, channel_of(store)) is not None
    store.evict(tuple(mark["key"]) and from_marks(mark)[0].key)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(st.lists(json_values, max_size=3), st.dictionaries(st.text(max_size=3), json_values))
def test_frames_come_back(args: list[Any], kwargs: dict[str, Any]) -> None:
    frame, none = framed(tuple(args), kwargs)
    assert unframed(json.loads(json.dumps(frame)), none) == (tuple(args), kwargs)
    assert unframed(tuple(args), kwargs) == (tuple(args), kwargs)


def test_frames_hold_references(store: Store[Any]) -> None:
    ref = put(store, "x")
    frame, none = framed((ref, Packed([ref, 1]), 3), {"a": Packed({"b": ref})})
    args, kwargs = unframed(json.loads(json.dumps(frame)), none)
    assert args[0] == ref
    assert args[1].value == [ref, 1]
    assert args[2] == 3
    assert kwargs["a"].value == {"b": ref}
    store.evict(ref.key)


def test_results_are_marks_as_json_and_proxies_else(store: Store[Any]) -> None:
    made = Returned([put(store, "x" * 100), 1], 3)
    assert not callable(made)
    text = ComputeSerializer.serialize_from_list(made, ())
    received = ComputeSerializer().deserialize(text)
    assert is_proxy(received[0])
    assert received == ["x" * 100, 1]
    with Session(store) as session:
        found = marks.returned(json.loads(json.dumps(made)), session.settings().channel)
        assert found is not None
        assert session.result(Envelope(found[0]))[1] == 1
    del received, found
    gc.collect()


# Payloads


def test_ready_arguments_are_plain_for_others() -> None:
    args, kwargs = ready(ComputeSerializer(), (1, "a"), {"b": 2}, None, "task")
    assert isinstance(args, ReadyArgs)
    assert isinstance(kwargs, ReadyKwargs)
    for loads, dumps in ((pickle.loads, pickle.dumps), (dill.loads, dill.dumps)):
        assert type(loads(dumps(args))) is tuple
        assert type(loads(dumps(kwargs))) is dict
    assert json.dumps([args, kwargs]) == '[[1, "a"], {"b": 2}]'
    assert ComputeSerializer().deserialize(args.payload) == (1, "a")
    _, none = ready(ComputeSerializer(), (), {}, None, "task")
    assert ComputeSerializer().deserialize(none.payload) == {}


# Functions


class Callable_:
    """Be called."""

    def __call__(self, x: int) -> int:
        return x + 1


@pytest.mark.parametrize(
    ("func", "arg", "value"),
    [(Callable_(), 1, 2), (len, "ab", 2), (str.upper, "a", "A"), (lambda x: x, 3, 3)],
)
def test_any_callable_can_be_registered(store: Store[Any], func: Any, arg: Any, value: Any) -> None:
    with Session(store) as session:
        made = RemoteFunction(func, session.settings())
        assert isinstance(made.__name__, str)
        assert dill.loads(dill.dumps(made))(arg) == value


def test_attached_twice_is_once(store: Store[Any]) -> None:
    with Session(store) as session:
        wire = session.settings().wire
        once = attach(len, wire)
        assert attach(once, wire).func is len
        assert attach(len, wire, True).chunk


def test_an_epilogue_is_python(store: Store[Any]) -> None:
    with Session(store, Policy(types=(bytes,), depth=2)) as session:
        wire = session.settings().wire
        text = "def double(x):\n    return x * 2"
        space: dict[str, Any] = {}
        exec(text + source.epilogue("double", wire, chunk=False), space)
        assert space["double"].settings.wire == wire
        assert space["double"](4) == 8
        assert source.epilogue("<lambda>", wire) == ""


# Imports


def test_importing_is_light() -> None:
    script = """
        import sys, time
        import proxystore_globus_compute
        from proxystore_globus_compute import auto_proxy, AutoProxied, GlobusComputeError
        import proxystore_globus_compute.worker
        for name in ("globus_compute_sdk", "dill", "numpy", "parsl"):
            assert name not in sys.modules, name
        assert "ProxyExecutor" in dir(proxystore_globus_compute)
        import threading
        assert threading.active_count() == 1
        print("light")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == "light", done.stderr


def test_without_the_sdk() -> None:
    script = """
        import sys
        sys.modules["globus_compute_sdk"] = None
        import proxystore_globus_compute
        from proxystore_core.exceptions import MissingExtraError
        try:
            proxystore_globus_compute.ProxyExecutor
        except MissingExtraError as error:
            print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=60
    )
    assert "pip install 'proxystore-core[globus-compute]'" in done.stdout, done.stderr


def test_all_names_are_there() -> None:
    for name in proxystore_globus_compute.__all__:
        assert getattr(proxystore_globus_compute, name) is not None
    with pytest.raises(AttributeError, match="nothing"):
        _ = proxystore_globus_compute.nothing
