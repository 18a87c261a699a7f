"""Whether the scheduler and the workers have what they need, in the version they need."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from distributed import Client

from proxystore_core.exceptions import AutoProxyError, ProxyStoreError

_PROBE = """
def probe():
    try:
        import importlib.metadata, proxystore_dask
        return importlib.metadata.version('proxystore-core')
    except ImportError as error:
        return f'!{error}'
"""
# Sent as source: the other side may have nothing of ours to unpickle it with.


class DaskSetupError(AutoProxyError, ImportError):
    """A scheduler or worker cannot import this package, or has another version of it.

    Attributes:
        place: Address of the scheduler or worker.
        found: The version there, or `None` where there is none.
        wanted: The version of this client.
    """

    def __init__(self, place: str, found: str | None, wanted: str, why: str = "") -> None:
        self.place, self.found, self.wanted, self.why = place, found, wanted, why
        what = f"has version {found}" if found else f"cannot import proxystore_dask ({why})"
        super().__init__(
            f"{place} {what}, and this client has version {wanted} of proxystore-core. Install "
            f"the same one there: pip install 'proxystore-core[dask]=={wanted}'"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return DaskSetupError, (self.place, self.found, self.wanted, self.why)


def here() -> str:
    """Return the version of this process."""
    return version("proxystore-core")


async def check(client: Client) -> None:
    """Check the versions of the scheduler and of all workers that there are now.

    Raises:
        DaskSetupError: If one is missing or another one; it names the place.
    """
    probe = _probe()
    answers = {f"The scheduler {client.scheduler.address}": await client.run_on_scheduler(probe)}
    workers = await client.run(probe, on_error="return")
    answers |= {f"The worker {address}": answer for address, answer in workers.items()}
    wanted = here()
    for place, answer in answers.items():
        if not isinstance(answer, str):
            raise ProxyStoreError(f"{place} could not be asked for its version: {answer!r}")
        if answer.startswith("!"):
            raise DaskSetupError(place, None, wanted, answer[1:])
        if answer != wanted:
            raise DaskSetupError(place, answer, wanted)


def _probe() -> Any:
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec(_PROBE, namespace)  # noqa: S102  # the constant above
    return namespace["probe"]
