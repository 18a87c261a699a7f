"""The executors that users name."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from parsl.executors import HighThroughputExecutor, MPIExecutor, ThreadPoolExecutor
from parsl.executors.base import ParslExecutor

from proxystore_core.autoproxy import Policy
from proxystore_core.exceptions import ExecutorConfigError
from proxystore_core.store import Store
from proxystore_parsl._reclass import derive, reclass
from proxystore_parsl.mixin import ProxyMixin, options
from proxystore_parsl.tries import LocalCall

ExecutorT = TypeVar("ExecutorT", bound=ParslExecutor)


# Parsl types the futures of these more narrowly than those of executors in general.


class ProxyHighThroughputExecutor(ProxyMixin, HighThroughputExecutor):  # type: ignore[misc]
    """A `HighThroughputExecutor` whose large arguments and results travel by reference."""


class ProxyMPIExecutor(ProxyMixin, MPIExecutor):  # type: ignore[misc]
    """An `MPIExecutor` whose large arguments and results travel by reference."""


class ProxyThreads(ThreadPoolExecutor):
    """What `proxied` adds to a `ThreadPoolExecutor`, or to one derived from it.

    Threads share their objects (locks and events too), so nothing is stored here.
    What a task of another proxy executor returned is handed in as the real object.
    """

    def submit(
        self,
        func: Callable[..., Any],
        resource_specification: dict[str, Any],
        *args: Any,
        **kwargs: Any,
    ) -> Future[Any]:
        """Submit a call; results of other proxy executors are fetched by the thread."""
        call = LocalCall.of(func, args, kwargs)
        submit: Callable[..., Future[Any]] = super().submit
        if call is None:
            return submit(func, resource_specification, *args, **kwargs)
        return submit(call, resource_specification)


class ProxyThreadPoolExecutor(ProxyThreads, ThreadPoolExecutor):
    """A `ThreadPoolExecutor` whose tasks get the data of other executors' results.

    Threads share their objects, so nothing of its own is stored.
    """


_READY: dict[type[ParslExecutor], type[ParslExecutor]] = {
    HighThroughputExecutor: ProxyHighThroughputExecutor,
    MPIExecutor: ProxyMPIExecutor,
    ThreadPoolExecutor: ProxyThreadPoolExecutor,
}


def proxied(
    executor: ExecutorT,
    *,
    threshold: int | str | None = None,
    store: Store[Any] | None = None,
    policy: Policy | None = None,
) -> ExecutorT:
    """Let the large arguments and results of an executor travel by reference.

    Args:
        executor: Any Parsl executor that is not started yet: HighThroughput, MPI, WorkQueue,
            TaskVine, Flux, GlobusCompute, one of your own. Threads share their objects
            anyway; for a `ThreadPoolExecutor` the options have no effect.
        threshold: Smallest size that travels by reference, in bytes or as `'100 kB'`.
        store: Where the objects lie meanwhile. By default a shared-memory store of
            the executor's own, which is removed when it shuts down.
        policy: What else decides about what travels by reference, and how.

    Returns:
        The same object, of a class derived from its own.

    Raises:
        ExecutorConfigError: If it is no executor, or is proxied already, or an option
            is not what it should be.
    """
    cls = type(executor)
    if not isinstance(executor, ParslExecutor):
        hint = (
            f"; call it first: proxied({executor.__name__}(...))"
            if isinstance(executor, type)
            else ""
        )
        raise ExecutorConfigError(f"{executor!r} is not a Parsl executor object{hint}")
    if isinstance(executor, (ProxyMixin, ProxyThreads)):
        raise ExecutorConfigError(f"Executor {executor.label!r} is proxied already.")
    if any(base.__name__ == "RadicalPilotExecutor" for base in cls.__mro__):
        raise ExecutorConfigError(
            "RadicalPilotExecutor takes functions out of their wrappers, so that nothing "
            "could fetch their arguments; use it without proxied()."
        )
    checked = options(threshold, store, policy)
    mixin = ProxyThreads if isinstance(executor, ThreadPoolExecutor) else ProxyMixin
    reclass(executor, _READY.get(cls) or derive(mixin, cls))
    if isinstance(executor, ProxyMixin):
        executor._proxy_set_up(checked)
    return executor
