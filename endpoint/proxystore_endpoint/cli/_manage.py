"""`configure`, `list`, `remove`, `start`, `stop`, `version`."""

from __future__ import annotations

import argparse
import contextlib
import shutil
import socket

from proxystore_core import __version__
from proxystore_endpoint.cli._find import directory_of, find, home, running_of
from proxystore_endpoint.cli._output import complain, say, say_json, say_table
from proxystore_endpoint.config import (
    ENDPOINT_CONFIG_FILE,
    ENDPOINT_IDENTITY_FILE,
    ENDPOINT_OBJECTS_DIR,
    EndpointConfig,
    EndpointPeeringConfig,
    EndpointRelayAuthConfig,
    EndpointRelayConfig,
    EndpointRelayICEServerConfig,
    EndpointStorageConfig,
    find_configs,
    get_log_filepath,
    get_pid_filepath,
    make_token,
    write_config,
)
from proxystore_endpoint.daemon import Options, launch, run
from proxystore_endpoint.exceptions import (
    EndpointConfigError,
    EndpointExistsError,
    EndpointNotFoundError,
    EndpointRunningError,
)
from proxystore_endpoint.identity import Identity
from proxystore_endpoint.running import (
    EndpointStatus,
    clear_running,
    get_status,
    read_running,
    runtime_dir,
    stop_process,
)

_PATIENCE_S = 10.0


def version(_options: argparse.Namespace) -> int:
    """Print the version."""
    say(f"proxystore-core {__version__}")
    return 0


def configure(options: argparse.Namespace) -> int:
    """Make the directory of an endpoint, with an identity of its own."""
    name, relay = options.name, options.relay_address
    if options.relay_server and "://" not in options.relay_server and name is None:
        name = options.relay_server  # `--relay-server NAME` says yes to a relay, and the name
    elif options.relay_server:
        relay = relay or options.relay_server
    if name is None:
        raise EndpointConfigError("Say how to call it: proxystore-endpoint configure NAME")
    directory = directory_of(name)
    if directory.exists():
        if not options.force:
            raise EndpointExistsError(
                f"An endpoint named {name} already exists. To configure it anew, edit "
                f"{directory / ENDPOINT_CONFIG_FILE}, or remove it and try again."
            )
        _stopped(name)
        shutil.rmtree(directory)
    identity = Identity.generate()
    try:
        config = _make_config(options, name, str(identity.uuid), relay)
    except ValueError as error:
        raise EndpointConfigError(str(error)) from error
    write_config(config, directory)
    identity.save(directory / ENDPOINT_IDENTITY_FILE)
    make_token(directory)
    say(f"Configured endpoint: {name} <{config.uuid}>")
    say(f"Config and log file directory: {directory}")
    if config.relay.address is None and not options.solo:
        say("It has no relay: peers reach it directly, or it them (--relay-address names a relay).")
    say("Start the endpoint with:")
    say(f"  $ proxystore-endpoint start {name}")
    return 0


def _make_config(
    options: argparse.Namespace, name: str, uuid: str, relay: str | None
) -> EndpointConfig:
    kind = options.host.strip().lower()
    static = kind not in ("ip", "fqdn")
    return EndpointConfig(
        name=name,
        uuid=uuid,
        port=options.port if options.port is not None else _free_port(),
        host=options.host if static else None,
        host_type="static" if static else kind,
        relay=EndpointRelayConfig(
            address=None if options.no_relay_server else relay,
            auth=_relay_auth(options),
            ice_servers=_ice_servers(options.ice_server),
            peer_channels=options.peer_channels,
            ca_file=options.relay_ca_file,
        ),
        peering=EndpointPeeringConfig(
            enabled=not options.solo,
            host=options.peer_host or EndpointPeeringConfig().host,
            port=options.peer_port if options.peer_port is not None else _free_port(),
            advertise=options.advertise or [],
        ),
        storage=EndpointStorageConfig(
            persist_dir=ENDPOINT_OBJECTS_DIR if options.persist else None,
            memory_quota=options.memory,
            max_object_size=options.max_object_size,
        ),
    )


def _relay_auth(options: argparse.Namespace) -> EndpointRelayAuthConfig:
    method = None if options.no_relay_auth else options.relay_auth
    if options.relay_secret_file:
        return EndpointRelayAuthConfig(
            method="secret", kwargs={"secret_file": options.relay_secret_file}
        )
    return EndpointRelayAuthConfig(method=None if method == "none" else method)


def _ice_servers(urls: list[str] | None) -> list[EndpointRelayICEServerConfig] | None:
    if urls is None:
        return None
    return [EndpointRelayICEServerConfig(urls=url) for url in urls if url != "none"]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


def list_endpoints(options: argparse.Namespace) -> int:
    """List all endpoints."""
    found = find_configs(home())
    rows = [
        (config.name, get_status(directory.name, home()).name, config.uuid)
        for directory, config in found.items()
    ]
    if options.json:
        say_json([{"name": n, "status": s, "uuid": u} for n, s, u in rows])
    elif rows:
        say_table(("NAME", "STATUS", "UUID"), rows)
    else:
        say(f"No valid endpoint configurations in {home()}.")
    return 0


def _stopped(name: str) -> None:
    """Make sure that an endpoint does not run.

    Raises:
        EndpointRunningError: It does, here or elsewhere.
    """
    running = read_running(directory_of(name))
    if running is None or (running.is_here() and not running.is_alive()):
        return
    raise EndpointRunningError(
        f"Endpoint must be stopped before removing; it runs on {running.hostname} (process "
        f"{running.pid}).\n  $ proxystore-endpoint stop {name}"
    )


def remove(options: argparse.Namespace) -> int:
    """Remove an endpoint."""
    directory = directory_of(options.name)
    if not (directory / ENDPOINT_CONFIG_FILE).exists():
        raise EndpointNotFoundError(f"An endpoint named {options.name} does not exist.")
    _stopped(options.name)
    with contextlib.suppress(EndpointConfigError):  # whatever it was called
        shutil.rmtree(runtime_dir(find(options.name).config.uuid), ignore_errors=True)
    shutil.rmtree(directory)
    say(f"Removed endpoint named {options.name}.")
    return 0


def start(options: argparse.Namespace) -> int:
    """Start an endpoint."""
    found = find(options.name)
    level = options.log_level if options.log_level != "WARNING" else "INFO"
    how = Options(log_level=level, watch_parent=options.watch_parent, idle_exit=options.idle_exit)
    if not options.detach:
        run(found.directory, how)
        return 0
    running = launch(found.directory, how)
    say(f"Endpoint {found.config.name} <{found.config.uuid}> runs (process {running.pid}).")
    say(f"REST API and web page: {running.url}")
    say(f"Logs are written to {get_log_filepath(found.directory)}")
    return 0


def stop(options: argparse.Namespace) -> int:
    """Stop an endpoint."""
    found = find(options.name)
    name, directory = found.config.name, found.directory
    running = read_running(directory)
    if running is None:
        if get_status(directory.name, home()) is EndpointStatus.HANGING:
            complain(f"Removed {get_pid_filepath(directory)}, which named no process.")
        clear_running(directory, None)
        say(f"Endpoint {name} is not running.")
        return 0
    if not running.is_here() and running.node.rpartition("/")[0] != socket.gethostname():
        raise EndpointRunningError(
            f"Endpoint {name} was started on {running.hostname} (process {running.pid}). Stop it "
            f"there; if that machine is gone, delete {get_pid_filepath(directory)}."
        )
    if running_of(found) is None or not running.is_here():
        clear_running(directory, running)
        say(f"Endpoint {name} is not running.")
        return 0
    gently = stop_process(running, patience=_PATIENCE_S)
    clear_running(directory, running)
    say(f"Endpoint {name} has been stopped{'' if gently else ' by force'}.")
    return 0
