"""Futures of `StoreExecutor`, and several calls in one task."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Any

from proxystore_core.autoproxy.task import Remote

Calls = list[tuple[Remote, tuple[Any, ...], dict[str, Any]]]


class ResultFuture(Future[Any]):
    """The future of a result, done when the executor's own future is done and converted.

    Args:
        inner: The executor's own future.
    """

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self._inner = inner

    def cancel(self) -> bool:
        """Cancel the task, unless it runs or is done."""
        inner = self._inner
        return super().cancel() if inner is None else bool(inner.cancel())

    def running(self) -> bool:
        """Tell whether the task runs now."""
        inner = self._inner
        return inner is not None and bool(inner.running())

    def finish(self, convert: Callable[[Any], Any], release: Callable[[], None]) -> None:
        """Take over the outcome of the executor's future.

        Args:
            convert: Makes the result of what the task returned.
            release: Lets go of the task's arguments, once the result is made: it may be one.
        """
        inner, self._inner = self._inner, None
        value: Any = None
        error: BaseException | None = None
        cancelled = inner.cancelled()
        if not cancelled:
            error = inner.exception()
        if not cancelled and error is None:
            try:
                value = convert(inner.result())
            except BaseException as problem:  # noqa: BLE001  # it belongs to whoever waits
                error = problem
        release()
        if cancelled:
            super().cancel()
            self.set_running_or_notify_cancel()
        elif error is not None:
            self.set_exception(error)
        else:
            self.set_result(value)


class Failure:
    """The exception of one call among several."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __reduce__(self) -> tuple[Any, ...]:
        lines = traceback.format_exception(self.error)
        return _failure, (self.error, "".join(lines))


class RemoteTracebackError(Exception):
    """The traceback of an exception in another process, as text."""

    def __str__(self) -> str:
        return str(self.args[0])


def _failure(error: BaseException, text: str) -> Failure:
    error.__cause__ = RemoteTracebackError(f'\n"""\n{text}"""')
    return Failure(error)


def run_calls(calls: Calls) -> list[Any]:
    """Run calls one after the other, up to the first that fails.

    Returns:
        What they returned, and a `Failure` at the end if one failed.
    """
    values: list[Any] = []
    for func, args, kwargs in calls:
        try:
            values.append(func(*args, **kwargs))
        except Exception as error:  # noqa: BLE001  # it travels to whoever waits
            values.append(Failure(error))
            break
    return values


def cancel_all(futures: Iterable[Future[Any]]) -> None:
    """Cancel what did not start."""
    for future in futures:
        future.cancel()
