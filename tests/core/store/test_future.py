from __future__ import annotations

import multiprocessing
import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from proxystore_core.connectors.local import LocalConnector, LocalKey
from proxystore_core.exceptions import (
    FutureAlreadySetError,
    FutureCancelledError,
    FutureError,
    FutureTimeoutError,
    MissingReason,
    ProxyResolveError,
    ProxyResolveMissingKeyError,
    StoreArgumentError,
)
from proxystore_core.proxy import resolve
from proxystore_core.store import Store, future
from proxystore_core.store.utils import resolve_async

DEADLINE = 10


class StrictError(Exception):
    """An exception that pickles, and cannot be unpickled."""

    def __reduce__(self) -> Any:
        return divmod, (1, 0)


class LocalError(Exception):
    """An exception that cannot be pickled."""

    def __reduce__(self) -> Any:
        raise TypeError("not me")


def travel(obj: Any) -> Any:
    return pickle.loads(pickle.dumps(obj))


def cause(proxy: Any) -> BaseException | None:
    with pytest.raises(ProxyResolveError) as caught:
        resolve(proxy)
    return caught.value.cause


def test_result(store: Store) -> None:
    made = store.future()
    assert not made.done()
    assert not made.cancelled()
    proxy = travel(made.proxy())
    travel(made).set_result([1])
    assert made.done()
    assert made.result() == proxy == [1]
    assert made.exception() is None
    assert not made.cancelled()
    assert "Future" in repr(made)


@pytest.mark.parametrize("value", [None, False, 0, b""])
def test_a_result_may_be_anything(store: Store, value: Any) -> None:
    made = store.future()
    made.set_result(value)
    assert made.result() == value


def test_consumers_wait(store: Store) -> None:
    made = store.future()
    proxies = [travel(made.proxy()) for _ in range(3)]
    waiting = [resolve_async(proxy) for proxy in proxies]
    with ThreadPoolExecutor(1) as pool:
        result = pool.submit(made.result)
        assert not any(each.done() for each in (*waiting, result))
        made.set_result("value")
        assert result.result(DEADLINE) == "value"
    assert proxies == ["value"] * 3


def fail(made: Any) -> None:
    try:
        raise ValueError("no data")
    except ValueError as error:
        made.set_exception(error)


def test_a_failed_producer_fails_its_consumers(store: Store) -> None:
    # In ProxyStore it left them waiting for ever.
    made = store.future()
    proxy = travel(made.proxy())
    waiting = resolve_async(proxy)
    fail(travel(made))
    assert isinstance(waiting.exception(DEADLINE), ProxyResolveError)
    error = cause(proxy)
    assert type(error) is ValueError
    assert str(error) == "no data"
    assert 'raise ValueError("no data")' in error.__notes__[0]
    with pytest.raises(ValueError, match="no data"):
        made.result()
    assert type(made.exception()) is ValueError
    assert made.done()
    assert not made.cancelled()


@pytest.mark.parametrize("error", [StrictError("strict"), LocalError("local")])
def test_an_exception_that_does_not_travel_is_told(store: Store, error: Exception) -> None:
    made = store.future()
    made.set_exception(error)
    found = made.exception()
    assert type(found) is FutureError
    assert type(error).__name__ in str(found)


def test_only_exceptions_are_exceptions(store: Store) -> None:
    with pytest.raises(StoreArgumentError, match="set_result"):
        store.future().set_exception("text")  # type: ignore[arg-type]


def test_failures_pass_by_custom_deserializers(store: Store) -> None:
    made = store.future(serializer=str.encode, deserializer=bytes.decode)
    made.set_exception(KeyError("x"))
    assert isinstance(cause(made.proxy()), KeyError)
    made = store.future(serializer=str.encode, deserializer=bytes.decode)
    made.set_result("text")
    assert made.proxy() == made.result() == "text"
    with Store(
        "custom", store.connector, serializer=str.encode, deserializer=bytes.decode
    ) as custom:
        made = custom.future()
        assert made.cancel()
        assert made.cancelled()
        assert isinstance(cause(made.proxy()), FutureCancelledError)


def test_cancel(store: Store) -> None:
    made = store.future()
    proxy = travel(made.proxy())
    producer = travel(made)
    assert made.cancel()
    assert not made.cancel()
    assert made.cancelled()
    assert producer.cancelled()
    assert isinstance(cause(proxy), FutureCancelledError)
    with pytest.raises(FutureCancelledError):
        made.result()
    with pytest.raises(FutureAlreadySetError):
        producer.set_result(1)
    made = store.future()
    made.set_result(1)
    assert not made.cancel()
    assert made.result() == 1


def test_a_future_is_set_once(store: Store) -> None:
    made = store.future(evict=True)
    made.set_result(1)
    for again in (made, travel(made)):
        with pytest.raises(FutureAlreadySetError):
            again.set_result(2)
        with pytest.raises(FutureAlreadySetError):
            again.set_exception(ValueError())
    assert made.result() == 1
    with pytest.raises(FutureAlreadySetError):
        made.set_result(2)


def test_timeouts(store: Store) -> None:
    made = store.future(polling_interval=10)
    start = time.monotonic()
    for timeout in (0, 0.05):
        with pytest.raises(FutureTimeoutError, match=f"within {timeout} s") as caught:
            made.result(timeout)
        assert isinstance(caught.value, TimeoutError)
    assert time.monotonic() - start < 5  # and not the interval
    limited = store.future(polling_timeout=0.02)
    assert isinstance(cause(travel(limited.proxy())), FutureTimeoutError)
    with pytest.raises(FutureTimeoutError):
        limited.result()
    with pytest.raises(FutureTimeoutError):
        limited.exception()
    limited.set_result("late")
    assert limited.proxy() == "late"


def test_backoff(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 5:
            made.set_result(1)

    made = store.future(polling_interval=0.5, polling_backoff_factor=2, polling_interval_limit=3)
    monkeypatch.setattr(future.time, "sleep", sleep)
    assert made.result() == 1
    assert pauses == [0.5, 1, 2, 3, 3]


@pytest.mark.parametrize(
    "polling",
    [
        {"polling_interval": -1},
        {"polling_backoff_factor": 0.5},
        {"polling_interval_limit": -1},
        {"polling_timeout": float("nan")},
    ],
)
def test_polling_without_meaning_is_refused(store: Store, polling: dict[str, float]) -> None:
    with pytest.raises(StoreArgumentError, match="polling_"):
        store.future(**polling)  # type: ignore[arg-type]


def test_evict(store: Store) -> None:
    made = store.future(evict=True)
    made.set_result([1])
    assert made.proxy() == [1]
    assert store.usage().objects == 0


@pytest.mark.parametrize("kind", ["local", "shm"])
def test_nobody_waits_for_what_was_evicted(
    make_connector: Any, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(future, "_SURE_AFTER", 0.05)
    with Store("test", make_connector(kind)) as store:
        made = store.future()
        made.set_result(1)
        store.evict(made._factory.key)
        with pytest.raises(ProxyResolveMissingKeyError) as caught:
            made.result()
        assert caught.value.reason is MissingReason.EVICTED


def test_nobody_waits_for_a_store_that_was_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(future, "_SURE_AFTER", 0.05)
    with Store("test") as store:
        proxy = travel(store.future().proxy())
        consumer = Store.from_config(store.config())
        waiting = resolve_async(proxy)
    with consumer:
        assert isinstance(waiting.exception(DEADLINE), ProxyResolveError)
    error = cause(proxy)
    assert isinstance(error, ProxyResolveMissingKeyError)
    assert error.reason is MissingReason.STORE_CLOSED


class HastyConnector(LocalConnector):
    """Says of what is not there yet that it was evicted, as one may for a moment."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = threading.Event()

    def missing_reason(self, key: LocalKey) -> MissingReason:
        self.asked.set()
        return MissingReason.EVICTED


def test_a_moment_without_the_object_is_not_yet_the_end() -> None:
    connector = HastyConnector()
    with Store("test", connector) as store:
        made = store.future()
        waiting = resolve_async(made.proxy())
        assert connector.asked.wait(DEADLINE)
        made.set_result(1)
        assert waiting.result(DEADLINE) is None


def produce(made: Any) -> None:
    made.set_result(list(range(1000)))


def test_another_process_produces(shm_store: Store) -> None:
    made = shm_store.future()
    waiting = resolve_async(proxy := travel(made.proxy()))
    context = multiprocessing.get_context("fork")
    process = context.Process(target=produce, args=(made,))
    process.start()
    assert waiting.result(DEADLINE) is None
    assert len(proxy) == 1000
    process.join()
