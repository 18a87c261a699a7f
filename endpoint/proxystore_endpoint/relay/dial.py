"""Connecting to a relay and registering there."""

from __future__ import annotations

import logging
import ssl
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import urlsplit

from websockets.asyncio.client import connect

from proxystore_endpoint.exceptions import (
    EndpointConfigError,
    RelayMessageError,
    RelayRefusedError,
)
from proxystore_endpoint.identity import Identity
from proxystore_endpoint.limits import KIB, MAX_CIRCUIT_MESSAGE, MIB
from proxystore_endpoint.relay import messages as m
from proxystore_endpoint.relay.auth import Credentials
from proxystore_endpoint.relay.session import Connection, farewell

_log = logging.getLogger(__name__)
_WRITE_BUFFER: Final = 512 * KIB


class Dialer:
    """Connects to one relay as one endpoint.

    Args:
        address: `wss://host[:port]` or `ws://host[:port]`.
        identity: Who registers.
        auth: How to authenticate, where the relay wants that.
        ssl_context: For `wss`; by default the system's certificates are trusted.
        agent: Name and version of the software, for the relay.

    Raises:
        EndpointConfigError: If the address is none.
    """

    def __init__(
        self,
        address: str,
        identity: Identity,
        *,
        auth: Credentials,
        ssl_context: ssl.SSLContext | None,
        agent: str,
    ) -> None:
        self.address = address
        self._secure, self._host, self._audience = _parse(address)
        self._identity = identity
        self._auth = auth
        self._ssl = ssl_context
        self._agent = agent

    async def join(self, *, replace: bool) -> tuple[Connection, m.Welcome]:
        """Connect and register.

        Args:
            replace: Whether an older registration of this id has to go.

        Raises:
            RelayError: If the relay says no, or is none.
            OSError: If it cannot be reached.
            WebSocketException: If what answers is no websocket, or not now (503).
        """
        websocket: Any = await connect(  # a Connection, see create_connection
            self.address,
            create_connection=Connection,
            ssl=self._tls() if self._secure else None,
            proxy=None if _is_local(self._host) else True,
            compression=None,  # ciphertext
            open_timeout=None,  # the caller's covers more
            ping_interval=None,  # see Session
            close_timeout=1.0,
            max_size=MAX_CIRCUIT_MESSAGE + MIB,
            write_limit=_WRITE_BUFFER,
            logger=_log.getChild("websockets"),
        )
        try:
            return websocket, await self._register(websocket, replace)
        except BaseException:
            websocket.transport.abort()
            raise

    def _tls(self) -> ssl.SSLContext:
        if self._ssl is None:
            self._ssl = ssl.create_default_context()
        return self._ssl

    async def _register(self, websocket: Connection, replace: bool) -> m.Welcome:
        challenge = m.decode_from_relay(await websocket.recv(decode=False))
        if isinstance(challenge, m.Goodbye):
            raise farewell(challenge, self.address)
        if not isinstance(challenge, m.Challenge):
            raise RelayMessageError(
                f"What answers at {self.address} is no relay.", address=self.address
            )
        identity = self._identity
        proof = await self._prove(challenge)
        signed = m.registration(challenge.nonce, identity.uuid, identity.public_key, self._audience)
        register = m.Register(
            uuid=identity.uuid,
            public_key=identity.public_key,
            signature=identity.sign(signed),
            audience=self._audience,
            replace=replace,
            agent=self._agent,
            auth=proof,
        )
        await websocket.send(m.encode(register), text=True)
        answer = m.decode_from_relay(await websocket.recv(decode=False))
        if isinstance(answer, m.Goodbye):
            raise farewell(answer, self.address)
        if not isinstance(answer, m.Welcome) or answer.uuid != identity.uuid:
            raise RelayMessageError(
                f"The relay {self.address} does not confirm the registration.",
                address=self.address,
            )
        return answer

    async def _prove(self, challenge: m.Challenge) -> m.Proof:
        if challenge.auth == "none":
            return m.Proof()
        if challenge.auth != self._auth.method:
            raise RelayRefusedError(
                f"The relay {self.address} authenticates by {challenge.auth!r}, this endpoint by "
                f"{self._auth.method!r}: set relay.auth in its configuration.",
                address=self.address,
            )
        if self._auth.confidential and not self._secure and not _is_local(self._host):
            raise RelayRefusedError(
                f"A token is not sent to {self.address} without TLS: use wss://.",
                address=self.address,
            )
        return await self._auth.prove(challenge.nonce, self._identity.uuid, self._audience)


def _parse(address: str) -> tuple[bool, str, str]:
    """Whether an address wants TLS, its host, and host and port as they are signed."""
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port, parts = None, None, urlsplit("")
    if parts.scheme not in {"ws", "wss"} or not host:
        raise EndpointConfigError(
            f"A relay's address is wss://host[:port] or ws://host[:port], not {address!r}.",
            field="relay.address",
        )
    secure = parts.scheme == "wss"
    if port is None:
        port = 443 if secure else 80
    return secure, host, f"{f'[{host}]' if ':' in host else host}:{port}"


def _is_local(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
