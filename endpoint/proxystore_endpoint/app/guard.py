"""Who may use the REST API.

A web page of any origin can make a browser on this machine send requests to a local port, and a
name of its own can be made to point there. So `Host` and `Origin` are checked, and everything
that tells or changes something needs the token.
"""

from __future__ import annotations

import hmac
import ipaddress
import socket
from collections.abc import Iterable

from quart import Quart, Response, request

from proxystore_endpoint.app.errors import ApiError

OPEN_PATHS = frozenset({"/", "/health"})
OPEN_PREFIX = "/page/"
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_ANY_HOST = ("0.0.0.0", "::")  # noqa: S104 - compared with
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class Access:
    """What a request has to show.

    Args:
        token: The secret of REST clients.
        host: Address that the server listens on.
        allowed_hosts: Further names that clients may use.
        allowed_origins: Web origins, `https://host[:port]`, whose pages may use the API.
    """

    def __init__(
        self,
        token: str,
        host: str,
        *,
        allowed_hosts: Iterable[str] = (),
        allowed_origins: Iterable[str] = (),
    ) -> None:
        self._token = token.encode()
        names = {host, *_LOOPBACK, *allowed_hosts}
        if host not in _LOOPBACK:
            names |= {socket.gethostname(), socket.getfqdn()}
        self._hosts = {name.lower().rstrip(".") for name in names}
        self._any_address = host in _ANY_HOST
        self._origins = {origin.lower().rstrip("/") for origin in allowed_origins}

    def check_host(self, header: str) -> None:
        """Refuse a request that was meant for another name.

        Raises:
            ApiError: 421.
        """
        name = host_name(header)
        if name not in self._hosts and not (self._any_address and _is_address(name)):
            raise ApiError(
                421,
                "wrong_host",
                f"This endpoint is not called {header[:100]!r}.",
                "Use its address, or add the name to allowed_hosts in config.toml.",
            )

    def check_origin(self, origin: str | None, own: str) -> None:
        """Refuse a web page of another origin.

        Args:
            origin: The header, if there is one.
            own: Origin of this server's own page, as the client sees it.

        Raises:
            ApiError: 403.
        """
        if origin is None or origin.lower() == own.lower() or origin.lower() in self._origins:
            return
        raise ApiError(
            403,
            "wrong_origin",
            f"Pages of {origin[:100]!r} may not use this endpoint.",
            "Add the origin to allowed_origins in config.toml.",
        )

    def check_token(self, header: str | None) -> None:
        """Refuse a request without the token.

        Raises:
            ApiError: 401.
        """
        scheme, _, shown = (header or "").partition(" ")
        given = shown.strip().encode("utf-8", "replace")
        if scheme.lower() == "bearer" and hmac.compare_digest(given, self._token):
            return
        reason = "The token is wrong." if header else "This needs the token of the endpoint."
        raise ApiError(
            401,
            "unauthorized",
            reason,
            "Send the content of the file `token` in the endpoint's directory as "
            "'Authorization: Bearer ...'.",
            {"WWW-Authenticate": 'Bearer realm="proxystore-endpoint"'},
        )


def host_name(header: str) -> str:
    """Return the name in a `Host` header, without port and brackets, in lower case."""
    name = header.strip().lower()
    if name.startswith("["):
        return name[1:].partition("]")[0]
    return name.partition(":")[0].rstrip(".")


def _is_address(name: str) -> bool:
    """Tell whether a name is an address: nobody can make another machine answer to that."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_open(path: str) -> bool:
    """Tell whether a path needs no token: it tells nothing about objects, peers or users."""
    return path in OPEN_PATHS or path.startswith(OPEN_PREFIX)


def guard(app: Quart, access: Access) -> None:
    """Check every request to an application, and say to browsers what its pages may do."""

    @app.before_request
    async def check() -> None:
        host = request.headers.get("Host", "")
        access.check_host(host)
        access.check_origin(request.headers.get("Origin"), f"{request.scheme}://{host}")
        if not is_open(request.path):
            access.check_token(request.headers.get("Authorization"))

    @app.after_request
    async def protect(response: Response) -> Response:
        headers = response.headers
        headers.setdefault("X-Content-Type-Options", "nosniff")
        headers.setdefault("Content-Security-Policy", _POLICY)
        headers.setdefault("Referrer-Policy", "no-referrer")
        headers.setdefault("Cache-Control", "no-store")
        headers.setdefault("Cross-Origin-Resource-Policy", "same-origin")
        return response
