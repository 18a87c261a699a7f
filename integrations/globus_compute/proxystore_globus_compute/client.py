"""The client, for those who work without an executor."""

from __future__ import annotations

import atexit
import weakref
from collections import defaultdict
from collections.abc import Callable
from typing import Any, Self

from globus_compute_sdk import Client
from globus_compute_sdk.sdk.batch import Batch

from proxystore_core.autoproxy import Lease, Policy, Session, Stats
from proxystore_core.store import Store
from proxystore_globus_compute.calls import Calls, Known
from proxystore_globus_compute.errors import explained
from proxystore_globus_compute.options import checked
from proxystore_globus_compute.payloads import ReadyArgs
from proxystore_globus_compute.serializer import aware
from proxystore_globus_compute.source import epilogue
from proxystore_globus_compute.worker import RemoteFunction


class ProxyClient(Client):
    """A `Client` whose large arguments and results travel by reference.

    It is used as the SDK's own, whose arguments it takes too. Arguments are evicted when the
    result of their task was got, and their batch, which may be run again, is gone. The client
    remembers results, as the SDK's does, so that their objects stay until `forget` or `close`.
    Where the connector of the store has a `ttl`, as `RESULT_TTL`, arguments of tasks that are not
    over when the client, or its process, ends are left to that: another client may get the results.

    Args:
        args: What the SDK's `Client` takes.
        store: Where the objects lie. The workers of the endpoints must reach it.
        threshold: Smallest size that travels by reference, in bytes or as `'50 kB'`.
        policy: What else decides about what travels by reference, and how.
        kwargs: What the SDK's `Client` takes.

    Raises:
        ExecutorConfigError: If there is no store, or an option is not what it should be.
    """

    def __init__(
        self,
        *args: Any,
        store: Store[Any] | None = None,
        threshold: int | str | None = None,
        policy: Policy | None = None,
        **kwargs: Any,
    ) -> None:
        used = checked(store, threshold, policy, who=type(self).__name__)
        super().__init__(*args, **kwargs)
        self.fx_serializer = aware(self.fx_serializer)
        self._proxy_calls = Calls(used)
        self._proxy_leases: dict[str, Lease] = {}
        lasts = getattr(used.store.connector, "ttl", None) is not None
        self._proxy_end = weakref.finalize(self, _end, self._proxy_leases, lasts)
        self._proxy_end.atexit = False
        atexit.register(self._proxy_end)  # now, so that it comes before that of the session

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @property
    def session(self) -> Session:
        """The session that owns what is stored."""
        return self._proxy_calls.session

    def stats(self) -> Stats:
        """Count what was stored, passed and evicted."""
        return self.session.stats()

    def close(self) -> None:
        """Let go of all objects; results that are still held stay usable."""
        self._proxy_end()
        atexit.unregister(self._proxy_end)
        self.session.close()

    def forget(self, *task_ids: Any) -> None:
        """Forget tasks and their results; the object of one that nobody else holds is evicted."""
        for task_id in map(str, task_ids):
            self._proxy_leases.pop(task_id, None)
            self._task_status_table.pop(task_id, None)

    def register_function(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> str:
        """Register a function; see the SDK's `Client`."""
        if isinstance(function, RemoteFunction):
            return str(super().register_function(function, *args, **kwargs))
        known = self._proxy_calls.wrap(function)
        function_id = str(super().register_function(known.func or function, *args, **kwargs))
        self._proxy_calls.remember(function_id, known)
        return function_id

    def register_source_code(self, source: str, function_name: str, *args: Any, **kw: Any) -> str:
        """Register a function by its source; see the SDK's `Client`."""
        text = source + epilogue(function_name, self._proxy_calls.settings.wire)
        function_id = str(super().register_source_code(text, function_name, *args, **kw))
        self._proxy_calls.remember(function_id, Known(function_name))
        return function_id

    def create_batch(self, *args: Any, **kwargs: Any) -> Batch:
        """Make a batch, which stores what is large of the arguments that are added to it."""
        made = super().create_batch(*args, **kwargs)
        return _reclassed(made, self._proxy_calls)

    def batch_run(self, endpoint_id: Any, batch: Batch) -> dict[str, Any]:
        """Run the tasks of a batch; see the SDK's `Client`."""
        answer: dict[str, Any] = super().batch_run(endpoint_id, batch)
        if isinstance(batch, ProxyBatch):
            for function_id, task_ids in answer["tasks"].items():
                leases = batch.leases.get(str(function_id), ())
                held = zip(task_ids, leases, strict=False)
                self._proxy_leases.update((task, lease) for task, lease in held if lease)
        return answer

    def _update_task_table(self, return_msg: Any, task_id: str) -> dict[str, Any]:
        try:
            status: dict[str, Any] = super()._update_task_table(return_msg, task_id)
        except Exception as error:
            self._proxy_leases.pop(task_id, None)
            told = explained(error, type(self).__name__)
            if told is None or told is error:
                raise
            raise told from error
        if not status["pending"]:
            if "result" in status:
                status["result"] = self._proxy_calls.result(status["result"])
            self._proxy_leases.pop(task_id, None)
        return status


def _end(leases: dict[str, Lease], lasts: bool) -> None:
    for lease in leases.values():
        lease.leave() if lasts else lease.release()
    leases.clear()


class ProxyBatch(Batch):
    """A batch whose large arguments lie in a store.

    Attributes:
        leases: What holds the arguments of its tasks, by function.
    """

    leases: defaultdict[str, list[Lease]]
    _proxy_calls: Calls

    def add(
        self,
        function_id: Any,
        args: tuple[Any, ...] | None = None,
        kwargs: dict[str, Any] | None = None,
    ) -> None:
        """Add a task; see the SDK's `Batch`.

        Raises:
            ArgumentSerializationError: If an argument cannot be serialized; the batch is as before.
        """
        lease = Lease()
        given: Any = args
        if type(given) is not ReadyArgs:  # made ready by an executor
            call = self._proxy_calls.ready(self._serde, str(function_id), args, kwargs)
            args, kwargs, lease = call.args, call.kwargs, call.lease
        super().add(function_id, args, kwargs)
        self.leases[str(function_id)].append(lease)


def _reclassed(batch: Any, calls: Calls) -> Batch:
    batch.__class__ = ProxyBatch  # the SDK makes them, with arguments that may change
    batch.leases = defaultdict(list)
    batch._proxy_calls = calls
    made: Batch = batch
    return made
