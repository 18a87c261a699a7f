"""Futures of tasks whose results may be references, and the books about open ones."""

from __future__ import annotations

import threading
from concurrent.futures import Executor, InvalidStateError, ThreadPoolExecutor, wait
from contextlib import suppress
from typing import Any

from globus_compute_sdk.sdk.asynchronous.compute_future import ComputeFuture

from proxystore_core.autoproxy import Lease
from proxystore_globus_compute.calls import Calls, Ready
from proxystore_globus_compute.errors import explained

_NOTIFIED = "CANCELLED_AND_NOTIFIED"  # as `concurrent.futures` has it


class Books:
    """Knows which futures of an executor are open, and closes its session after the last one.

    Args:
        calls: What the executor knows of its calls.
        label: Name of the executor, for messages.
    """

    def __init__(self, calls: Calls, label: str) -> None:
        self.calls = calls
        self.label = label
        session = calls.session
        self._lock = threading.Lock()
        self._open: set[ProxyFuture] = set()
        self._ending = False
        self._pool: Executor | None = None
        if not getattr(session.store.connector, "trusted", False):  # evicting may take its time
            self._pool = ThreadPoolExecutor(1, f"proxystore-{label}")

    def bind(self, sent: ComputeFuture, call: Pending) -> None:
        """Let what the SDK does to its future become of the future of a call; again is no error."""
        future = call.future
        with self._lock:
            if call.bound or future is None:
                return
            call.bound = True
            future.expect(call)  # all of it before another thread may complete what is sent
            self._open.add(future)
            call.sent = _reclassed(sent, call)
        if sent.done():  # cancelled before
            future.cancel()

    def adopt(self, future: ComputeFuture) -> ProxyFuture:
        """Make a future of the SDK, which other threads may complete meanwhile, one of ours."""
        call = Pending(self)
        call.bound = True
        made = _made_ours(future, call)
        with self._lock:
            self._open.add(made)
        made.add_done_callback(self._adopted)
        return made

    def _adopted(self, future: Any) -> None:
        call = _taken(future)
        if call is None:
            return
        if future._exception is not None:  # it was done, or was being, as one of the SDK's
            future._exception = explained(future._exception, self.label)
        elif not future.cancelled():
            future._result = self.calls.result(future._result)
        call.over()
        self.done(future)

    def done(self, future: ProxyFuture) -> None:
        """Forget a future that is done."""
        with self._lock:
            self._open.discard(future)
            last = self._ending and not self._open
        if last:
            self._close()

    def end(self, *, wait_for_all: bool) -> None:
        """Close the session when the last future is done.

        Args:
            wait_for_all: Return after that.
        """
        if wait_for_all:
            with self._lock:
                open_ = list(self._open)
            wait(open_)
        with self._lock:
            self._ending = True
            idle = not self._open
        if idle:
            self._close()

    def release(self, lease: Lease) -> None:
        """Let go of the arguments of a task, where that takes time not in this thread."""
        pool = self._pool
        if pool is not None and lease:
            try:
                pool.submit(lease.release)
                return
            except RuntimeError:  # at the end of the interpreter
                pass
        lease.release()

    def _close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown()
        self.calls.session.close()


class Pending:
    """One call between its submission and its end.

    Args:
        books: Those of its executor.
        ready: The call; `None` where another process made it.

    Attributes:
        task: Name of its function, or its id.
        nbytes: Size of its serialized arguments in bytes.
        encodes: Whether what is large of its arguments was stored.
        future: What the user waits for, until it is done.
        sent: What the SDK completes, until it has.
        bound: Whether these two are tied.
    """

    __slots__ = ("_lease", "books", "bound", "encodes", "future", "nbytes", "sent", "task")

    def __init__(self, books: Books, ready: Ready | None = None) -> None:
        self.books = books
        self.task = "" if ready is None else ready.task
        self.nbytes = 0 if ready is None else ready.nbytes
        self.encodes = ready is not None and ready.encodes
        self._lease = Lease() if ready is None else ready.lease
        self.bound = False
        self.future: ProxyFuture | None = None
        self.sent: ComputeFuture | None = None

    def expected(self) -> ProxyFuture:
        """Return the future, a new one where it is not known yet."""
        if self.future is None:
            self.future = ProxyFuture()
        return self.future

    def over(self) -> None:
        """Let go of everything: the SDK's threads remember what they sent last."""
        self.books.release(self._lease)
        self.future = self.sent = None


class _Cancellable(ComputeFuture):
    """A future that may be cancelled while its task runs: what comes back then is dropped."""

    def set_result(self, result: Any) -> None:
        """Take the result."""
        with suppress(InvalidStateError):
            super().set_result(result)

    def set_exception(self, exception: BaseException | None) -> None:
        """Take the error."""
        with suppress(InvalidStateError):
            super().set_exception(exception)

    def set_running_or_notify_cancel(self) -> bool:
        """Tell those who wait of a cancellation; again is no error."""
        return False if self._state == _NOTIFIED else super().set_running_or_notify_cancel()


class ProxyFuture(_Cancellable):
    """The future of a task; what is large of its result is a `Proxy`."""

    def expect(self, call: Pending) -> None:
        """Be the future of a call."""
        self._proxystore_call = call

    def set_result(self, result: Any) -> None:
        """Take what the worker returned."""
        call = _taken(self)
        if call is None:
            super().set_result(result)
            return
        error: Exception | None = None
        try:
            result = call.books.calls.result(result)
        except Exception as problem:  # noqa: BLE001  # it belongs to whoever waits
            error = problem
        call.over()
        if error is None:
            super().set_result(result)
        else:
            super().set_exception(error)
        call.books.done(self)

    def set_exception(self, exception: BaseException | None) -> None:
        """Take the error of the task."""
        call = _taken(self)
        if call is None:
            super().set_exception(exception)
            return
        call.over()
        super().set_exception(explained(exception, call.books.label))
        call.books.done(self)

    def cancel(self) -> bool:
        """Cancel the task, unless it is done; one that was sent may run nevertheless."""
        cancelled = super().cancel()
        call = _taken(self) if cancelled else None
        if call is not None:
            sent = call.sent
            call.over()
            if sent is not None:
                sent.cancel()
                sent.set_running_or_notify_cancel()
            self.set_running_or_notify_cancel()  # nobody else would, and some wait for it
            call.books.done(self)
        return cancelled


class _SentFuture(_Cancellable):
    """The future that the SDK has: its threads hold the last ones, so it keeps no result."""

    def set_result(self, result: Any) -> None:
        super().set_result(None)
        call = _taken(self)
        if call is not None and call.future is not None:
            call.future.set_result(result)

    def set_exception(self, exception: BaseException | None) -> None:
        super().set_exception(exception)
        call = _taken(self)
        if call is not None and call.future is not None:
            call.future.set_exception(exception)

    def cancel(self) -> bool:
        cancelled = super().cancel()
        call = _taken(self) if cancelled else None
        if call is not None and call.future is not None:
            call.future.cancel()
        return cancelled


def _taken(future: ComputeFuture) -> Pending | None:
    call: Pending | None = future.__dict__.pop("_proxystore_call", None)
    return call


# Nobody but the SDK makes the first one, and there is nothing that it asks before.


def _reclassed(future: Any, call: Pending) -> ComputeFuture:
    future._proxystore_call = call
    future.__class__ = _SentFuture
    made: ComputeFuture = future
    return made


def _made_ours(future: Any, call: Pending) -> ProxyFuture:
    future._proxystore_call = call
    future.__class__ = ProxyFuture
    made: ProxyFuture = future
    return made


def failed(error: BaseException) -> ComputeFuture:
    """Make the future of a task that could not be submitted."""
    future = ProxyFuture()
    future.set_exception(error)
    return future
