"""Large arguments and results of Dask tasks travel by reference.

One line after the client was made, and the workers of a node share one copy:

    from dask.distributed import Client
    import proxystore_dask

    client = Client(...)
    proxystore_dask.enable(client, threshold='1 MB')

Or with no code at all, in the configuration of Dask:

    distributed:
      client:
        preload: [proxystore_dask]
"""

from __future__ import annotations

from proxystore_core.exceptions import MissingExtraError

try:
    import distributed as _distributed  # noqa: F401  # only to say what is missing
except ModuleNotFoundError as error:
    raise MissingExtraError("dask", needed_for="proxystore_dask") from error

from proxystore_core.autoproxy import Policy
from proxystore_dask.client import Client, dask_setup, disable, enable, is_enabled
from proxystore_dask.versions import DaskSetupError

__all__ = [
    "Client",
    "DaskSetupError",
    "Policy",
    "dask_setup",
    "disable",
    "enable",
    "is_enabled",
]
