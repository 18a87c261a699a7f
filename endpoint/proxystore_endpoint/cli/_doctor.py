"""`check-nat` and `doctor`: which paths to peers work from here, and why not."""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from proxystore_core import __version__
from proxystore_core.cli._doctor import Check
from proxystore_core.exceptions import ProxyStoreError
from proxystore_core.utils.data import bytes_to_readable
from proxystore_endpoint.cli._find import Found, connect, find, running_of
from proxystore_endpoint.cli._output import complain, say, say_json
from proxystore_endpoint.cli._paths import (
    check_peer,
    check_relay,
    check_summary,
    check_tcp,
    check_udp,
)
from proxystore_endpoint.config import (
    ENDPOINT_CONFIG_FILE,
    ENDPOINT_IDENTITY_FILE,
    ENDPOINT_TOKEN_FILE,
    read_token,
)
from proxystore_endpoint.identity import Identity
from proxystore_endpoint.nat import check_nat as ask_stun
from proxystore_endpoint.running import make_runtime_dir

_SMALL = 1_000_000_000


def check_nat(options: argparse.Namespace) -> int:
    """Say what NAT this machine is behind; fail where no server answers."""
    try:
        report = asyncio.run(
            ask_stun(options.server, source_ip=options.host, source_port=options.port)
        )
    except (ValueError, OSError) as error:
        complain(str(error))
        return 1
    for line in report.lines():
        say(line)
    return 0 if report.udp_works else 1


def doctor(options: argparse.Namespace) -> int:
    """Run all checks; fail if one of them does."""
    found = find(options.name)
    checks = asyncio.run(_all(found))
    if options.json:
        say_json([check._asdict() for check in checks])
    else:
        for check in checks:
            say(f"{check.verdict:<8} {check.name}: {check.found}")
            if check.advice:
                say(f"{'':<8} -> {check.advice}")
    return int(any(check.verdict == "failed" for check in checks))


async def _all(found: Found) -> list[Check]:
    return [check async for check in run_checks(found)]


async def run_checks(found: Found) -> AsyncIterator[Check]:
    """Yield what every check found; a check that breaks has failed."""
    yield Check(
        "versions",
        "ok",
        f"proxystore-core {__version__}, Python {platform.python_version()}, {platform.platform()}",
    )
    yield _tried("files", _files, found)
    yield _tried("runtime directory", _runtime, found)
    yield _tried("memory", _memory, found)
    try:
        told = _ask_daemon(found)
    except ProxyStoreError as error:
        told = None
        yield Check("daemon", "failed", str(error), "Restart it; its log says more.")
    else:
        yield _daemon(found, told)
    if not found.config.peering.enabled:
        yield Check("peers", "ok", "none wanted (peering.enabled = false)")
        return
    direct, tcp = await check_tcp(found, told)
    yield direct
    nat, report = await check_udp(found)
    yield nat
    relay = await check_relay(found, told)
    yield relay
    yield check_summary(found, tcp, report, relay)
    for peer in (told or {}).get("peers", ()):
        yield check_peer(peer)


def _tried(name: str, check: Any, found: Found) -> Check:
    try:
        made: Check = check(found)
    except (ProxyStoreError, OSError) as error:
        return Check(name, "failed", str(error))
    return made


def _files(found: Found) -> Check:
    identity = Identity.load(found.directory / ENDPOINT_IDENTITY_FILE)
    if str(identity.uuid) != found.config.uuid:
        return Check(
            "files",
            "failed",
            f"the key is that of {identity.uuid}, the configuration {found.config.uuid}'s",
            "Copy both files of an endpoint, or none.",
        )
    read_token(found.directory)
    wide = [
        str(path)
        for path in (found.directory, found.directory / ENDPOINT_CONFIG_FILE)
        if path.stat().st_mode & 0o022
    ]
    if wide:
        advice = f"Close it with: chmod go-w {' '.join(wide)}"
        return Check("files", "failed", f"others may change {', '.join(wide)}", advice)
    names = f"{ENDPOINT_IDENTITY_FILE} and {ENDPOINT_TOKEN_FILE}"
    return Check("files", "ok", f"{found.directory}; only this user may read {names}")


def _runtime(found: Found) -> Check:
    directory = make_runtime_dir(found.config.uuid)
    return Check("runtime directory", "ok", f"{directory}, of this user alone")


def _memory(found: Found) -> Check:
    base = Path(os.environ.get("PROXYSTORE_SHM_ROOT") or "/dev/shm")  # noqa: S108 - looked at only
    while not base.is_dir():
        base = base.parent
    status = os.statvfs(base)
    free = status.f_bavail * status.f_frsize
    text = f"{bytes_to_readable(free, 1)} free in {base}"
    if free < _SMALL:
        return Check(
            "memory",
            "warning",
            text,
            "Large objects will go to disk. In a container, start it with --shm-size=8g.",
        )
    return Check("memory", "ok", text)


def _ask_daemon(found: Found) -> dict[str, Any] | None:
    if running_of(found) is None:
        return None
    with connect(found) as client:
        return client.status()


def _daemon(found: Found, told: dict[str, Any] | None) -> Check:
    if told is None:
        start = f"Start it: proxystore-endpoint start {found.config.name}"
        return Check("daemon", "warning", "it does not run", start)
    return Check("daemon", "ok", f"process {told['pid']} serves at {told['url']}")
