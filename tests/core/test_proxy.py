"""The proxy: resolving, what it holds, copies, pickles and operators."""

from __future__ import annotations

import asyncio
import copy
import gc
import operator
import os
import pickle
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any

import cloudpickle
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxystore_core.exceptions import ProxyStoreError
from proxystore_core.factory import LambdaFactory, SimpleFactory
from proxystore_core.proxy import (
    Proxy,
    ProxyLocker,
    ProxyOr,
    ProxyResolveError,
    TargetInfo,
    describe,
    extract,
    get_factory,
    get_info,
    is_proxy,
    is_resolved,
    resolve,
    restore,
)


class Counting:
    """A factory that counts its calls and can be made to fail."""

    def __init__(self, target: Any, error: BaseException | None = None) -> None:
        self.target, self.error, self.calls = target, error, 0

    def __call__(self) -> Any:
        self.calls += 1
        if self.error is not None:
            raise self.error
        return self.target


class Thing:
    """A thing."""

    def __init__(self) -> None:
        self.x = 1

    def double(self) -> int:
        return 2 * self.x


def test_resolves_once_and_when_needed() -> None:
    factory = Counting([1, 2, 3])
    p = Proxy(factory)
    assert not is_resolved(p)
    assert factory.calls == 0
    assert p[0] == 1
    assert p == [1, 2, 3]
    assert is_resolved(p)
    assert extract(p) is factory.target
    assert factory.calls == 1


def test_functions_of_a_proxy() -> None:
    factory = SimpleFactory("text")
    info = describe("text")
    p: ProxyOr[str] = Proxy(factory, info=info)
    assert is_proxy(p)
    assert not is_proxy("text")
    assert get_factory(p) is factory
    assert get_info(p) is info
    assert not is_resolved(p)
    resolve(p)
    assert is_resolved(p)
    del p.__proxy_wrapped__
    assert not is_resolved(p)
    p.__proxy_wrapped__ = "other"
    assert p == "other"


def test_subclasses_are_proxies_and_other_objects_are_not() -> None:
    class Mine(Proxy[int]):
        __slots__ = ()

    assert is_proxy(Mine(lambda: 3))
    assert Mine(lambda: 3) + 1 == 4
    assert not is_proxy(Proxy)


def test_a_target_at_hand_is_used() -> None:
    factory = Counting("other")
    p = Proxy(factory, target="text")
    assert is_resolved(p)
    assert p == "text"
    assert factory.calls == 0
    assert get_info(p) is None
    q = Proxy(factory, cache_defaults=True, target="text")
    assert q.__proxy_default_class__ is str
    assert q.__proxy_default_hash__ == hash("text")
    assert not is_resolved(Proxy(factory, cache_defaults=True, target=None))


def test_cached_defaults_outlive_the_target() -> None:
    for target in ("text", 5, (1, 2)):
        p = pickle.loads(
            pickle.dumps(Proxy(SimpleFactory(target), cache_defaults=True, target=target))
        )
        assert hash(p) == hash(target)
        assert isinstance(p, type(target))
        assert not is_resolved(p)


def test_only_callables_are_factories() -> None:
    with pytest.raises(TypeError, match="callable factory, not a str"):
        Proxy("text")  # type: ignore[arg-type]  # that is the point


def test_a_type_argument_does_not_touch_the_target() -> None:
    p = Proxy[Thing](Thing)
    assert not is_resolved(p)
    assert vars(p) == {"x": 1}


class TestFailures:
    def test_the_cause_is_carried(self) -> None:
        cause = KeyError("missing")
        p = Proxy(Counting(None, cause))
        with pytest.raises(ProxyResolveError, match="KeyError: 'missing'") as caught:
            p + 1
        assert caught.value.cause is cause
        assert caught.value.__cause__ is cause
        assert isinstance(caught.value, ProxyStoreError)
        assert not is_resolved(p)

    def test_failures_are_not_cached(self) -> None:
        factory = Counting(5, OSError("for now"))
        p = Proxy(factory)
        with pytest.raises(ProxyResolveError):
            resolve(p)
        factory.error = None
        assert p == 5
        assert factory.calls == 2

    def test_an_error_of_resolving_passes_as_it_is(self) -> None:
        inner = Proxy(Counting(None, ValueError("deep")))
        p = Proxy(lambda: inner + 1)
        with pytest.raises(ProxyResolveError) as caught:
            resolve(p)
        assert isinstance(caught.value.cause, ValueError)

    def test_an_attribute_error_of_the_factory_is_no_missing_attribute(self) -> None:
        p = Proxy(Counting(None, AttributeError("x")))
        with pytest.raises(ProxyResolveError):
            hasattr(p, "x")

    @pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
    def test_what_ends_the_program_passes(self, error: type[BaseException]) -> None:
        p = Proxy(Counting(None, error()))
        with pytest.raises(error):
            p + 1

    def test_a_factory_that_needs_its_own_proxy(self) -> None:
        p: Any = Proxy(lambda: p + 1)
        with pytest.raises(ProxyResolveError, match="own target"):
            resolve(p)
        q: Any = Proxy(lambda: q)
        with pytest.raises(ProxyResolveError, match="the proxy itself"):
            resolve(q)

    def test_a_proxy_that_was_never_initialized(self) -> None:
        with pytest.raises(ProxyResolveError, match="__proxy_factory__"):
            resolve(Proxy.__new__(Proxy))

    def test_errors_pickle(self) -> None:
        with pytest.raises(ProxyResolveError) as caught:
            resolve(Proxy(Counting(None, ValueError("x"))))
        again = pickle.loads(pickle.dumps(caught.value))
        assert isinstance(again.cause, ValueError)

    def test_nothing_keeps_a_failed_target_alive(self) -> None:
        class Failing:
            def __call__(self) -> Any:
                raise ValueError("x")

        factory = Failing()
        gone = weakref.ref(factory)
        with pytest.raises(ProxyResolveError):
            resolve(Proxy(factory))
        del factory
        gc.collect()
        assert gone() is None


class TestThreads:
    def together(self, count: int, work: Callable[[], Any]) -> list[Any]:
        """Run the same in several threads, and give what they return or raise."""
        outcomes: list[Any] = []
        barrier = threading.Barrier(count)

        def run() -> None:
            barrier.wait(10)
            try:
                outcomes.append(work())
            except Exception as error:
                outcomes.append(error)

        threads = [threading.Thread(target=run) for _ in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        return outcomes

    def test_threads_share_one_call(self) -> None:
        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        try:
            for _ in range(100):
                factory = Counting([1])
                p = Proxy(factory)
                outcomes = self.together(5, lambda p=p: extract(p))
                assert factory.calls == 1
                assert all(outcome is factory.target for outcome in outcomes)
        finally:
            sys.setswitchinterval(interval)

    def test_waiting_threads_share_the_outcome_and_later_ones_try_again(self) -> None:
        entered, leave = threading.Event(), threading.Event()
        calls = []

        def factory() -> int:
            calls.append(1)
            entered.set()
            assert leave.wait(10)
            raise OSError("down")

        p = Proxy(factory)
        outcomes: list[BaseException] = []

        def use() -> None:
            try:
                resolve(p)
            except ProxyResolveError as error:
                outcomes.append(error)

        leader = threading.Thread(target=use)
        leader.start()
        assert entered.wait(10)
        followers = [threading.Thread(target=use) for _ in range(3)]
        for thread in followers:
            thread.start()
        from proxystore_core.proxy import _flight

        deadline = threading.Event()
        for _ in range(1000):
            if len(_flight._flights[id(p)].waiting) == 3:
                break
            deadline.wait(0.01)
        leave.set()
        for thread in (leader, *followers):
            thread.join(10)
        assert len(calls) == 1
        assert len(outcomes) == 4
        assert len({id(error) for error in outcomes}) == 4  # each its own, of one cause
        assert len({id(error.__cause__) for error in outcomes}) == 1
        with pytest.raises(ProxyResolveError):
            resolve(p)
        assert len(calls) == 2
        assert _flight._flights == {}

    def test_different_proxies_do_not_wait_for_each_other(self) -> None:
        barrier = threading.Barrier(4)

        def work() -> Any:
            return extract(Proxy(lambda: barrier.wait(10) >= 0))

        assert self.together(4, work) == [True] * 4

    def test_a_finalizer_may_resolve_while_another_proxy_does(self) -> None:
        class Cycle:
            def __init__(self) -> None:
                self.me = self

            def __del__(self) -> None:
                resolve(Proxy(lambda: 1))

        def factory() -> int:
            Cycle()
            gc.collect()
            return 5

        assert Proxy(factory) == 5

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
    @pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
    def test_a_fork_in_the_middle_of_a_resolve(self) -> None:
        parent = os.getpid()
        entered, leave = threading.Event(), threading.Event()

        def factory() -> int:
            if os.getpid() == parent:
                entered.set()
                leave.wait(10)
            return 5

        p = Proxy(factory)
        thread = threading.Thread(target=resolve, args=(p,))
        thread.start()
        assert entered.wait(10)
        child = os.fork()
        if child == 0:  # the thread that would land the flight is not here
            os._exit(0 if p == 5 else 1)
        leave.set()
        thread.join(10)
        assert os.waitpid(child, 0)[1] == 0


class TestPickle:
    def test_only_the_factory_travels(self) -> None:
        p = Proxy(LambdaFactory(list, range(3)), info=describe([0, 1, 2]))
        resolve(p)
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            q = pickle.loads(pickle.dumps(p, protocol))
            assert is_proxy(q)
            assert not is_resolved(q)
            assert get_info(q) == get_info(p)
            assert q == [0, 1, 2]

    def test_it_does_not_resolve(self) -> None:
        factory = LambdaFactory(int, "no number")
        p = Proxy(factory)
        assert not is_resolved(pickle.loads(pickle.dumps([p, p]))[0])
        known = Proxy(factory, info=describe(5))  # cloudpickle asks whether it is a function
        assert not is_resolved(cloudpickle.loads(cloudpickle.dumps(known)))

    def test_small(self) -> None:
        p = Proxy(LambdaFactory(int), info=describe(np.zeros((10, 10))))
        assert len(pickle.dumps(p)) < 250

    def test_the_class_pickles_by_name(self) -> None:
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            assert pickle.loads(pickle.dumps(Proxy, protocol)) is Proxy
        assert cloudpickle.loads(cloudpickle.dumps(Proxy)) is Proxy

    def test_a_factory_may_say_how(self) -> None:
        class ByValue(SimpleFactory[Any]):
            def __proxy_reduce__(self, info: TargetInfo | None, proxy_cls: type[Any]) -> Any:
                if self._obj == "reference":
                    return NotImplemented
                return _same, ((self._obj, info, proxy_cls.__name__),)

        info = describe("value")
        reduced = Proxy(ByValue("value"), info=info).__reduce_ex__(5)
        assert reduced == (_same, (("value", info, "Proxy"),))
        assert Proxy(ByValue("reference")).__reduce_ex__(5)[0] is restore

    def test_subclasses_come_back(self) -> None:
        p = pickle.loads(pickle.dumps(Mine(LambdaFactory(int), info=describe(0))))
        assert type(p) is Mine
        assert get_info(p) == describe(0)


class Mine(Proxy[Any]):
    __slots__ = ()


def _same(value: Any) -> Any:
    return value


class TestCopy:
    @pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
    def test_of_an_unresolved_proxy(self, copied: Callable[[Any], Any]) -> None:
        p = Proxy(LambdaFactory(list, [[1]]), info=describe([[1]]))
        q = copied(p)
        assert is_proxy(q)
        assert not is_resolved(p)
        assert not is_resolved(q)
        assert get_info(q) == get_info(p)
        assert q == [[1]]

    def test_of_a_resolved_proxy(self) -> None:
        p = Proxy(LambdaFactory(list, [[1]]))
        p.append(2)
        shallow, deep = copy.copy(p), copy.deepcopy(p)
        assert shallow == deep == [[1], 2]  # as it is now, not as it was stored
        p[0].append(3)
        assert shallow == [[1, 3], 2]
        assert deep == [[1], 2]
        assert extract(shallow) is not extract(p)

    def test_deepcopy_keeps_identity_within_a_structure(self) -> None:
        shared = [1]
        p = Proxy(SimpleFactory(shared), target=shared)
        one, other = copy.deepcopy([p, shared])
        assert extract(one) is other

    def test_the_factory_may_make_its_own(self) -> None:
        class Counted(SimpleFactory[int]):
            def __proxy_copied__(self) -> Counted:
                return Counted(self._obj + 1)

        assert copy.copy(Proxy(Counted(1))) == 2
        assert copy.deepcopy(Proxy(Counted(1))) == 2


class TestAttributes:
    def test_go_to_the_target(self) -> None:
        thing = Thing()
        p = Proxy(lambda: thing)
        p.x = 2
        p.y = 3
        assert (thing.x, p.y, p.double()) == (2, 3, 4)
        del p.y
        assert not hasattr(thing, "y")
        assert p.__dict__ is thing.__dict__
        assert p.__class__ is Thing
        assert p.__doc__ == "A thing."
        assert p.__module__ == Thing.__module__
        assert "double" in dir(p)
        with pytest.raises(AttributeError, match="'Thing' object has no attribute 'z'"):
            p.z  # noqa: B018

    def test_the_class_can_be_assigned(self) -> None:
        class Other(Thing): ...

        p = Proxy(Thing)
        p.__class__ = Other
        assert type(extract(p)) is Other

    def test_unknown_names_of_a_proxy_are_not_asked_of_the_target(self) -> None:
        p = Proxy(Thing)
        with pytest.raises(AttributeError):
            p.__proxy_nothing__  # noqa: B018
        assert not is_resolved(p)

    def test_the_class_keeps_its_own_texts(self) -> None:
        assert Proxy.__module__ == "proxystore_core.proxy"
        assert Proxy.__doc__ is not None
        assert "resolves itself" in Proxy.__doc__
        assert Mine.__module__ == __name__

    def test_weak_references(self) -> None:
        p = Proxy(Thing)
        reference = weakref.ref(p)
        assert reference() is p
        assert not is_resolved(p)
        del p
        gc.collect()
        assert reference() is None


def test_repr_tells_and_does_not_resolve() -> None:
    p = Proxy(SimpleFactory(np.zeros((3, 4))), info=describe(np.zeros((3, 4))))
    assert repr(p) == "<Proxy, unresolved, of numpy.ndarray, shape (3, 4), dtype <f8, 96 bytes>"
    assert repr(Proxy(SimpleFactory(1))) == "<Proxy, unresolved, of SimpleFactory(<int>)>"
    assert not is_resolved(p)
    q = Proxy(SimpleFactory([1, "two"]))
    resolve(q)
    assert repr(q) == "[1, 'two']"
    assert str(Proxy(SimpleFactory([1]))) == "[1]"


def test_size_counts_what_is_here() -> None:
    p = Proxy(SimpleFactory("x" * 10_000), info=describe("x" * 10_000))
    assert sys.getsizeof(p) < 200
    resolve(p)
    assert sys.getsizeof(p) > 10_000


BINARY = [
    *(operator.add, operator.sub, operator.mul, operator.truediv, operator.floordiv, operator.mod),
    *(operator.and_, operator.or_, operator.xor, divmod, operator.eq, operator.ne, operator.lt),
    *(operator.le, operator.gt, operator.ge, operator.iadd, operator.isub, operator.imul),
    *(operator.itruediv, operator.ifloordiv, operator.imod, operator.iand, operator.ior),
    *(operator.ixor, operator.contains, operator.getitem, operator.matmul, operator.imatmul),
]
SHIFTS = [operator.lshift, operator.rshift, operator.ilshift, operator.irshift, pow, operator.ipow]
UNARY = [operator.neg, operator.pos, operator.invert, abs, int, float, complex, str, bytes, len]
UNARY += [bool, hash, round, list, iter, next, reversed, sorted, operator.index, os.fspath]
VALUES = st.one_of(
    st.integers(-100, 100),
    st.floats(-100, 100),
    st.text(max_size=3),
    st.binary(max_size=3),
    st.lists(st.integers(0, 3), max_size=3),
    st.frozensets(st.integers(0, 3), max_size=3),
    st.dictionaries(st.integers(0, 3), st.integers(0, 3), max_size=3),
)


def outcome(function: Callable[..., Any], *args: Any) -> Any:
    try:
        value = function(*args)
    except Exception as error:
        return type(error)
    value = extract(value) if is_proxy(value) else value
    is_iterator = type(value) is reversed or type(value).__name__.endswith("iterator")
    return list(value) if is_iterator else value


@settings(max_examples=500)
@given(st.sampled_from(BINARY), VALUES, VALUES)
def test_binary_operators_agree_with_the_object(op: Any, one: Any, other: Any) -> None:
    assert outcome(op, Proxy(SimpleFactory(copy.copy(one))), other) == outcome(op, one, other)
    formats = op in (operator.mod, operator.imod) and isinstance(other, str | bytes)
    extends = op is operator.iadd and type(other) is list  # as C does, before a proxy is asked
    if not formats and not extends and op not in (operator.contains, operator.getitem):
        swapped = outcome(op, copy.copy(other), Proxy(SimpleFactory(one)))
        assert swapped == outcome(op, other, one)


@given(st.sampled_from(SHIFTS), st.integers(0, 50), st.integers(0, 50))
def test_powers_and_shifts_agree_with_the_object(op: Any, one: int, other: int) -> None:
    assert outcome(op, Proxy(SimpleFactory(one)), other) == op(one, other)
    assert outcome(op, one, Proxy(SimpleFactory(other))) == op(one, other)


@given(st.sampled_from(UNARY), VALUES)
def test_unary_operators_agree_with_the_object(op: Any, value: Any) -> None:
    if (op, type(value)) in [(os.fspath, str), (bytes, str)]:
        return
    assert outcome(op, Proxy(SimpleFactory(value))) == outcome(op, value)


def test_operators_in_place_keep_the_proxy() -> None:
    number, numbers = Proxy(SimpleFactory(1)), Proxy(SimpleFactory([1]))
    kept, held = number, extract(numbers)
    number += 1
    numbers += [2]
    assert number is kept
    assert number == 2
    assert held == [1, 2]
    assert hash(number) == hash(2)


def test_calls_take_any_keyword() -> None:
    def function(**kwargs: int) -> dict[str, int]:
        return kwargs

    assert Proxy(lambda: function)(self=1, args=2) == {"self": 1, "args": 2}


def test_contexts_and_iterators() -> None:
    class Context:
        def __enter__(self) -> str:
            return "entered"

        def __exit__(self, *args: object) -> bool:
            return True

    with Proxy(Context) as entered:
        assert entered == "entered"
        raise ValueError("suppressed")
    p = Proxy(lambda: iter([1, 2, 3]))
    assert next(p) == 1
    assert list(p) == [2, 3]
    assert operator.length_hint(Proxy(lambda: iter([1, 2]))) == 2


def test_coroutines() -> None:
    class Both:
        async def __aenter__(self) -> int:
            return 1

        async def __aexit__(self, *args: object) -> bool:
            return True

        def __aiter__(self) -> Both:
            self.left = 2
            return self

        async def __anext__(self) -> int:
            if not self.left:
                raise StopAsyncIteration
            self.left -= 1
            return self.left

    async def work() -> list[Any]:
        found: list[Any] = []
        async with Proxy(Both) as one:
            found.append(one)
            raise ValueError("suppressed")
        found += [item async for item in Proxy(Both)]
        p = Proxy(Both)
        extract(p).__aiter__()
        found.append(await anext(p))

        async def value() -> str:
            return "awaited"

        found.append(await Proxy(value))
        with pytest.raises(TypeError, match="await"):
            await Proxy(lambda: 5)
        return found

    assert asyncio.run(work()) == [1, 1, 0, 1, "awaited"]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="a class offers no buffer before 3.12")
def test_the_buffer_is_that_of_the_target() -> None:
    data = bytearray(b"abc")
    view = memoryview(Proxy(lambda: data))
    view[0] = 120
    assert data == b"xbc"
    view.release()
    data.append(1)  # no export is left
    with pytest.raises(TypeError, match="bytes-like"):
        memoryview(Proxy(lambda: 5))


def test_locker() -> None:
    p = Proxy(LambdaFactory(int))
    locker = ProxyLocker(p)
    with pytest.raises(AttributeError, match="unlock"):
        locker._proxy  # noqa: B018
    assert locker.unlock() is p
    assert not is_resolved(pickle.loads(pickle.dumps(locker)).unlock())
