"""Memoization, checkpoints and finished tasks, where results are proxies.

Parsl finds its handlers of arguments by `__class__`, which a proxy borrows from
its target: `install` puts a guard before each handler, which meets the proxy
first. `follow` makes the memoizer of a DataFlowKernel, which sees every task
finish, take out of finished tasks what would hold results of other tasks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any

from parsl.app.futures import DataFuture
from parsl.dataflow import dependency_resolvers, memoization
from parsl.dataflow.dflow import DataFlowKernel
from parsl.dataflow.futures import AppFuture
from parsl.dataflow.memoization import Memoizer
from parsl.dataflow.taskrecord import TaskRecord

from proxystore_core.proxy import Proxy, extract, is_proxy
from proxystore_core.serialize import read_header
from proxystore_parsl._reclass import derive, reclass
from proxystore_parsl._results import is_gone, locate, results_in, without_results

Handler = Callable[..., Any]


class _Guard:
    """A handler of one type, and what to do where a proxy stands for that type."""

    def __init__(self, handler: Handler, meet: Handler) -> None:
        self.handler = handler
        self.meet = meet

    def __call__(self, obj: Any, *args: Any, **kwargs: Any) -> Any:
        if is_proxy(obj):
            return self.meet(self.handler, obj, *args, **kwargs)
        return self.handler(obj, *args, **kwargs)


def install() -> None:
    """Guard the handlers that Parsl, and until now the user, registered; again is no error."""
    for generic, meet in (
        (memoization.id_for_memo, _identify),
        (dependency_resolvers.deep_traverse_to_gather, lambda handler, proxy: []),
        (dependency_resolvers.deep_traverse_to_unwrap, lambda handler, proxy: proxy),
    ):
        for cls, handler in tuple(generic.registry.items()):
            if not isinstance(handler, _Guard):
                generic.register(cls, _Guard(handler, meet))


_UNKNOWN = memoization.id_for_memo.registry[object]


def _identify(handler: Handler, proxy: Proxy[Any], output_ref: bool = False) -> bytes:
    """Identify what a proxy stands for.

    Where Parsl knows a type it gets the same identity as without proxies, so that memos
    do not depend on the threshold. Other types, which Parsl would refuse, are identified
    by their stored form.
    """
    if handler is _UNKNOWN:
        place = locate(proxy)
        stored = None if place is None else place.store.connector.get(place.key)
        if stored is not None:
            digest = read_header(stored).digest or hashlib.sha256(stored).digest()
            return b"proxystore-core" + digest
    identity: bytes = handler(extract(proxy), output_ref=output_ref)
    return identity


class ForgetfulMemoizer(Memoizer):
    """What `follow` adds to a memoizer."""

    def check_memo(self, task: TaskRecord) -> Future[Any] | None:
        """Find the outcome of an equal task; one whose object is gone is computed again."""
        found: Future[Any] | None = super().check_memo(task)  # type: ignore[safe-super]
        if found is None or not found.done() or found.exception() is not None:
            return found
        return None if any(map(is_gone, results_in(found.result()))) else found

    def update_memo_result(self, task: TaskRecord, r: Any) -> None:
        """See a task succeed."""
        super().update_memo_result(task, r)  # type: ignore[safe-super]
        task["app_fu"].add_done_callback(partial(_forget, task))

    def update_memo_exception(self, task: TaskRecord, e: BaseException) -> None:
        """See a task fail for good."""
        super().update_memo_exception(task, e)  # type: ignore[safe-super]
        task["app_fu"].add_done_callback(partial(_forget, task))


def follow(kernel: DataFlowKernel) -> None:
    """Free what the finished tasks of a DataFlowKernel hold."""
    memoizer = kernel.memoizer
    if not isinstance(memoizer, ForgetfulMemoizer):
        reclass(memoizer, derive(ForgetfulMemoizer, type(memoizer)))


def _forget(task: TaskRecord, future: AppFuture) -> None:
    """Let a finished task hold its own result only, and that without a cycle.

    Its arguments and dependencies are results of earlier tasks; its future and its record
    hold each other; and its future's callbacks hold the records of later tasks.
    """
    if task["args"]:
        task["args"] = without_results(task["args"])
    if task["kwargs"]:
        task["kwargs"] = without_results(task["kwargs"])
    if task["depends"]:
        task["depends"] = [other for other in task["depends"] if not _holds_results(other)]
    task["exec_fu"] = None
    record = dict(task)
    del record["app_fu"]
    future.task_record = record  # type: ignore[assignment]  # a TaskRecord may lack fields
    vars(future)["_done_callbacks"] = []  # were called, or are being called from the old list


def _holds_results(future: Future[Any]) -> bool:
    if isinstance(future, DataFuture):
        future = future.parent
    if not future.done() or future.cancelled() or future.exception() is not None:
        return False
    return bool(results_in(future.result()))
