"""The errors of `proxystore_globus_compute`, and the words for those of others.

* `GlobusComputeError` (`ProxyStoreError`)
    * `PayloadTooLargeError` (`ValueError`)
"""

from __future__ import annotations

import re
from typing import Any

from proxystore_core.exceptions import ProxyStoreError, WorkerSetupError
from proxystore_core.utils.data import bytes_to_readable
from proxystore_globus_compute.config import requirement

_MISSING = re.compile(r"No module named '((?:proxystore_\w+|cloudpickle)[\w.]*)'")


class GlobusComputeError(ProxyStoreError):
    """Root of the errors of this package."""


class PayloadTooLargeError(GlobusComputeError, ValueError):
    """A task is larger than Globus Compute takes, although what is large of it is in the store.

    Attributes:
        task: Name of the task's function, or its id.
        nbytes: Size of what would have been sent, in bytes.
        limit: Most that the service takes, in bytes.
    """

    def __init__(self, message: str, *, task: str, nbytes: int, limit: int) -> None:
        self.task = task
        self.nbytes = nbytes
        self.limit = limit
        super().__init__(message)

    def __reduce__(self) -> tuple[Any, ...]:
        return _payload_error, (str(self), self.task, self.nbytes, self.limit)


def _payload_error(message: str, task: str, nbytes: int, limit: int) -> PayloadTooLargeError:
    return PayloadTooLargeError(message, task=task, nbytes=nbytes, limit=limit)


def too_large(task: str, nbytes: int, limit: int, *, known: bool) -> PayloadTooLargeError:
    """Say what to do about a task that is too large.

    Args:
        task: Name of the task's function, or its id.
        nbytes: Size of its arguments as they would be sent, in bytes.
        limit: Most that the service takes, in bytes.
        known: Whether the executor knows the function, and so may store its arguments.
    """
    advice = (
        "Lower the threshold of the executor, or see what its policy excludes, so that "
        "arguments travel through the store."
        if known
        else "Its function is not registered with this executor: submit the function itself, or "
        "register it with @auto_proxy, so that arguments travel through the store."
    )
    size = f"{bytes_to_readable(nbytes)} " if nbytes else ""
    return PayloadTooLargeError(
        f"The arguments of task {task!r} take {size}beside what lies in the store, more than the "
        f"{bytes_to_readable(limit)} that Globus Compute takes at once. {advice}",
        task=task,
        nbytes=nbytes,
        limit=limit,
    )


def code_too_large(name: str, limit: int) -> PayloadTooLargeError:
    """Say what to do about a function whose code is too large to be registered.

    Args:
        name: Its name.
        limit: Most that the service takes, in bytes.
    """
    return PayloadTooLargeError(
        f"The code of {name!r} is larger than the {bytes_to_readable(limit)} that Globus Compute "
        "takes: data that the function holds, in its closure or its defaults, travels with it. "
        "Give it such data as arguments.",
        task=name,
        nbytes=0,
        limit=limit,
    )


def explained(error: BaseException | None, executor: str) -> BaseException | None:
    """Say with the error of a task what its workers lack, where that is what it tells."""
    found = _MISSING.search(getattr(error, "remote_data", ""))
    if found is None:
        return error
    module = found[1]
    made = WorkerSetupError(
        f"The workers of the endpoint cannot import {module}, which their tasks need. Install "
        "the package where they run. In the configuration of the endpoint: worker_init: pip "
        f"install '{requirement()}' (`proxystore-globus-compute configure` writes one). Where its "
        "template takes requirements, as the default one does: "
        f"user_endpoint_config={{'requirements': '{requirement()}'}}.",
        module=module,
        executor=executor,
    )
    made.__cause__ = error
    return made
