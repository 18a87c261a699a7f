"""What a user says about where and when data travels by reference."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

from proxystore_core.autoproxy import Policy
from proxystore_core.exceptions import ExecutorConfigError
from proxystore_core.store import Store

THRESHOLD = "50 kB"
"""A batch of 128 such tasks is under the 10 MB that the service takes at once."""

_DAY = 86_400
RESULT_TTL = 15 * _DAY + 1800
"""Seconds after which nobody asks for an argument or a result any more: Globus Compute keeps
tasks for two weeks, results for thirty minutes more. A day is for clocks. Give it as `ttl` to the
connector of a store that outlives its clients."""


class Options(NamedTuple):
    """A store, and the policies of the client and of its tasks."""

    store: Store[Any]
    policy: Policy
    task_policy: Policy


def checked(
    store: Store[Any] | None, threshold: int | str | None, policy: Policy | None, *, who: str
) -> Options:
    """Check the options.

    Args:
        store: Where the objects lie.
        threshold: Smallest size that travels by reference; `None` for that of the policy.
        policy: What else decides; `None` for the default, with arrays that tasks may write to,
            as those of plain Globus Compute.
        who: What the options are of, for messages.

    Raises:
        ExecutorConfigError: If one is not what it should be.
    """
    if store is None:
        raise ExecutorConfigError(
            f"{who} needs a store that the workers of the endpoint reach. On this node: "
            "store=Store('name'), shared memory. On a site with a shared file system: "
            "store=Store('name', FileConnector('/shared/directory')). On other sites: "
            "store=Store('name', EndpointConnector([...])), with peer endpoints."
        )
    if not isinstance(store, Store):
        raise ExecutorConfigError(f"store must be a Store, not {store!r}")
    if policy is not None and not isinstance(policy, Policy):
        raise ExecutorConfigError(f"policy must be a Policy or None, not {policy!r}")
    try:
        used = Policy(threshold=THRESHOLD) if policy is None else policy
        if threshold is not None:
            used = replace(used, threshold=threshold)
    except (TypeError, ValueError) as error:
        raise ExecutorConfigError(f"threshold={threshold!r}: {error}") from error
    used = replace(used, on_unpicklable="leave")  # the SDK's serializers may know a way
    return Options(store, used, used if policy is not None else replace(used, writable=True))
