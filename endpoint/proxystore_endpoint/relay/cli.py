"""`proxystore-relay`: run a relay."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import datetime
import logging
import logging.handlers
import resource
import signal
import ssl
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Final

import msgspec

from proxystore_core.exceptions import MissingExtraError
from proxystore_endpoint.exceptions import EndpointConfigError
from proxystore_endpoint.limits import MIB
from proxystore_endpoint.relay.auth import METHODS
from proxystore_endpoint.relay.config import LEVELS, RelayAuthConfig, RelayServingConfig
from proxystore_endpoint.relay.server import RelayServer

_log = logging.getLogger("proxystore_endpoint.relay")
_SPARE_FILES: Final = 64
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="proxystore-relay",
        description="Run a relay, where endpoints meet that cannot reach each other directly. "
        "Options here override those in the configuration file.",
    )
    made.add_argument("-c", "--config", metavar="PATH", help="configuration file (TOML)")
    made.add_argument("--host", metavar="ADDR", help="address to listen at (default: all)")
    made.add_argument("--port", type=int, metavar="PORT", help="port (default: 8700; 0: any)")
    made.add_argument(
        "--name",
        action="append",
        metavar="HOST",
        help="host name that endpoints dial this relay by; may be given again",
    )
    made.add_argument("--certfile", metavar="PATH", help="certificate for TLS, in PEM")
    made.add_argument("--keyfile", metavar="PATH", help="its key, if not in the same file")
    made.add_argument("--auth", choices=METHODS, help="who may use the relay (default: none)")
    made.add_argument("--secret-file", metavar="PATH", help="shared secret, for --auth secret")
    made.add_argument("--log-dir", metavar="PATH", help="directory for log files")
    made.add_argument("--log-level", type=str.upper, choices=LEVELS, help="least level to log")
    made.add_argument(
        "--version", action="version", version=f"proxystore-relay {version('proxystore-core')}"
    )
    return made


def configure(arguments: argparse.Namespace) -> RelayServingConfig:
    """The configuration that a command line asks for.

    Raises:
        EndpointConfigError: If the file, or a combination of options, cannot be used.
    """
    config = RelayServingConfig()
    if arguments.config is not None:
        config = RelayServingConfig.from_toml(arguments.config)
    simple = {
        name: getattr(arguments, name)
        for name in ("host", "port", "certfile", "keyfile")
        if getattr(arguments, name) is not None
    }
    if arguments.name:
        simple["names"] = arguments.name
    log = {
        field: value
        for field, value in (
            ("log_dir", arguments.log_dir),
            ("default_level", arguments.log_level),
        )
        if value is not None
    }
    if arguments.secret_file is not None and arguments.auth not in {None, "secret"}:
        raise EndpointConfigError("--secret-file is for --auth secret.", field="auth")
    auth = config.auth
    if arguments.secret_file is not None:
        auth = RelayAuthConfig(method="secret", kwargs={"secret_file": arguments.secret_file})
    elif arguments.auth is not None and arguments.auth != auth.method:
        auth = RelayAuthConfig(method=arguments.auth)
    try:
        return msgspec.structs.replace(
            config, auth=auth, logging=msgspec.structs.replace(config.logging, **log), **simple
        )
    except ValueError as error:
        raise EndpointConfigError(str(error)) from error


async def serve(config: RelayServingConfig) -> None:
    """Run a relay until SIGTERM or SIGINT; SIGHUP loads the certificate again.

    Raises:
        EndpointConfigError: If the configuration cannot be used.
        OSError: If the address cannot be used.
    """
    context = config.ssl_context()
    relay = RelayServer(
        authenticator=config.authenticator(),
        limits=config.limits,
        names=config.names,
        ssl_context=context,
        log_level=_level(config.logging.websockets_level),
    )
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, _reload, config, context)
    _raise_file_limit(config.limits.connections)
    await relay.start(config.host, config.port)
    _keep_buffers()
    _log.info("Relay server listening on port %s", relay.port)
    if context is None:
        _log.info("There is no TLS: dial it by ws://, or put something in front that does TLS.")
    if config.auth.method in {None, "none"}:
        _log.info("Whoever reaches this relay may use it (auth: none).")
    reporter = asyncio.create_task(_report(relay, config))
    try:
        await stop.wait()
        _log.info("Relay server stops")
    finally:
        reporter.cancel()
        await asyncio.gather(reporter, return_exceptions=True)
        await relay.close()
    _log.info("Relay server stopped")


def _reload(config: RelayServingConfig, context: ssl.SSLContext | None) -> None:
    if context is None:
        return
    try:
        config.load_certificate(context)
    except EndpointConfigError as error:
        _log.error("%s The relay goes on with the one it has.", error)
    else:
        _log.info("Loaded the certificate again")


async def _report(relay: RelayServer, config: RelayServingConfig) -> None:
    interval, most = config.logging.current_client_interval, config.logging.current_client_limit
    while interval:
        await asyncio.sleep(interval)
        ports = relay.switch.ports
        names = ""
        if most is not None and 0 < len(ports) <= most:
            names = ": " + ", ".join(sorted(f"{p.uuid} ({p.principal})" for p in ports.values()))
        _log.info("%d clients, %d circuits%s", len(ports), len(relay.switch.circuits), names)


def _raise_file_limit(connections: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _SPARE_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        target = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with contextlib.suppress(ValueError, OSError):  # macOS has a limit of its own
            resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))
        if target < wanted:
            _log.warning("Only %d files may be open: fewer than %d connections", target, wanted)


def _keep_buffers() -> None:
    """Have glibc reuse freed buffers of some 100 KiB: else it maps and clears fresh pages for each.

    mallopt(3), a fifth less time a byte with TLS. Other C libraries have other allocators.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 4 * MIB)
        mallopt(_M_TRIM_THRESHOLD, 64 * MIB)


def _level(level: int | str) -> int | str:
    return level.upper() if isinstance(level, str) else level


def _log_to(config: RelayServingConfig) -> None:
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stdout)]
    if config.logging.log_dir is not None:
        directory = Path(config.logging.log_dir)
        directory.mkdir(parents=True, exist_ok=True)
        handlers.append(
            logging.handlers.TimedRotatingFileHandler(
                directory / "server.log", when="W6", atTime=datetime.time(), backupCount=8
            )
        )
    logging.basicConfig(
        format="[%(asctime)s.%(msecs)03d] %(levelname)-5s (%(name)s) :: %(message)s",
        datefmt="%Y-%m-%d %H:%M:%S",
        level=_level(config.logging.default_level),
        handlers=handlers,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        Its exit status: 0 after a stop by a signal, 1 if it cannot serve, 2 for wrong options.
    """
    arguments = parser().parse_args(argv)
    try:
        config = configure(arguments)
        _log_to(config)
        asyncio.run(serve(config))
    except (EndpointConfigError, MissingExtraError) as error:
        print(f"proxystore-relay: {error}", file=sys.stderr)  # noqa: T201 - a command line
        return 2
    except OSError as error:
        print(f"proxystore-relay: cannot serve: {error}", file=sys.stderr)  # noqa: T201 - a command line
        return 1
    return 0
