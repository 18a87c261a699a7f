"""Direct TCP: addresses to connected sockets."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket

from proxystore_endpoint.exceptions import PathError

_KIND = "tcp"


async def dial(host: str, port: int, *, timeout: float) -> socket.socket:
    """Connect to an address, trying one after the other what its name stands for.

    Raises:
        PathError: Nobody answers there in time.
    """
    loop = asyncio.get_running_loop()
    where = f"{host}:{port}"
    failures: list[str] = []
    try:
        async with asyncio.timeout(timeout):
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            for family, kind, protocol, _, address in found:
                sock = socket.socket(family, kind, protocol)
                try:
                    sock.setblocking(False)
                    prepare(sock)
                    await loop.sock_connect(sock, address)
                except OSError as error:
                    sock.close()
                    failures.append(_why(error))
                except BaseException:
                    sock.close()
                    raise
                else:
                    return sock
    except TimeoutError:
        failures.append(f"no answer in {timeout:g} s")
    except OSError as error:  # the name
        failures.append(_why(error))
    reasons = ", ".join(dict.fromkeys(failures)) or "no such address"
    raise PathError(f"{_KIND} {where}: {reasons}", kind=_KIND)


def _why(error: OSError) -> str:
    if isinstance(error, socket.gaierror) or not error.errno:
        return error.strerror or str(error)
    return os.strerror(error.errno).lower()  # asyncio's text names the address again


def prepare(sock: socket.socket) -> None:
    """Set what a lane's socket needs: small frames go out at once."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with contextlib.suppress(OSError):  # not everywhere
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


def own_addresses(host: str, port: int) -> list[str]:
    """Return the addresses at which others may reach a listener, as `host:port`.

    Args:
        host: What it listens on; `0.0.0.0` and `::` stand for all interfaces.
        port: Its port.
    """
    if host not in ("0.0.0.0", "::", ""):  # noqa: S104  # compared, not bound
        return [_text(host, port)]
    found: list[str] = []
    with contextlib.suppress(OSError):  # a host without a name in any table
        for *_, address in socket.getaddrinfo(socket.gethostname(), None, type=socket.SOCK_STREAM):
            found.append(str(address[0]))
    for family, target in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        with (
            contextlib.suppress(OSError),  # no route of that family
            socket.socket(family, socket.SOCK_DGRAM) as probe,
        ):
            probe.connect((target, 9))  # sends nothing; says which address the route has
            found.append(probe.getsockname()[0])
    usable = [a for a in dict.fromkeys(found) if not a.startswith(("127.", "::1", "fe80"))]
    if host == "0.0.0.0":  # noqa: S104  # compared
        usable = [a for a in usable if ":" not in a]
    return [_text(a, port) for a in usable] or [_text("127.0.0.1", port)]


def _text(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
