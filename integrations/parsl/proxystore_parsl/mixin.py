"""Arguments and results of any Parsl executor by reference."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from parsl.app.errors import RemoteExceptionWrapper
from parsl.data_provider.files import File
from parsl.executors.base import ParslExecutor
from parsl.providers import LocalProvider

from proxystore_core.autoproxy import Policy, Session, Stats
from proxystore_core.connectors.file import FileConnector
from proxystore_core.exceptions import ExecutorConfigError
from proxystore_core.store import Store
from proxystore_parsl import memo
from proxystore_parsl.tries import Delivery, Try, explain_submit

_LISTS = ("inputs",)
# Keyword arguments in which some executors look for files.

_LEAVE = ("outputs", "stdout", "stderr", "stdin", "parsl_resource_specification")
# Keyword arguments that Parsl and its executors read themselves.

_OPAQUE = (File, RemoteExceptionWrapper)
# Types that Parsl and its executors look for among arguments and results.


class Options(NamedTuple):
    """What a user says about a proxy executor."""

    policy: Policy
    store: Store[Any] | None
    given: Policy | None


def options(
    threshold: int | str | None, store: Store[Any] | None, policy: Policy | None
) -> Options:
    """Check the options of a proxy executor.

    Raises:
        ExecutorConfigError: If one is not what it should be.
    """
    if store is not None and not isinstance(store, Store):
        raise ExecutorConfigError(f"store must be a Store or None, not {store!r}")
    if policy is not None and not isinstance(policy, Policy):
        raise ExecutorConfigError(f"policy must be a Policy or None, not {policy!r}")
    try:
        used = policy or Policy()
        if threshold is not None:
            used = replace(used, threshold=threshold)
    except (TypeError, ValueError) as error:
        raise ExecutorConfigError(f"threshold={threshold!r}: {error}") from error
    return Options(used, store, policy)


class ProxyMixin(ParslExecutor):
    """An executor whose large arguments and results travel by reference.

    A base class of `ProxyHighThroughputExecutor` and of what `proxied` returns.

    Args:
        threshold: Smallest size that travels by reference, in bytes or as `'100 kB'`.
        store: Where the objects lie meanwhile. By default a store of the executor's
            own, made by `start` and removed by `shutdown`: through shared memory, or
            through files in Parsl's run directory where the provider starts workers
            on other nodes. A store that is passed in is emptied of the executor's
            objects, but stays open.
        policy: What else decides about what travels by reference, and how. By default
            a task may write to the arrays that it gets, and only it sees the change.

    Raises:
        ExecutorConfigError: If an option is not what it should be.
    """

    _proxy_options: Options
    _proxy_task_policy: Policy | None = None
    _proxy_session: Session | None = None
    _proxy_pool: ThreadPoolExecutor | None = None
    _proxy_last: Stats = Stats(*[0] * len(Stats._fields))

    def __init__(
        self,
        *args: Any,
        threshold: int | str | None = None,
        store: Store[Any] | None = None,
        policy: Policy | None = None,
        **kwargs: Any,
    ) -> None:
        self._proxy_set_up(options(threshold, store, policy))
        super().__init__(*args, **kwargs)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Let `help` and Parsl's `repr` see the options beside those of the executor."""
        super().__init_subclass__(**kwargs)
        if "__init__" not in cls.__dict__ and ProxyMixin in cls.__bases__:
            cls.__init__ = _constructor(cls)  # type: ignore[method-assign]

    def _proxy_set_up(self, checked: Options) -> None:
        self._proxy_options = checked
        shown = {"threshold": checked.policy.threshold, "store": checked.store}
        for name, value in {**shown, "policy": checked.given}.items():
            if name not in vars(self):  # the executor may have something of this name
                setattr(self, name, value)

    def start(self) -> None:
        """Open the store, then start the executor."""
        memo.install()
        policy, store, _ = self._proxy_options
        policy = replace(policy, exclude=(*policy.exclude, *_OPAQUE), on_unpicklable="leave")
        opened = self._proxy_own_store() if store is None else store
        if self._proxy_options.given is None:  # as with plain Parsl, where it has a copy
            self._proxy_task_policy = replace(policy, writable=True)
        session = Session(opened, policy, own_store=store is None, own_code=True)
        try:
            super().start()
        except BaseException:
            session.close()
            raise
        if not getattr(opened.connector, "trusted", False):  # evicting may take its time
            self._proxy_pool = ThreadPoolExecutor(1, f"proxystore-{self.label}")
        self._proxy_session = session

    def shutdown(self, *args: Any, **kwargs: Any) -> None:
        """Shut the executor down, then remove what it stored."""
        try:
            super().shutdown(*args, **kwargs)
        finally:
            session, self._proxy_session = self._proxy_session, None
            if session is not None:
                if self._proxy_pool is not None:
                    self._proxy_pool.shutdown()
                session.close()
                self._proxy_last = session.stats()

    def submit(
        self,
        func: Callable[..., Any],
        resource_specification: dict[str, Any],
        *args: Any,
        **kwargs: Any,
    ) -> Future[Any]:
        """Submit one try of a task.

        Arguments that were stored for it are evicted when this try is over: Parsl
        calls again for a retry.

        Raises:
            Exception: What Parsl raises, with a note on the argument where it is one
                that cannot be serialized.
        """
        submit: Callable[..., Future[Any]] = super().submit  # type: ignore[safe-super]
        session = self._proxy_session
        if session is None:  # the executor is not running, and says so in its own way
            return submit(func, resource_specification, *args, **kwargs)
        left = {name: kwargs[name] for name in _LEAVE if name in kwargs}
        for name in left:
            del kwargs[name]
        task = session.prepare(func, args, kwargs, policy=self._proxy_task_policy, lists=_LISTS)
        try:
            inner = submit(task.func, resource_specification, *task.args, **task.kwargs, **left)
        except BaseException as error:
            task.lease.release()
            explain_submit(error, func, args, {**kwargs, **left})
            raise
        outer = Try(inner)
        inner.add_done_callback(Delivery(outer, session, task.lease, self.label, self._proxy_pool))
        return outer

    def proxy_stats(self) -> Stats:
        """Count what travelled by reference since the start; after the end, until the end."""
        session = self._proxy_session
        return self._proxy_last if session is None else session.stats()

    def _proxy_own_store(self) -> Store[Any]:
        """Open a store that workers reach: where the provider starts them elsewhere, files."""
        name = f"parsl-{self.label}"
        provider = getattr(self, "provider", None)
        if provider is None or type(provider) is LocalProvider:
            return Store(name)
        return Store(name, FileConnector(str(Path(self.run_dir).absolute() / name)))


def _constructor(cls: type[ProxyMixin]) -> Callable[..., None]:
    def __init__(self: ProxyMixin, *args: Any, **kwargs: Any) -> None:  # noqa: N807  # it is one
        ProxyMixin.__init__(self, *args, **kwargs)

    inner = cls.__mro__[cls.__mro__.index(ProxyMixin) + 1]
    theirs = inspect.signature(inner.__init__).parameters.values()  # type: ignore[misc]
    keyword = inspect.Parameter.KEYWORD_ONLY
    mine = inspect.signature(ProxyMixin.__init__).parameters.values()
    ours = [parameter for parameter in mine if parameter.kind is keyword]
    merged = sorted((*theirs, *ours), key=lambda parameter: parameter.kind)
    __init__.__signature__ = inspect.Signature(merged)  # type: ignore[attr-defined]
    return __init__
