"""Which endpoint a command is about."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from proxystore_core.utils.environment import home_dir
from proxystore_endpoint.client import EndpointClient
from proxystore_endpoint.config import (
    ENDPOINT_CONFIG_FILE,
    EndpointConfig,
    find_configs,
    read_config,
    read_token,
    validate_name,
)
from proxystore_endpoint.exceptions import (
    EndpointConfigError,
    EndpointNotFoundError,
    EndpointNotRunningError,
)
from proxystore_endpoint.running import Running, read_running


class Found(NamedTuple):
    """An endpoint that is configured.

    Attributes:
        directory: Its directory.
        config: Its configuration.
    """

    directory: Path
    config: EndpointConfig


def home() -> Path:
    """Return where all endpoints are."""
    return Path(home_dir())


def directory_of(name: str) -> Path:
    """Return the directory of an endpoint of this name, whether there is one or not.

    Raises:
        EndpointConfigError: It is no name.
    """
    if not validate_name(name):
        raise EndpointConfigError(
            f"{name!r} is no name of an endpoint: use letters, digits, dashes and underscores."
        )
    return home() / name


def find(name: str | None) -> Found:
    """Return an endpoint.

    Args:
        name: Its name; `None` for the only one there is.

    Raises:
        EndpointNotFoundError: There is none, or more than one and no name.
        EndpointConfigError: Its configuration cannot be used.
    """
    if name is not None:
        directory = directory_of(name)
        if not (directory / ENDPOINT_CONFIG_FILE).exists():
            raise EndpointNotFoundError(
                f"An endpoint named {name} does not exist. `proxystore-endpoint list` shows all, "
                f"`proxystore-endpoint configure {name}` makes it."
            )
        return Found(directory, read_config(directory))
    found = find_configs(home())
    if len(found) == 1:
        return Found(*next(iter(found.items())))
    if not found:
        raise EndpointNotFoundError(
            f"There is no endpoint in {home()}. Make one: proxystore-endpoint configure NAME"
        )
    names = ", ".join(config.name for config in found.values())
    raise EndpointNotFoundError(f"Say which endpoint: {names}.")


def running_of(found: Found) -> Running | None:
    """Return the daemon of an endpoint; `None` where it does not run, as far as can be told."""
    running = read_running(found.directory)
    if running is None or (running.is_here() and not running.is_alive()):
        return None
    return running


def connect(found: Found) -> EndpointClient:
    """Return a client of an endpoint that runs.

    Raises:
        EndpointNotRunningError: It does not.
    """
    running = running_of(found)
    if running is None:
        raise EndpointNotRunningError(
            f"Endpoint {found.config.name} does not run. Start it: "
            f"proxystore-endpoint start {found.config.name}"
        )
    return EndpointClient(running.url, read_token(found.directory), uuid=found.config.uuid)
