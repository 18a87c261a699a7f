"""Enabling clients, and with them the scheduler and the workers."""

from __future__ import annotations

import warnings
import weakref
from dataclasses import replace
from typing import Any

import dask.config
import distributed
from distributed import Scheduler, Worker

from proxystore_core.autoproxy import Policy
from proxystore_core.exceptions import ExecutorConfigError
from proxystore_core.store import Store
from proxystore_dask import _seams
from proxystore_dask.hooks import Hooks, sender
from proxystore_dask.memory import FarMemory, Memory
from proxystore_dask.pages import NannyMemory
from proxystore_dask.scheduler import NAME, SchedulerMemory
from proxystore_dask.versions import check, here
from proxystore_dask.worker import WorkerMemory

_enabled: weakref.WeakKeyDictionary[Any, Hooks] = weakref.WeakKeyDictionary()


def enable(
    client: distributed.Client,
    threshold: int | str | None = None,
    *,
    policy: Policy | None = None,
    store: Store[Any] | None = None,
) -> Any:
    """Let large arguments and results of a client's tasks travel by reference.

    The scheduler and the workers, those included that come later, learn it from the
    first client that does this. Arrays arrive as private memory that can be written to,
    unless the policy says otherwise.

    Args:
        client: A connected client.
        threshold: Smallest size that travels by reference, in bytes or as `'1 MB'`, which
            is the default.
        policy: What else decides about what travels by reference, and how.
        store: A store that all nodes reach, to use instead of shared memory. It is emptied
            of what was put into it, but stays open.

    Returns:
        Nothing; something to await where the client is asynchronous.

    Raises:
        DaskSetupError: If the scheduler or a worker cannot import this package, or has
            another version of it.
        ExecutorConfigError: If an option is not what it should be.
    """
    used = _policy(threshold, policy)
    if store is not None and not isinstance(store, Store):
        raise ExecutorConfigError(f"store must be a Store or None, not {store!r}")
    return client.sync(_enable, client, used, store)


def disable(client: distributed.Client) -> None:
    """Let the arguments and results of a client travel as in plain Dask again.

    What is stored stays as long as its tasks. The workers go on to exchange large
    results by reference until the cluster ends.
    """
    enabled = _enabled.pop(client, None)
    if enabled is not None:
        enabled.close()


def is_enabled(client: distributed.Client) -> bool:
    """Tell whether large arguments and results of a client travel by reference."""
    return client in _enabled


async def dask_setup(server: Any) -> None:
    """Enable a client or a whole cluster, for Dask's preloads.

    As `distributed.client.preload` it enables the client; as `distributed.scheduler.preload`
    it lets the workers share results from the start, whatever clients come. Workers and
    nannies, which learn it from the scheduler, may preload it, too: it then does nothing
    there but to fail early where the package is missing.

    The configuration entries `proxystore.threshold` and `proxystore.writable` are heeded.
    """
    if isinstance(server, Scheduler):
        policy = _policy(None, None)
        scheduler, worker, nanny = (
            SchedulerMemory(policy), WorkerMemory(server.id, None, policy, here()), NannyMemory()
        )  # fmt: skip
        await _seams.register_on(server, NAME, scheduler, worker, nanny)
    elif isinstance(server, distributed.Client) and server not in _enabled:
        await _enable(server, _policy(None, None), None)


class Client(distributed.Client):  # type: ignore[misc]  # Dask has no types
    """A Dask client whose large arguments and results travel by reference.

    Args:
        ps_store: A store that all nodes reach; by default the shared memory of the node.
        ps_threshold: Smallest size that travels by reference, in bytes.
    """

    def __init__(
        self,
        *args: Any,
        ps_store: Store[Any] | None = None,
        ps_threshold: int | str = 100_000,
        **kwargs: Any,
    ) -> None:
        self._ps_options = _policy(ps_threshold, None), ps_store
        super().__init__(*args, **kwargs)

    async def _start(self, *args: Any, **kwargs: Any) -> Any:
        started = await super()._start(*args, **kwargs)
        if self not in _enabled:
            await _enable(self, *self._ps_options)
        return started


def _policy(threshold: int | str | None, policy: Policy | None) -> Policy:
    if policy is not None and not isinstance(policy, Policy):
        raise ExecutorConfigError(f"policy must be a Policy or None, not {policy!r}")
    writable = dask.config.get("proxystore.writable", True)
    default = dask.config.get("proxystore.threshold", "1 MB")
    try:
        if policy is None:
            policy = Policy(threshold=default, writable=writable)
        return policy if threshold is None else replace(policy, threshold=threshold)
    except (TypeError, ValueError) as error:
        raise ExecutorConfigError(f"threshold={threshold!r}: {error}") from error


async def _enable(client: distributed.Client, policy: Policy, store: Store[Any] | None) -> None:
    if client in _enabled:
        disable(client)
    absent = [
        name for cls in (distributed.Client, Worker, Scheduler) for name in _seams.missing(cls)
    ]
    if absent:
        warnings.warn(
            f"This release of distributed ({distributed.__version__}) has no {', '.join(absent)}: "
            "arguments and results travel as in plain Dask.",
            stacklevel=2,
        )
        return
    await check(client)
    config = None if store is None else store.config()
    await client.register_plugin(SchedulerMemory(policy, config), name=NAME)
    there = await client.scheduler.proxystore_hello(party=client.id)
    config, cluster = there["config"], there["cluster"]
    mine = Memory.try_open(cluster, policy, config)
    if mine is not None and mine.home != there["home"]:
        mine = FarMemory(mine, sender(client))
    prefix = None if mine is None else mine.prefix
    await client.scheduler.proxystore_hello(party=client.id, prefix=prefix)
    await client.register_plugin(WorkerMemory(cluster, config, policy, here()), name=NAME)
    await client.register_plugin(NannyMemory(), name=NAME)
    if mine is None:
        warnings.warn(
            "This client can reach no memory of its node: its arguments, and the results that it "
            "gathers, travel as in plain Dask. Between workers results travel by reference.",
            stacklevel=2,
        )
        return
    _enabled[client] = Hooks(client, mine, disable)
