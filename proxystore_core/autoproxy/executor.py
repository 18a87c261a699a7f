"""An executor whose large arguments and results travel by reference."""

from __future__ import annotations

import itertools
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

from proxystore_core.autoproxy.futures import Calls, Failure, ResultFuture, cancel_all, run_calls
from proxystore_core.autoproxy.handles import Lease
from proxystore_core.autoproxy.policy import Policy
from proxystore_core.autoproxy.session import Session, Stats
from proxystore_core.autoproxy.task import Task
from proxystore_core.proxy import Proxy
from proxystore_core.store.base import Store

P = ParamSpec("P")
R = TypeVar("R")


class ProxyAlways:
    """A `should_proxy` that takes every object."""

    def __call__(self, item: Any) -> bool:
        """Return `True`."""
        return True


class ProxyNever:
    """A `should_proxy` that takes none."""

    def __call__(self, item: Any) -> bool:
        """Return `False`."""
        return False


class ProxyType:
    """A `should_proxy` that takes objects of some types.

    Args:
        types: The types.
    """

    def __init__(self, *types: type) -> None:
        self.types = types

    def __call__(self, item: Any) -> bool:
        """Tell whether an object is of one of the types."""
        return isinstance(item, self.types)


class StoreExecutor(Executor):
    """Runs tasks on another executor, and passes what is large by reference.

    Tasks get the real objects. What is large of a result comes back as a `Proxy`, which may be
    passed to the next task: its object goes from worker to worker. Arguments are evicted when
    their task is done, results when nobody holds their future or proxy any more, and everything
    when the executor is shut down; results that are still held then stay usable.

    Args:
        executor: Runs the tasks, and is shut down with this one: any
            `concurrent.futures.Executor`, or a client of which `submit` returns futures.
        store: Holds the objects. The workers must reach it.
        should_proxy: Decides which objects travel by reference, in containers too; it must be
            picklable. `None` for all that is large, as the options below say.
        ownership: Evict results with their last holder. Else they stay in the store, and their
            proxies pickle as references.
        close_store: Close the store on shutdown.
        policy: All of the following options at once.
        options: Fields of `Policy`: `threshold`, `types`, `depth`, `resolve`, ...

    Raises:
        ValueError: If an option is out of range, or given beside `policy`.
        TypeError: If an option is unknown.
    """

    def __init__(
        self,
        executor: Executor,
        store: Store[Any],
        should_proxy: Callable[[Any], bool] | None = None,
        *,
        ownership: bool = True,
        close_store: bool = True,
        policy: Policy | None = None,
        **options: Any,
    ) -> None:
        if policy is not None and (options or should_proxy is not None):
            raise ValueError("Give either policy or its fields one by one, not both.")
        if policy is None:
            if isinstance(executor, ThreadPoolExecutor):
                options.setdefault("on_unpicklable", "leave")  # threads can share a lock
            policy = Policy(should_proxy=should_proxy, **options)
        self.executor = executor
        self.store = store
        self.should_proxy = should_proxy
        self.ownership = ownership
        self.close_store = close_store
        self._session = Session(store, policy, own_store=close_store, adopt_results=ownership)
        self._lock = threading.Lock()
        self._running = 0
        self._shut = False

    @property
    def session(self) -> Session:
        """The session that owns what is stored."""
        return self._session

    def stats(self) -> Stats:
        """Count what was stored, passed and evicted."""
        return self._session.stats()

    def submit(  # type: ignore[override]  # results may be proxies
        self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> Future[R | Proxy[R]]:
        """Run a function.

        Args:
            function: The function.
            args: Its positional arguments.
            kwargs: Its keyword arguments.

        Returns:
            The future of its result, a `Proxy` where that is large.

        Raises:
            ArgumentSerializationError: If an argument cannot be serialized.
            RuntimeError: If the executor was shut down.
        """
        task = self._prepare(function, args, kwargs)
        call = (task.func, *task.args)
        return self._run(call, task.kwargs, task.lease, self._session.result)

    def map(  # type: ignore[override]  # results may be proxies
        self,
        function: Callable[..., R],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[R | Proxy[R]]:
        """Run a function on each item of one or more iterables.

        Args:
            function: Takes as many arguments as there are iterables.
            iterables: Where the arguments come from.
            timeout: Most seconds until a result, counted from this call; `None` for any.
            chunksize: How many calls are one task of the executor.
            buffersize: Most tasks whose results were not yet taken; the iterables are read as
                far. `None` submits all at once.

        Returns:
            An iterator over the results, in the order of the items.

        Raises:
            ValueError: If `chunksize` or `buffersize` is not positive.
            TimeoutError: From the iterator, if a result is late.
        """
        if chunksize < 1:
            raise ValueError(f"chunksize must be 1 or more, not {chunksize}.")
        if buffersize is not None and buffersize < 1:
            raise ValueError(f"buffersize must be 1 or more, not {buffersize}.")
        deadline = None if timeout is None else time.monotonic() + timeout
        calls = zip(*iterables, strict=False)
        futures: deque[Future[list[Any]]] = deque()

        def submit_one() -> bool:
            chunk = list(itertools.islice(calls, chunksize))
            if chunk:
                futures.append(self._submit_chunk(function, chunk))
            return bool(chunk)

        try:
            while (buffersize is None or len(futures) < buffersize) and submit_one():
                pass
        except BaseException:
            cancel_all(futures)
            raise

        def results() -> Iterator[Any]:
            try:
                while futures:
                    first = futures[0]
                    left = None if deadline is None else deadline - time.monotonic()
                    values = first.result(left)
                    futures.popleft()
                    del first
                    if buffersize is not None:
                        submit_one()
                    values.reverse()
                    while values:
                        value = values.pop()
                        if type(value) is Failure:
                            raise value.error
                        yield value
                        del value  # the caller may want it gone before the next one
            finally:
                cancel_all(futures)

        return results()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Shut the executor down and let go of all objects.

        Args:
            wait: Wait for running tasks; else the store is let go of after the last of them.
            cancel_futures: Cancel tasks that did not start.
        """
        executor: Any = self.executor
        if isinstance(executor, Executor):
            executor.shutdown(wait=wait, cancel_futures=cancel_futures)
        elif hasattr(executor, "close"):
            executor.close()
        else:
            warnings.warn(
                f"A {type(executor).__name__} has neither shutdown() nor close(): end it yourself.",
                RuntimeWarning,
                stacklevel=2,
            )
        with self._lock:
            self._shut = True
            idle = self._running == 0
        if idle:
            self._session.close()

    def _prepare(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Task:
        if self._shut:
            raise RuntimeError("cannot schedule new futures after shutdown")
        return self._session.prepare(function, args, kwargs)

    def _submit_chunk(self, function: Any, chunk: list[tuple[Any, ...]]) -> Future[list[Any]]:
        session = self._session
        if len(chunk) == 1:
            task = self._prepare(function, chunk[0], {})
            call: tuple[Any, ...] = (task.func, *task.args)
            return self._run(call, {}, task.lease, lambda value: [session.result(value)])
        lease = Lease()
        calls: Calls = []
        try:
            for args in chunk:
                task = self._prepare(function, args, {})
                lease.join(task.lease)
                same = bool(calls) and calls[0][0] == task.func  # one object pickles once
                calls.append((calls[0][0] if same else task.func, task.args, task.kwargs))
        except BaseException:
            lease.release()
            raise
        return self._run(
            (run_calls, calls), {}, lease, lambda values: list(map(session.result, values))
        )

    def _run(
        self,
        call: tuple[Any, ...],
        kwargs: dict[str, Any],
        lease: Lease,
        convert: Callable[[Any], Any],
    ) -> ResultFuture:
        with self._lock:
            self._running += 1
        try:
            inner = self.executor.submit(*call, **kwargs)
        except BaseException:
            lease.release()
            self._done()
            raise
        future = ResultFuture(inner)

        def finish(_: Any) -> None:
            future.finish(convert, lease.release)
            self._done()

        inner.add_done_callback(finish)
        return future

    def _done(self) -> None:
        with self._lock:
            self._running -= 1
            last = self._shut and self._running == 0
        if last:
            self._session.close()
