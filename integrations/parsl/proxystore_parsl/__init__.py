"""Large arguments and results of Parsl apps travel by reference.

One line in a Parsl config, with a subclass or with any executor object:

    from proxystore_parsl import ProxyHighThroughputExecutor, proxied

    Config(executors=[ProxyHighThroughputExecutor(label='htex', threshold='100 kB')])
    Config(executors=[proxied(HighThroughputExecutor(label='htex'), threshold='100 kB')])
"""

from __future__ import annotations

from proxystore_core.exceptions import MissingExtraError

try:
    import parsl as _parsl  # noqa: F401  # only to say what is missing
except ModuleNotFoundError as error:
    raise MissingExtraError("parsl", needed_for="proxystore_parsl") from error

from proxystore_core.autoproxy import Policy
from proxystore_parsl.executors import (
    ProxyHighThroughputExecutor,
    ProxyMPIExecutor,
    ProxyThreadPoolExecutor,
    proxied,
)
from proxystore_parsl.mixin import ProxyMixin

__all__ = [
    "Policy",
    "ProxyHighThroughputExecutor",
    "ProxyMPIExecutor",
    "ProxyMixin",
    "ProxyThreadPoolExecutor",
    "proxied",
]
