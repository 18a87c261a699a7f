"""Ends the borrows of references that were sent to a task, when the task is over."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

from proxystore_core.exceptions import ReferenceInvalidError
from proxystore_core.store._refs import Borrowed, RefMutProxy, RefProxy, invalidate, release


@runtime_checkable
class FutureWithCallback(Protocol):
    """A future that tells when it is done."""

    def add_done_callback(self, callback: Callable[[Any], Any]) -> None:
        """Call a function with the future when it is done."""
        ...


FutureT = TypeVar("FutureT", bound=FutureWithCallback)


def mark_refs_out_of_scope(*refs: RefProxy[Any] | RefMutProxy[Any]) -> None:
    """End borrows: the references become invalid, and their owners free.

    Doing so twice is no error.

    Args:
        refs: Borrowed references.

    Raises:
        ReferenceInvalidError: If one was borrowed in another process, where its owner is.
    """
    for ref in refs:
        if not release(ref) and object.__getattribute__(ref, "__proxy_valid__"):
            raise ReferenceInvalidError(
                "The reference was borrowed in another process: end the borrow there."
            )
        if object.__getattribute__(ref, "__proxy_valid__"):
            invalidate(ref)


def submit(
    submit_func: Callable[..., FutureT],
    *,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    register_custom_refs: Iterable[Any] = (),
) -> FutureT:
    """Submit a task, and end the borrows of its arguments when it is done.

    ```python
    future = submit(executor.submit, args=(function, borrow(owned)))
    ```

    Args:
        submit_func: Submits a task and returns its future.
        args: Its positional arguments; references among them are borrowed for the task.
        kwargs: Its keyword arguments; likewise.
        register_custom_refs: References inside of arguments, to be treated likewise.

    Returns:
        What `submit_func` returned.
    """
    kwargs = dict(kwargs or {})
    refs = [
        value
        for value in (*register_custom_refs, *args, *kwargs.values())
        if issubclass(type(value), Borrowed)
    ]
    future = submit_func(*args, **kwargs)
    future.add_done_callback(lambda _: mark_refs_out_of_scope(*refs))
    return future
