"""The executor."""

from __future__ import annotations

import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from globus_compute_sdk import Executor, ShellFunction
from globus_compute_sdk.sdk.asynchronous.compute_future import ComputeFuture
from globus_compute_sdk.serialize import ComputeSerializer
from globus_sdk import GlobusAPIError

from proxystore_core.autoproxy import Policy, Session, Stats
from proxystore_core.exceptions import AutoProxyError
from proxystore_core.store import Store
from proxystore_core.store.config import to_bytes
from proxystore_globus_compute.calls import Calls, Known, Ready
from proxystore_globus_compute.errors import code_too_large
from proxystore_globus_compute.futures import Books, Pending, failed
from proxystore_globus_compute.mapping import results_of, tasks_of
from proxystore_globus_compute.options import checked
from proxystore_globus_compute.serializer import aware
from proxystore_globus_compute.source import epilogue
from proxystore_globus_compute.submission import SERVICE_LIMIT, TOO_LARGE, Item, send


class ProxyExecutor(Executor):
    """An `Executor` whose large arguments and results travel by reference.

    It is used as the SDK's own, whose arguments it takes too. Functions get the real objects.
    What is large of a result comes as a `Proxy`, which may be passed to the next task: its
    object goes from worker to worker. Arguments are evicted when their future is done, results
    when nobody holds them any more, and everything at the shutdown; results that are still
    held then stay usable. What goes wrong with one task fails its future, and no other.

    Args:
        args: What the SDK's `Executor` takes: `endpoint_id`, `client`, ...
        store: Where the objects lie. The workers of the endpoint must reach it.
        threshold: Smallest size that travels by reference, in bytes or as `'50 kB'`.
        policy: What else decides about what travels by reference, and how. By default a task
            may write to the arrays that it gets, and only it sees the change.
        batch_bytes: Bytes of arguments by value, serialized, after which a new request to the
            service begins; it takes 10 MB in one.
        kwargs: What the SDK's `Executor` takes.

    Raises:
        ExecutorConfigError: If there is no store, or an option is not what it should be.
    """

    def __init__(
        self,
        *args: Any,
        store: Store[Any] | None = None,
        threshold: int | str | None = None,
        policy: Policy | None = None,
        batch_bytes: int | str = "5 MB",
        **kwargs: Any,
    ) -> None:
        used = checked(store, threshold, policy, who=type(self).__name__)
        self._proxy_batch_bytes = min(to_bytes(batch_bytes), SERVICE_LIMIT)
        self._proxy_chunks: dict[Callable[..., Any], str] = {}
        self._proxy_calls = Calls(used)
        self._proxy_registering = threading.RLock()
        self._proxy_stopping = False
        super().__init__(*args, **kwargs)
        self.serializer = super().serializer
        self._proxy_books = Books(self._proxy_calls, self.label or type(self).__name__)

    @property
    def session(self) -> Session:
        """The session that owns what is stored."""
        return self._proxy_calls.session

    def stats(self) -> Stats:
        """Count what was stored, passed and evicted."""
        return self.session.stats()

    @property
    def serializer(self) -> ComputeSerializer:
        """The serializer of the client; one that is set is used through a `ProxySerializer`."""
        found: ComputeSerializer = self.client.fx_serializer
        return found

    @serializer.setter
    def serializer(self, serializer: ComputeSerializer) -> None:
        if not isinstance(serializer, ComputeSerializer):
            raise TypeError(f"Expected ComputeSerializer, got {type(serializer).__name__}")
        self.client.fx_serializer = aware(serializer)

    def register_function(
        self, fn: Callable[..., Any], function_id: str | None = None, **func_register_kwargs: Any
    ) -> str:
        """Register a function; see the SDK's `Executor`.

        Args:
            fn: The function.
            function_id: What it is registered as already, perhaps by somebody else: then its
                large arguments are sent as proxies, and its results come by value.
            func_register_kwargs: What `Client.register_function` takes.

        Raises:
            ValueError: If the function is registered with this executor already.
            RuntimeError: If the executor was shut down.
            PayloadTooLargeError: If its code is larger than the service takes.
        """
        if function_id is None and self._may_register(fn):
            known = self._proxy_calls.wrap(fn)
            func_register_kwargs.pop("function", None)
            try:
                function_id = str(
                    self.client.register_function(known.func or fn, **func_register_kwargs)
                )
            except GlobusAPIError as error:
                if error.http_status == TOO_LARGE:
                    raise code_too_large(known.name, SERVICE_LIMIT) from error
                raise
            self._proxy_calls.remember(function_id, known)
        elif function_id is not None and isinstance(fn, ShellFunction):
            self._proxy_calls.remember(function_id, self._proxy_calls.wrap(fn))
        return str(super().register_function(fn, function_id))

    def register_source_code(
        self, source: str, function_name: str, **registration_kwargs: Any
    ) -> str:
        """Register a function by its source; see the SDK's `Executor`.

        Args:
            source: Text that defines the function.
            function_name: Its name.
            registration_kwargs: What `Client.register_source_code` takes.

        Raises:
            ValueError: If this source is registered with this executor already.
        """
        key = hash(source)
        if not self._may_register(key):
            return str(super().register_source_code(source, function_name, **registration_kwargs))
        text = source + epilogue(function_name, self._proxy_calls.settings.wire)
        function_id = str(
            self.client.register_source_code(text, function_name, **registration_kwargs)
        )
        self._proxy_calls.remember(function_id, Known(function_name))
        self._function_registry[self._fn_cache_key(key)] = function_id
        return function_id

    def _may_register(self, key: Any) -> bool:
        return not self._stopped and self._fn_cache_key(key) not in self._function_registry

    def submit(  # type: ignore[override]  # the SDK's has no types
        self, fn: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> ComputeFuture:
        """Run a function on the endpoint.

        Args:
            fn: The function.
            args: Its positional arguments.
            kwargs: Its keyword arguments.

        Returns:
            The future of its result, a `Proxy` where that is large. It has failed already where
            the function cannot be registered, or an argument not be serialized.

        Raises:
            RuntimeError: If the executor was shut down.
        """
        self._check_running()
        if self._may_register(fn):
            fn, args, kwargs = self._proxy_calls.unbound(fn, args, kwargs)
        try:
            function_id = self._registered(fn)
        except Exception as error:  # noqa: BLE001  # belongs to whoever waits
            return failed(error)
        return self.submit_to_registered_function(function_id, args, kwargs)

    def _registered(self, fn: Callable[..., Any], *, chunk: bool = False) -> str:
        """Return what a function is registered as, from now on if need be.

        Args:
            fn: The function.
            chunk: As what takes a list of calls.
        """
        with self._proxy_registering:  # several threads may submit it first
            if not chunk:
                key = self._fn_cache_key(fn)
                return str(self._function_registry.get(key) or self.register_function(fn))
            found = self._proxy_chunks.get(fn)
            if found is None:
                known = self._proxy_calls.wrap(fn, chunk=True)
                found = str(self.client.register_function(known.func))
                self._proxy_calls.remember(found, known)
                self._proxy_chunks[fn] = found
            return found

    def submit_to_registered_function(
        self,
        function_id: str,
        args: tuple[Any, ...] | None = None,
        kwargs: dict[str, Any] | None = None,
    ) -> ComputeFuture:
        """Run a function that was registered, here or elsewhere.

        Args:
            function_id: What it is registered as.
            args: Its positional arguments.
            kwargs: Its keyword arguments.

        Returns:
            The future of its result; see `submit`.

        Raises:
            RuntimeError: If the executor was shut down.
            ValueError: If there is no endpoint.
        """
        self._check_running()
        return self._enqueue(function_id, self._ready(function_id, args, kwargs))

    def _ready(self, function_id: str, args: Any, kwargs: Any = None) -> Ready | ComputeFuture:
        """Make a call ready to be sent, or the future of one that cannot be."""
        try:
            return self._proxy_calls.ready(self.serializer, str(function_id), args, kwargs)
        except AutoProxyError as error:
            if type(error) is AutoProxyError:  # not of this task: the session
                raise
            return failed(error)
        except Exception as error:  # noqa: BLE001  # belongs to whoever waits
            return failed(error)

    def _enqueue(self, function_id: str, call: Ready | ComputeFuture) -> ComputeFuture:
        if isinstance(call, ComputeFuture):
            return call
        pending = Pending(self._proxy_books, call)
        call.args.call = pending
        future = pending.expected()
        try:
            sent = super().submit_to_registered_function(function_id, call.args, call.kwargs)
        except BaseException:
            pending.over()
            raise
        self._proxy_books.bind(sent, pending)
        return future

    def _check_running(self) -> None:
        if self._stopped or self._proxy_stopping:
            raise RuntimeError(f"{self!r} is shutdown; no new functions may be executed")

    def map(
        self,
        fn: Callable[..., Any],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
    ) -> Iterator[Any]:
        """Run a function on each item of one or more iterables.

        All arguments are stored before the first task is sent, so that they travel together.

        Args:
            fn: Takes as many arguments as there are iterables.
            iterables: Where the arguments come from.
            timeout: Most seconds until a result, counted from this call; `None` for any.
            chunksize: How many calls are one task.

        Returns:
            An iterator over the results, in the order of the items.

        Raises:
            ValueError: If `chunksize` is not positive.
            RuntimeError: If the executor was shut down.
            TimeoutError: From the iterator, if a result is late.
        """
        if chunksize < 1:
            raise ValueError(f"chunksize must be 1 or more, not {chunksize}.")
        self._check_running()
        deadline = None if timeout is None else time.monotonic() + timeout
        tasks = tasks_of(zip(*iterables, strict=False), chunksize)
        chunked = chunksize > 1
        function_id = self._registered(fn, chunk=chunked)
        ready = [self._ready(function_id, args) for args in tasks]
        futures = deque([self._enqueue(function_id, call) for call in ready])
        del ready

        return results_of(futures, deadline, chunked=chunked)

    def reload_tasks(self, task_group_id: Any = None) -> Iterable[ComputeFuture]:
        """Return futures of the tasks of a group; see the SDK's `Executor`.

        Another process may have submitted them, whose store this one uses: then it owns the
        results from now on.

        Args:
            task_group_id: The group; `None` for that of the executor.
        """
        found: Iterable[ComputeFuture] = super().reload_tasks(task_group_id)
        return [self._proxy_books.adopt(future) for future in found]

    def _submit_tasks(
        self,
        taskgroup_uuid: uuid.UUID | None,
        endpoint_uuid: uuid.UUID,
        resource_specification: dict[str, Any] | None,
        user_endpoint_config: dict[str, Any] | None,
        result_serializers: list[str] | None,
        futs: list[ComputeFuture],
        tasks: list[Any],
    ) -> None:
        items = []
        for future, task in zip(futs, tasks, strict=True):
            self._proxy_books.bind(future, task.args.call)
            items.append(Item(future, task, task.args.call))
        group = (
            taskgroup_uuid,
            endpoint_uuid,
            resource_specification,
            user_endpoint_config,
            result_serializers,
        )
        post = super()._submit_tasks
        send(lambda some, of_them: post(*group, some, of_them), items, self._proxy_batch_bytes)
        self._submitter_thread_exception_captured = False  # nothing went wrong in the thread

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Shut the executor down, and let go of all objects; results that are held stay usable.

        Args:
            wait: Wait for running tasks; else the objects go after the last of them.
            cancel_futures: Cancel tasks that were not sent yet.
        """
        self._proxy_stopping = True
        sender = self._task_submitter
        if not cancel_futures and sender.is_alive() and sender is not threading.current_thread():
            # The SDK waits for this too, but with a lock that its thread needs to come so far.
            self._tasks_to_send.join()
        stop: Callable[..., None] = super().shutdown
        stop(wait, cancel_futures=cancel_futures)
        self._proxy_books.end(wait_for_all=wait)
