"""The engine behind all integrations: large arguments and results travel by reference.

*What we proxied for you, we unproxy for you; what you proxied yourself stays a proxy.*

A `Session` belongs to the side that submits: `prepare` stores what is large of a call and
returns a `Task` for the engine, `result` makes proxies of what came back, and everything is
evicted when nobody needs it any more. `docs/autoproxy.md` tells the whole story.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxystore_core.utils.lazy import lazy_names

if TYPE_CHECKING:
    from proxystore_core.autoproxy.containers import walk as walk
    from proxystore_core.autoproxy.executor import ProxyAlways as ProxyAlways
    from proxystore_core.autoproxy.executor import ProxyNever as ProxyNever
    from proxystore_core.autoproxy.executor import ProxyType as ProxyType
    from proxystore_core.autoproxy.executor import StoreExecutor as StoreExecutor
    from proxystore_core.autoproxy.handles import Lease as Lease
    from proxystore_core.autoproxy.policy import Policy as Policy
    from proxystore_core.autoproxy.refs import Envelope as Envelope
    from proxystore_core.autoproxy.refs import Packed as Packed
    from proxystore_core.autoproxy.refs import Ref as Ref
    from proxystore_core.autoproxy.results import persist as persist
    from proxystore_core.autoproxy.session import Session as Session
    from proxystore_core.autoproxy.session import Stats as Stats
    from proxystore_core.autoproxy.sizes import size_of as size_of
    from proxystore_core.autoproxy.task import Remote as Remote
    from proxystore_core.autoproxy.task import Task as Task

_WHERE = {
    "Envelope": "refs",
    "Lease": "handles",
    "Packed": "refs",
    "Policy": "policy",
    "ProxyAlways": "executor",
    "ProxyNever": "executor",
    "ProxyType": "executor",
    "Ref": "refs",
    "Remote": "task",
    "Session": "session",
    "Stats": "session",
    "StoreExecutor": "executor",
    "Task": "task",
    "persist": "results",
    "size_of": "sizes",
    "walk": "containers",
}

__all__ = sorted(_WHERE)
__getattr__, __dir__ = lazy_names(__name__, _WHERE)
