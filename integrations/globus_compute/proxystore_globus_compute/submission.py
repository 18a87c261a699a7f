"""Sending tasks in batches that the service takes; what fails, fails alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from globus_compute_sdk.errors import SerdeError
from globus_compute_sdk.sdk.asynchronous.compute_future import ComputeFuture
from globus_sdk import GlobusAPIError

from proxystore_globus_compute.errors import too_large
from proxystore_globus_compute.futures import Pending

SERVICE_LIMIT = 10 * 1024 * 1024
"""Bytes that the web service takes in one request."""

TOO_LARGE = 413
"""Status of the answer to a request with more."""

_OF_ONE_FUNCTION = frozenset((400, 403, 404, 409, 410, 422))

Post = Callable[[list[ComputeFuture], list[Any]], None]


class Item(NamedTuple):
    """A task to be sent, and the SDK's future of it."""

    future: ComputeFuture
    task: Any
    call: Pending


def send(post: Post, items: Sequence[Item], batch_bytes: int) -> None:
    """Send tasks; raises nothing: futures of what cannot be sent fail.

    Args:
        post: Sends tasks in one request, and tells futures their ids; it is given
            futures that stand in, so that a request which fails may be tried in parts.
        items: The tasks.
        batch_bytes: Bytes of serialized arguments after which a new request begins.
    """
    todo = list(_batches(items, batch_bytes))
    todo.reverse()
    while todo:
        batch = todo.pop()
        stand_ins = [ComputeFuture() for _ in batch]
        try:
            post(stand_ins, [item.task for item in batch])
        except Exception as error:  # noqa: BLE001  # belongs to whoever waits
            parts = _parts(batch, error)
            if len(parts) > 1:
                todo.extend(reversed(parts))
            else:
                _fail(batch, error)
            continue
        for item, stand_in in zip(batch, stand_ins, strict=True):
            _adopt(item, stand_in)


def _batches(items: Sequence[Item], batch_bytes: int) -> Iterator[list[Item]]:
    batch: list[Item] = []
    filled = 0
    for item in items:
        if item.future.cancelled():
            item.future.set_running_or_notify_cancel()
            continue
        call = item.call
        if call.nbytes > SERVICE_LIMIT:
            error = too_large(call.task, call.nbytes, SERVICE_LIMIT, known=call.encodes)
            _tell(item.future, error)
            continue
        if batch and filled + call.nbytes > batch_bytes:
            yield batch
            batch, filled = [], 0
        batch.append(item)
        filled += call.nbytes
    if batch:
        yield batch


def _parts(batch: list[Item], error: Exception) -> list[list[Item]]:
    """Say in which parts to try a batch again that failed; in one if there is no use."""
    if len(batch) == 1:
        return [batch]
    halves = [batch[: len(batch) // 2], batch[len(batch) // 2 :]]
    if isinstance(error, SerdeError | TypeError):  # a serializer that is not ours
        return halves
    if not isinstance(error, GlobusAPIError):
        return [batch]
    if error.http_status == TOO_LARGE:
        return halves
    if error.http_status in _OF_ONE_FUNCTION:
        of: defaultdict[str, list[Item]] = defaultdict(list)
        for item in batch:
            of[str(item.task.function_uuid)].append(item)
        return list(of.values())
    return [batch]


def _fail(batch: list[Item], error: Exception) -> None:
    large = isinstance(error, GlobusAPIError) and error.http_status == TOO_LARGE
    for future, _, call in batch:
        told: Exception = error
        if large:
            told = too_large(call.task, call.nbytes, SERVICE_LIMIT, known=call.encodes)
            told.__cause__ = error
        _tell(future, told)


def _tell(future: ComputeFuture, error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)


def _adopt(item: Item, stand_in: ComputeFuture) -> None:
    for future in (item.future, item.call.future):
        if future is not None:
            future._metadata.update(stand_in._metadata)
            future.task_id = stand_in.task_id
    error = stand_in.exception() if stand_in.done() else None
    if error is not None:
        _tell(item.future, error)
