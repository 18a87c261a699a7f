"""One try of a task: what Parsl gets for it, what is let go of, what is said if it fails."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import CancelledError, Executor, Future, InvalidStateError
from contextlib import suppress
from traceback import walk_tb
from types import FrameType
from typing import Any

from parsl.app.errors import RemoteExceptionWrapper
from parsl.dataflow.dflow import DataFlowKernel
from parsl.serialize import serialize

from proxystore_core import __version__
from proxystore_core.autoproxy import Lease, Session
from proxystore_core.autoproxy.errors import argument_error, name_of
from proxystore_core.exceptions import SerializationError, WorkerSetupError
from proxystore_parsl import memo
from proxystore_parsl._results import results_in, with_targets

_OURS = frozenset(("proxystore_core", "proxystore_parsl", "cloudpickle"))


class Try(Future[Any]):
    """What a DataFlowKernel gets for one try of a task."""

    def __init__(self, inner: Future[Any]) -> None:
        super().__init__()
        if hasattr(inner, "parsl_executor_task_id"):
            self.parsl_executor_task_id = inner.parsl_executor_task_id

    def add_done_callback(self, fn: Callable[[Future[Any]], object]) -> None:
        """Note which DataFlowKernel waits, so that its finished tasks let go of results."""
        kernel = getattr(getattr(fn, "func", None), "__self__", None)
        if isinstance(kernel, DataFlowKernel):
            memo.follow(kernel)
        super().add_done_callback(fn)


class Delivery:
    """Hands the outcome of a try on.

    Executors keep their future, and with it this callback, for a while after it is done;
    so this lets go of everything.

    Args:
        outer: What the DataFlowKernel waits for.
        session: Turns the outcome into the result.
        lease: Holds what the try needed.
        label: Name of the executor.
        pool: Where to release what takes time to release; `None` where nothing does.
    """

    def __init__(
        self, outer: Try, session: Session, lease: Lease, label: str, pool: Executor | None
    ) -> None:
        self._parts = [(outer, session, lease, label, pool)]

    def __call__(self, inner: Future[Any]) -> None:
        """Take the outcome from the executor's future."""
        if self._parts:
            error = _deliver(inner, *self._parts.pop())
            if error is not None:
                _clear_frames(error)


def _deliver(
    inner: Future[Any],
    outer: Try,
    session: Session,
    lease: Lease,
    label: str,
    pool: Executor | None,
) -> BaseException | None:
    """Hand an outcome on; return the error that it is."""
    value = None
    error: BaseException | None
    try:
        error = CancelledError() if inner.cancelled() else inner.exception()
        if error is None:
            value = session.result(inner.result())
        else:
            error = _explain_import(error, label)
    except Exception as failure:  # noqa: BLE001  # whatever it is, the task failed with it
        error = failure
    if pool is None or not lease:
        lease.release()
    else:
        pool.submit(lease.release)
    try:
        if error is None:
            outer.set_result(value)
            return value.e_value if type(value) is RemoteExceptionWrapper else None
        outer.set_exception(error)
    except InvalidStateError:  # it was cancelled
        return None
    return error


def _clear_frames(error: BaseException) -> None:
    """Let the error of a try not hold the task, which may succeed in its next try."""
    for step, _ in walk_tb(error.__traceback__):
        if step.f_globals.get("__name__") == DataFlowKernel.__module__:
            frame: FrameType | None = step
            with suppress(RuntimeError):  # until one that runs still
                while frame is not None:
                    frame.clear()
                    frame = frame.f_back


def _explain_import(error: BaseException, label: str) -> BaseException:
    if not isinstance(error, ModuleNotFoundError) or error.name not in _OURS:
        return error
    explained = WorkerSetupError(
        f"The workers of executor {label!r} cannot import {error.name}, which their tasks need. "
        "Install the package where they run, for example in the provider of the executor: "
        f"worker_init='... ; pip install proxystore-core=={__version__}'",
        module=error.name,
        executor=label,
    )
    explained.__cause__ = error
    return explained


def explain_submit(
    error: BaseException, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    """Say with an error of Parsl which argument cannot be serialized, where it is one."""
    arguments: list[tuple[int | str, Any]] = [*enumerate(args), *kwargs.items()]
    for where, value in arguments:
        try:
            _dump(value)
        except SerializationError as cause:
            ours = argument_error(func, where, value, cause, task=name_of(func), dump=_dump)
            error.__cause__ = ours
            error.add_note(str(ours))
            return


def _dump(value: Any) -> None:
    try:
        serialize(value, buffer_threshold=1 << 62)
    except Exception as error:  # whatever Parsl's serializer raises
        raise SerializationError(str(error)) from error


class LocalCall:
    """A call in a thread of this process, with the real objects in place of proxies of results."""

    def __init__(self, func: Callable[..., Any], args: Any, kwargs: Any) -> None:
        self._parts = func, args, kwargs

    @classmethod
    def of(cls, func: Callable[..., Any], args: Any, kwargs: Any) -> LocalCall | None:
        """Make one where there are such proxies."""
        return cls(func, args, kwargs) if results_in((args, kwargs)) else None

    def __call__(self) -> Any:
        """Run the function."""
        func, args, kwargs = self._parts
        return func(*with_targets(args), **with_targets(kwargs))
