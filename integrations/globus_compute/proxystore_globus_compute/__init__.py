"""Large arguments and results of Globus Compute functions travel by reference.

An executor in the place of the SDK's own, or a decorator for functions that anyone calls:

    with ProxyExecutor(endpoint_id=EP, store=store) as ex: future = ex.submit(fn, big_array)
    fn = auto_proxy(store=store)(fn)    # for a plain Executor or Client

Nothing of the SDK is imported before it is needed: it takes half a second and starts a thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from proxystore_core.utils.lazy import lazy_names

if TYPE_CHECKING:
    from proxystore_globus_compute.client import ProxyClient as ProxyClient
    from proxystore_globus_compute.config import endpoint_config as endpoint_config
    from proxystore_globus_compute.decorator import AutoProxied as AutoProxied
    from proxystore_globus_compute.decorator import auto_proxy as auto_proxy
    from proxystore_globus_compute.errors import GlobusComputeError as GlobusComputeError
    from proxystore_globus_compute.errors import PayloadTooLargeError as PayloadTooLargeError
    from proxystore_globus_compute.executor import ProxyExecutor as ProxyExecutor
    from proxystore_globus_compute.futures import ProxyFuture as ProxyFuture
    from proxystore_globus_compute.options import RESULT_TTL as RESULT_TTL
    from proxystore_globus_compute.serializer import ProxySerializer as ProxySerializer

_WHERE = {
    "AutoProxied": "decorator",
    "GlobusComputeError": "errors",
    "PayloadTooLargeError": "errors",
    "ProxyClient": "client",
    "ProxyExecutor": "executor",
    "ProxyFuture": "futures",
    "ProxySerializer": "serializer",
    "RESULT_TTL": "options",
    "auto_proxy": "decorator",
    "endpoint_config": "config",
}
_WITH_SDK = frozenset(("client", "executor", "futures", "serializer"))

__all__ = sorted(_WHERE)
_load, __dir__ = lazy_names(__name__, _WHERE)


def __getattr__(name: str) -> Any:
    if _WHERE.get(name) in _WITH_SDK:
        from importlib import import_module

        try:
            import_module("globus_compute_sdk")
        except ModuleNotFoundError as error:
            from proxystore_core.exceptions import MissingExtraError

            raise MissingExtraError("globus-compute", needed_for=f"{__name__}.{name}") from error
    return _load(name)
