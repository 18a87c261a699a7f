"""The STUN and TURN servers that WebRTC may use."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Sequence
from typing import Final, Protocol

from proxystore_endpoint.exceptions import EndpointConfigError
from proxystore_endpoint.nat import PUBLIC_STUN_SERVERS
from proxystore_endpoint.stun import Address, first_to_answer, parse_url

ANSWER_TIMEOUT: Final = 1.0
"""Seconds that a STUN server has for its answer; three tries."""
KEEP_ANSWER: Final = 300.0
"""Seconds that the server which answered is used without asking again."""
KEEP_SILENCE: Final = 30.0
"""Seconds that none is used after none answered."""

_TURN: Final = re.compile(r"turns?:[^?:/]+(:[0-9]+)?(\?transport=(udp|tcp))?")


class IceServer(Protocol):
    """A server as the configuration has it.

    Attributes:
        urls: One or more of `stun:host[:port]`, `turn:host[:port][?transport=tcp]`, `turns:...`.
        username: For TURN.
        credential: Password for TURN.
    """

    @property
    def urls(self) -> str | list[str]: ...  # noqa: D102 - described above
    @property
    def username(self) -> str | None: ...  # noqa: D102
    @property
    def credential(self) -> str | None: ...  # noqa: D102


class IceServers:
    """Servers of one endpoint, and which of them answers.

    aioice takes one STUN server and waits 5 s for it, whether it is there or not. So all are asked
    side by side here, at most once in a while, and it gets the address of one that answered.

    Args:
        servers: URLs, or what the configuration has; `None` for public STUN servers, empty for
            none at all.

    Attributes:
        stun: Addresses of the STUN servers.
        turn: URL, user name and password of the TURN server, if there is one.

    Raises:
        EndpointConfigError: A URL is malformed.
    """

    def __init__(self, servers: Sequence[IceServer | str] | None = None) -> None:
        self.stun: list[Address] = []
        self.turn: tuple[str, str | None, str | None] | None = None
        self._lock = asyncio.Lock()
        self._answered: Address | None = None
        self._valid_until = 0.0
        if servers is None:
            self.stun = [parse_url(url) for url in PUBLIC_STUN_SERVERS]
        for server in servers or ():
            if isinstance(server, str):
                self._add(server, None, None)
                continue
            for url in [server.urls] if isinstance(server.urls, str) else server.urls:
                self._add(url, server.username, server.credential)

    def _add(self, url: str, username: str | None, credential: str | None) -> None:
        if url.startswith(("turn:", "turns:")):
            if not _TURN.fullmatch(url):
                raise EndpointConfigError(
                    f"A TURN server is turn:host[:port][?transport=tcp], not {url!r}.",
                    field="relay.ice_servers",
                )
            if self.turn is None:  # aioice uses one
                self.turn = url, username, credential
            return
        try:
            self.stun.append(parse_url(url))
        except ValueError as error:
            raise EndpointConfigError(str(error), field="relay.ice_servers") from error

    async def choose_stun(self) -> Address | None:
        """Return the address of a STUN server that answers, or `None`: at once, mostly."""
        async with self._lock:
            if time.monotonic() >= self._valid_until:
                self._answered = await first_to_answer(self.stun, ANSWER_TIMEOUT)
                keep = KEEP_ANSWER if self._answered else KEEP_SILENCE
                self._valid_until = time.monotonic() + keep
            return self._answered
