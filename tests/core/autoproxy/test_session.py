"""What a session stores, passes and evicts, with the tasks run right here."""

from __future__ import annotations

import dataclasses
import functools
import gc
import pickle
import threading
import warnings
from typing import Any

import numpy as np
import pytest

from proxystore_core.autoproxy import Packed, Policy, Ref, Session, Task, persist
from proxystore_core.connectors.local import LocalConnector
from proxystore_core.connectors.shared_memory import SharedMemoryConnector
from proxystore_core.exceptions import (
    ArgumentSerializationError,
    AutoProxyError,
    ProxyResolveError,
    ProxyStoreFactoryError,
    ResultSerializationError,
    StorageFullError,
    StoreConfigError,
)
from proxystore_core.proxy import Proxy, extract, get_info, is_proxy, is_resolved
from proxystore_core.store import Store

BIG = 50_000  # float64: 400 kB


@dataclasses.dataclass
class Job:
    data: Any
    name: str


def run(session: Session, task: Task) -> Any:
    """Do what an engine does: everything travels pickled, and the lease ends with the task."""
    sent = pickle.dumps((task.func, task.args, task.kwargs))
    func, args, kwargs = pickle.loads(sent)
    try:
        return session.result(pickle.loads(pickle.dumps(func(*args, **kwargs))))
    finally:
        task.lease.release()


def call(session: Session, func: Any, *args: Any, **kwargs: Any) -> Any:
    return run(session, session.prepare(func, args, kwargs))


@pytest.fixture
def session(store: Store[Any]) -> Any:
    with Session(store) as made:
        yield made


class TestArguments:
    def test_small_ones_are_not_touched(self, session: Session, count: Any) -> None:
        values = (1, "a", [1, 2], {"k": (3,)}, np.ones(10), None, Policy())
        task = session.prepare(print, values, {"x": values[2]})
        assert all(a is b for a, b in zip(task.args, values, strict=True))
        assert task.kwargs["x"] is values[2]
        assert task.stored == 0
        assert count(session.store) == 0

    def test_large_ones_travel_by_reference_and_come_as_they_are(
        self, session: Session, tasks: Any, count: Any
    ) -> None:
        task = session.prepare(tasks.seen, (np.ones(BIG),))
        assert type(task.args[0]) is Ref
        assert task.stored > 8 * BIG
        assert count(session.store) == 1
        assert len(pickle.dumps(task.args)) < 300
        assert run(session, task) == (False, "ndarray")
        assert count(session.store) == 0

    def test_what_the_user_proxied_stays_a_proxy(self, session: Session, tasks: Any) -> None:
        proxy = session.store.proxy(np.ones(BIG))
        assert call(session, tasks.seen, proxy) == (True, "Proxy")
        assert call(session, tasks.seen, [proxy, np.ones(BIG)]) == (False, "list")
        session.store.evict(proxy.__proxy_factory__.key)

    def test_lazy_hands_in_proxies_that_know_their_target(
        self, session: Session, tasks: Any, count: Any
    ) -> None:
        task = session.prepare(tasks.resolved, (np.ones(BIG),), policy=Policy(resolve="lazy"))
        (ref,) = task.args
        assert ref.info.shape == (BIG,)
        assert run(session, task) == (True, False)
        task = session.prepare(tasks.total, ([np.ones(BIG)][0],), policy=Policy(resolve="lazy"))
        assert run(session, task) == BIG

    def test_writable(self, session: Session) -> None:
        def write(x: Any) -> float:
            x[0] = 5
            return float(x[0])

        with pytest.raises(ValueError, match="read-only"):
            call(session, write, np.ones(BIG))
        mine = np.ones(BIG)
        task = session.prepare(write, (mine,), policy=Policy(writable=True))
        assert run(session, task) == 5.0
        assert mine[0] == 1

    def test_containers_are_searched(self, session: Session, count: Any) -> None:
        big = np.ones(BIG)
        value = {"list": [big, 1], "tuple": (big, "x"), "job": Job(big, "j")}
        task = session.prepare(lambda x: x, (value,))
        assert type(task.args[0]) is Packed
        assert session.stats().puts == 1  # the same object, once in a call
        assert len(pickle.dumps(task.args)) < 2000

        def check(x: Any) -> bool:
            first = x["list"][0]
            return bool(first is x["tuple"][0] is x["job"].data and first.sum() == len(first))

        assert call(session, check, value) is True
        assert value["list"][0] is big
        task.lease.release()
        assert count(session.store) == 0

    def test_many_small_things_are_stored_together(self, session: Session, tasks: Any) -> None:
        task = session.prepare(tasks.identity, ([np.ones(1000) for _ in range(100)],))
        assert type(task.args[0]) is Ref
        assert session.stats().puts == 1
        task.lease.release()

    def test_small_things_beside_a_large_one_stay(self, session: Session) -> None:
        task = session.prepare(print, ([1, "small", np.ones(BIG)],))
        value = task.args[0].value
        assert value[:2] == [1, "small"]
        assert type(value[2]) is Ref
        task.lease.release()

    def test_huge_plain_containers_are_one_object(self, session: Session, tasks: Any) -> None:
        for value in (
            [float(i) for i in range(100_000)],
            {i: str(i) for i in range(30_000)},
            [{"id": i, "name": "x" * 10} for i in range(10_000)],
            set(range(60_000)),
            [f"{i:1000}" for i in range(300)],
        ):
            before = session.stats().puts
            task = session.prepare(lambda x: x, (value,))
            assert type(task.args[0]) is Ref, type(value)
            assert session.stats().puts == before + 1
            assert extract(run(session, task)) == value

    def test_a_proxy_in_a_long_list_is_found(self, session: Session, tasks: Any) -> None:
        result = call(session, tasks.ones, BIG)
        value: list[Any] = [0.5] * 5000
        value[4321] = result
        task = session.prepare(lambda x: float(x[4321].sum()), (value,))
        assert type(task.args[0]) is Packed
        assert not is_resolved(result)
        assert run(session, task) == BIG
        records = [{"id": i, "data": result} for i in range(1000)]
        assert call(session, lambda x: float(x[500]["data"].sum()), records) == BIG
        assert not is_resolved(result)

    def test_depth_beyond_is_one_object(self, session: Session, tasks: Any) -> None:
        task = session.prepare(tasks.identity, ([[[np.ones(BIG)]]],), policy=Policy(depth=1))
        (packed,) = task.args
        assert type(packed) is Ref
        task.lease.release()

    def test_cycles(self, session: Session) -> None:
        loop: list[Any] = [np.ones(BIG)]
        loop.append(loop)
        task = session.prepare(lambda x: x[1] is x and float(x[0].sum()), (loop,))
        assert type(task.args[0]) is Ref
        assert run(session, task) == BIG
        small: list[Any] = [1]
        small.append(small)
        assert call(session, lambda x: x[1] is x, small) is True

    def test_unknown_sizes_are_found_by_serializing_once(
        self, session: Session, tasks: Any
    ) -> None:
        dumps = []

        class Model:
            def __init__(self, n: int) -> None:
                self.data = b"x" * n

            def __reduce__(self) -> Any:
                dumps.append(len(self.data))
                return bytes, (self.data,)

        large = session.prepare(tasks.seen, (Model(200_000),))
        assert type(large.args[0]) is Ref
        assert dumps == [200_000]
        small = session.prepare(tasks.seen, ([Model(5)],))
        assert type(small.args[0]) is list
        assert dumps == [200_000, 5]
        large.lease.release()

    def test_types_and_exclude(self, session: Session) -> None:
        policy = Policy(threshold=10, types=(bytes,))
        task = session.prepare(print, (b"x" * 20, "x" * 20, [b"y" * 20]), policy=policy)
        assert [type(a) for a in task.args] == [Ref, str, Packed]
        task.lease.release()
        policy = Policy(threshold=10, exclude=(str, dict))
        task = session.prepare(print, ("x" * 20, {"a": b"x" * 20}, b"x" * 20), policy=policy)
        assert [type(a) for a in task.args] == [str, dict, Ref]
        task.lease.release()

    def test_should_proxy_decides_alone(self, session: Session) -> None:
        policy = Policy(should_proxy=lambda x: x == "yes" or x == 7)
        task = session.prepare(print, ("yes", "no", ["yes", 7, None], True, 7), policy=policy)
        assert [type(a) for a in task.args] == [Ref, str, Packed, bool, Ref]
        assert [type(a) for a in task.args[2].value] == [Ref, Ref, type(None)]
        task.lease.release()

    def test_args_can_be_left_alone(self, session: Session, tasks: Any) -> None:
        result = call(session, tasks.ones, BIG)
        big = np.ones(BIG)
        task = session.prepare(
            tasks.totals, (big, [big, result], result), policy=Policy(args=False)
        )
        assert task.args[0] is big
        assert type(task.args[2]) is Ref  # proxies of results are references all the same
        assert task.args[1].value[0] is big
        task.lease.release()

    def test_keywords_named_like_ours(self, session: Session) -> None:
        def func(self: Any, func: Any, args: Any, value: Any) -> float:
            return float(self.sum() + func.sum() + args + value)

        big = np.ones(BIG)
        kwargs = {"self": big, "func": big, "args": 1, "value": 2}
        result = run(session, session.prepare(func, (), kwargs))
        assert result == 2 * BIG + 3

    def test_partials_and_methods_with_large_data(self, session: Session, count: Any) -> None:
        big = np.ones(BIG)

        def add(x: Any, y: float, *, z: Any) -> float:
            return float(x.sum() + y + z.sum())

        task = session.prepare(functools.partial(add, big, z=big), (1.0,))
        assert type(task.args[0]) is Ref
        assert len(pickle.dumps(task.func)) < 2000
        assert run(session, task) == 2 * BIG + 1

        class Model:
            def __init__(self, weights: Any) -> None:
                self.weights = weights

            def predict(self, x: float) -> float:
                return float(self.weights.sum() + x)

        task = session.prepare(Model(big).predict, (1.0,))
        assert type(task.args[0]) is Ref
        assert run(session, task) == BIG + 1
        small = Model(np.ones(2)).predict
        task = session.prepare(small, (1.0,))
        assert task.func.__wrapped__ == small
        assert run(session, task) == 3.0
        assert count(session.store) == 0


class TestSharing:
    def test_immutable_objects_are_stored_once_while_they_are_needed(
        self, session: Session, count: Any
    ) -> None:
        locked = np.ones(BIG)
        locked.flags.writeable = False
        for value in (b"x" * 200_000, "y" * 200_000, locked):
            before = session.stats()
            first, second = session.prepare(len, (value,)), session.prepare(len, ([value],))
            assert session.stats().puts == before.puts + 1
            assert session.stats().hits == before.hits + 1
            assert count(session.store) == 1
            first.lease.release()
            assert count(session.store) == 1
            second.lease.release()
            assert count(session.store) == 0
            assert call(session, len, value) == len(value)  # stored anew
            assert session.stats().puts == before.puts + 2

    def test_mutable_objects_are_stored_as_they_are_now(self, session: Session, tasks: Any) -> None:
        value = np.ones(BIG)
        first = session.prepare(tasks.total, (value,))
        value[0] = 100
        assert call(session, tasks.total, value) == BIG + 99
        assert run(session, first) == BIG

    def test_bytes_are_not_held_longer_than_others_hold_them(self, session: Session) -> None:
        first = session.prepare(len, (bytes(200_000),))
        (entry,) = session._keeper.entries()
        assert entry.source is not None
        second = session.prepare(len, (bytes(200_001),))
        assert entry.source is None
        for task in (first, second):
            task.lease.release()

    def test_a_fetched_result_is_known_again(self, session: Session, tasks: Any) -> None:
        result = call(session, tasks.ones, BIG)
        array = extract(result)
        before = session.stats()
        assert call(session, tasks.total, array) == BIG
        assert session.stats().puts == before.puts
        assert session.stats().hits == before.hits + 1


class TestErrors:
    def test_unpicklable_arguments_are_named_and_nothing_is_left(
        self, session: Session, count: Any
    ) -> None:
        def job(data: Any, options: Any = None, *rest: Any, **more: Any) -> None: ...

        lock = threading.Lock()
        big = np.ones(BIG)
        for args, kwargs, name in (
            ((big, {"x": [1, lock]}), {}, "options['x'][1]"),
            ((lock,), {}, "data"),
            ((big, 1, lock), {}, "args[2]"),
            ((big,), {"options": lock}, "options"),
            ((big,), {"other": (lock,)}, "kwargs['other'][0]"),
        ):
            with pytest.raises(ArgumentSerializationError) as info:
                session.prepare(job, args, kwargs)
            assert info.value.argument == name
            assert info.value.task == "job"
            assert "lock" in str(info.value)
            assert count(session.store) == 0
        with pytest.raises(ArgumentSerializationError, match="'named'"):
            session.prepare(job, (lock,), name="named")

    def test_the_culprit_inside_an_object_is_named(self, session: Session) -> None:
        class Job:
            def __init__(self) -> None:
                self.handle = {"a": threading.Lock()}

        with pytest.raises(ArgumentSerializationError) as info:
            session.prepare(print, (Job(),))
        assert info.value.argument == "args[0].handle['a']"

    def test_unpicklable_arguments_can_be_left(self, session: Session, count: Any) -> None:
        lock, policy = threading.Lock(), Policy(on_unpicklable="leave")
        task = session.prepare(print, (lock, [lock, np.ones(BIG)]), policy=policy)
        assert task.args[0] is lock
        assert task.args[1].value[0] is lock
        assert count(session.store) == 1
        task.lease.release()

    def test_unpicklable_results(self, session: Session, tasks: Any) -> None:
        with pytest.raises(ResultSerializationError, match="'lock'") as info:
            call(session, tasks.lock, 1)
        assert info.value.task == "lock"
        task = session.prepare(tasks.lock, (1,), policy=Policy(on_unpicklable="leave"))
        assert type(task.func(1)) is type(threading.Lock())

    def test_exceptions_pass_unchanged(self, session: Session, tasks: Any) -> None:
        with pytest.raises(LookupError) as info:
            call(session, tasks.fail, np.ones(BIG))
        assert info.value.args == ("no luck", BIG)

    def test_a_full_store_lets_arguments_and_results_pass_by_value(self, tasks: Any) -> None:
        connector = SharedMemoryConnector(quota="1 MB", spill=False)
        with Store("full", connector) as store, Session(store) as session:
            huge = np.ones(500_000)
            with pytest.warns(RuntimeWarning, match="by value"):
                task = session.prepare(tasks.total, (huge, np.ones(BIG)))
            assert task.args[0] is huge
            assert type(task.args[1]) is Ref
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                session.prepare(tasks.total, (huge,))
            with pytest.warns(RuntimeWarning, match="result of task 'ones'"):
                assert type(call(session, tasks.ones, 500_000)) is np.ndarray
            with pytest.raises(StorageFullError):
                session.prepare(tasks.total, (huge,), policy=Policy(on_full="raise"))
            task.lease.release()
            assert list(store.keys()) == []

    def test_a_closed_session_says_so(self, store: Store[Any]) -> None:
        session = Session(store)
        session.close()
        session.close()
        with pytest.raises(AutoProxyError, match="closed"):
            session.prepare(print)


class TestResults:
    def test_small_ones_come_as_they_are(self, session: Session, tasks: Any) -> None:
        assert call(session, tasks.identity, [1, {"a": None}]) == [1, {"a": None}]
        assert type(call(session, tasks.ones, 10)) is np.ndarray

    def test_large_ones_come_as_proxies(self, session: Session, tasks: Any, count: Any) -> None:
        result = call(session, tasks.ones, BIG)
        assert is_proxy(result)
        assert isinstance(result, np.ndarray)
        assert result.shape == (BIG,)
        assert not is_resolved(result)
        assert count(session.store) == 1
        assert float(result.sum()) == BIG
        del result
        assert count(session.store) == 0

    def test_parts_of_containers(self, session: Session, tasks: Any, count: Any) -> None:
        result = call(session, tasks.nested, BIG)
        assert result["small"] == 1
        assert [is_proxy(x) for x in result["big"]] == [True, True]
        assert is_proxy(result["text"])
        assert count(session.store) == 3
        kept = result.pop("big")[0]
        del result
        assert count(session.store) == 1
        assert kept.sum() == BIG

    def test_results_can_be_left_alone(self, session: Session, tasks: Any, count: Any) -> None:
        task = session.prepare(tasks.ones, (BIG,), policy=Policy(results=False))
        assert type(run(session, task)) is np.ndarray
        assert count(session.store) == 0

    def test_a_result_goes_to_the_next_task_as_a_reference(
        self, session: Session, tasks: Any, count: Any
    ) -> None:
        first = call(session, tasks.ones, BIG)
        task = session.prepare(tasks.add_one, (first,))
        assert session.stats().puts == 0
        del first
        assert count(session.store) == 1  # the task needs it
        second = run(session, task)
        assert count(session.store) == 1
        assert second.sum() == 2 * BIG

    def test_returned_arguments_make_one_hop(
        self, session: Session, tasks: Any, count: Any
    ) -> None:
        returned = call(session, tasks.identity, np.ones(BIG))
        assert count(session.store) == 1
        assert session.stats().puts == 1
        again = call(session, tasks.identity, returned)
        assert count(session.store) == 1
        assert again.__proxy_factory__ is returned.__proxy_factory__
        pair = call(session, lambda x: [x, {"k": x}], again)
        assert count(session.store) == 1
        del returned, again
        assert pair[1]["k"].sum() == BIG
        del pair
        assert count(session.store) == 0

    def test_returned_lazy_proxies_make_one_hop(
        self, session: Session, tasks: Any, count: Any
    ) -> None:
        policy = Policy(resolve="lazy")
        returned = run(session, session.prepare(tasks.identity, ([1] * 60_000,), policy=policy))
        assert is_proxy(returned)
        assert count(session.store) == 1
        assert len(returned) == 60_000

    def test_changed_arguments_are_stored_anew(self, session: Session, tasks: Any) -> None:
        value = [float(i) for i in range(50_000)]
        result = call(session, tasks.append, value)
        assert len(result) == 50_001
        assert len(value) == 50_000
        policy = Policy(resolve="lazy")
        result = run(session, session.prepare(tasks.append, (value,), policy=policy))
        assert len(result) == 50_001

    def test_a_result_changed_on_this_side_is_passed_as_it_is_now(
        self, session: Session, tasks: Any
    ) -> None:
        result = call(session, tasks.identity, [float(i) for i in range(50_000)])
        result.append(1.0)
        assert call(session, len, result) == 50_001
        text = call(session, tasks.identity, "x" * 200_000)
        text += "y"  # another target in the same proxy
        assert is_proxy(text)
        assert call(session, lambda x: x[-1], text) == "y"

    def test_user_proxies_are_returned_as_they_are(self, session: Session, tasks: Any) -> None:
        proxy = session.store.proxy(np.ones(BIG))
        result = call(session, tasks.identity, proxy)
        assert is_proxy(result)
        assert result.__proxy_factory__.key == proxy.__proxy_factory__.key
        session.store.evict(proxy.__proxy_factory__.key)

    def test_pickled_by_user_code_a_result_travels_by_value(
        self, session: Session, tasks: Any
    ) -> None:
        result = call(session, tasks.ones, BIG)
        assert type(pickle.loads(pickle.dumps(result))) is np.ndarray
        assert type(pickle.loads(pickle.dumps({"r": result}))["r"]) is np.ndarray
        pickle.loads(pickle.dumps(result.__proxy_factory__))

    def test_results_of_another_session(self, store: Store[Any], tasks: Any, count: Any) -> None:
        with Session(store) as one, Store("other") as other_store, Session(other_store) as two:
            first = call(one, tasks.ones, BIG)
            second = call(two, tasks.add_one, first)
            assert count(store) == count(other_store) == 1
            same = call(two, tasks.identity, first)
            assert count(other_store) == 1
            del first
            assert count(store) == 1
            assert same.sum() + second.sum() == 3 * BIG
            del same
            assert count(store) == 0

    def test_they_stay_usable_when_the_session_closes(
        self, store: Store[Any], tasks: Any, count: Any
    ) -> None:
        session = Session(store)
        result = call(session, tasks.ones, BIG)
        both = call(session, tasks.nested, BIG)
        session.close()
        assert count(store) == 0
        assert not is_resolved(result)
        assert result.sum() == BIG
        assert both["text"] == "x" * 8 * BIG
        with Session(store) as other:
            assert call(other, tasks.total, result) == BIG

    def test_without_bringing_home_the_error_says_what_happened(self, tasks: Any) -> None:
        session = Session(Store("gone"), own_store=True)
        result = call(session, tasks.ones, BIG)
        session.close(bring_home=False)
        with pytest.raises(ProxyResolveError, match="closed"):
            result.sum()

    def test_without_adoption_they_stay(self, store: Store[Any], tasks: Any, count: Any) -> None:
        with Session(store, adopt_results=False) as session:
            result = call(session, tasks.ones, BIG)
        again = pickle.loads(pickle.dumps(result))
        assert is_proxy(again)
        assert again.sum() == BIG
        assert count(store) == 1
        store.evict(result.__proxy_factory__.key)


class TestPersist:
    def test_in_place(self, store: Store[Any], tasks: Any, count: Any) -> None:
        session = Session(store)
        lasting = session.persist(call(session, tasks.ones, BIG))
        session.close()
        assert count(store) == 1
        again = pickle.loads(pickle.dumps(lasting))
        assert is_proxy(again)
        assert again.shape == (BIG,)
        assert again.sum() == BIG
        store.evict(lasting.__proxy_factory__.key)

    def test_in_another_store(self, store: Store[Any], tasks: Any, count: Any) -> None:
        with Session(Store("short"), own_store=True) as session:
            result = call(session, tasks.ones, BIG)
            with pytest.raises(StoreConfigError, match="outlives"):
                persist(result)
            lasting = persist(result, store)
            changed = call(session, tasks.identity, [1.0] * 50_000)
            changed.append(2.0)
            lasting_list = persist(changed, store)
        assert lasting.sum() == BIG
        assert pickle.loads(pickle.dumps(lasting_list))[-1] == 2.0
        for proxy in (lasting, lasting_list):
            store.evict(proxy.__proxy_factory__.key)

    def test_only_of_results(self, store: Store[Any]) -> None:
        with pytest.raises(ProxyStoreFactoryError, match="result of a task"):
            persist(Proxy(lambda: 1))


class TestStats:
    def test_counts(self, session: Session, tasks: Any) -> None:
        big = np.ones(BIG)
        result = call(session, tasks.add_one, [big, big][0])
        kept = session.prepare(tasks.totals, (result, big, [result]))
        stats = session.stats()
        assert stats.puts == 2
        assert stats.nbytes > 2 * 8 * BIG
        assert stats.refs == 3
        assert stats.hits == 1
        assert stats.results == 1
        assert stats.result_nbytes > 8 * BIG
        assert stats.alive == 2
        assert stats.evicted == 1
        kept.lease.release()
        kept.lease.release()
        assert session.stats().alive == 1
        info = get_info(result)
        assert info is not None
        assert info.dtype == "<f8"

    def test_local_stores_work_too(self, tasks: Any) -> None:
        with Store("here", LocalConnector()) as store, Session(store) as session:
            assert call(session, tasks.total, np.ones(BIG)) == BIG
            result = call(session, tasks.ones, BIG)
            assert result.sum() == BIG
            del result
            gc.collect()
            assert list(store.keys()) == []
