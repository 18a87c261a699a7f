"""How a client of a relay shows that it may use it, beside the signature of its identity.

One Protocol for each side: a relay has an `Authenticator`, a client has `Credentials`. There are
three methods: `none`, `secret` (a secret that all know, never sent) and `globus` (`auth_globus`).
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol, runtime_checkable
from uuid import UUID

from proxystore_endpoint.exceptions import EndpointConfigError, RelayRefusedError
from proxystore_endpoint.relay.messages import Proof, secret_claim

MIN_SECRET: Final = 16
METHODS: Final = ("none", "secret", "globus")


class Claim(NamedTuple):
    """What a client says to register, after its signature was found right.

    Attributes:
        uuid: Its id.
        nonce: The relay's challenge.
        audience: The relay's address as the client dialled it.
        proof: What it shows.
    """

    uuid: UUID
    nonce: bytes
    audience: str
    proof: Proof


class Principal(NamedTuple):
    """Who a client belongs to.

    Attributes:
        name: For the relay's log.
        expires: When it has to register anew, in seconds since the epoch.
    """

    name: str
    expires: float | None = None


@runtime_checkable
class Authenticator(Protocol):
    """The relay's side of a method."""

    @property
    def method(self) -> str:
        """Name of the method, told to the client with the challenge."""

    async def authenticate(self, claim: Claim) -> Principal:
        """Check what a client shows.

        Raises:
            RelayRefusedError: If it does not suffice; the message is told to the client.
        """


@runtime_checkable
class Credentials(Protocol):
    """The client's side of a method."""

    @property
    def method(self) -> str:
        """Name of the method."""

    @property
    def confidential(self) -> bool:
        """Whether the proof itself is a secret: it is not sent without TLS."""

    async def prove(self, nonce: bytes, uuid: UUID, audience: str) -> Proof:
        """Make the proof for one registration.

        Raises:
            RelayRefusedError: If there are no credentials, and only a person can get new ones.
        """


class NoAuthentication:
    """Whoever has an identity may use the relay; both sides of the method `none`."""

    method = "none"
    confidential = False

    async def authenticate(self, claim: Claim) -> Principal:
        """Let everyone in, under the name of its id."""
        return Principal(str(claim.uuid))

    async def prove(self, nonce: bytes, uuid: UUID, audience: str) -> Proof:
        """Show nothing."""
        return Proof()


class SharedSecret:
    """Whoever knows a secret may use the relay; both sides of the method `secret`.

    The secret is never sent: the client applies it to the relay's nonce (HMAC-SHA256).

    Args:
        secret: At least 16 bytes, random.

    Raises:
        EndpointConfigError: If it is shorter.
    """

    method = "secret"
    confidential = False

    def __init__(self, secret: bytes) -> None:
        if len(secret) < MIN_SECRET:
            raise EndpointConfigError(
                f"The relay's secret has {len(secret)} bytes; use at least {MIN_SECRET} random "
                "ones, for instance from `openssl rand -hex 32`.",
                field="relay.auth",
            )
        self._secret = secret

    def _mac(self, nonce: bytes, uuid: UUID, audience: str) -> bytes:
        return hmac.digest(self._secret, secret_claim(nonce, uuid, audience), hashlib.sha256)

    async def authenticate(self, claim: Claim) -> Principal:
        """Let those in who know the secret."""
        expected = self._mac(claim.nonce, claim.uuid, claim.audience)
        if not hmac.compare_digest(expected, claim.proof.mac):
            raise RelayRefusedError("The relay's secret is another one.")
        return Principal(str(claim.uuid))

    async def prove(self, nonce: bytes, uuid: UUID, audience: str) -> Proof:
        """Apply the secret to the relay's nonce."""
        return Proof(method=self.method, mac=self._mac(nonce, uuid, audience))


def read_secret(options: Mapping[str, Any]) -> bytes:
    """The shared secret that a configuration names.

    Args:
        options: `secret_file`, a path, or `secret` itself.

    Raises:
        EndpointConfigError: If there is none, or everyone may read the file.
    """
    extra = set(options) - {"secret", "secret_file"}
    if extra or len(options) != 1:
        raise EndpointConfigError(
            "The relay authentication `secret` takes `secret_file` (a path) or `secret`, and "
            f"nothing else; it has {sorted(options) or 'neither'}.",
            field="relay.auth",
        )
    if "secret" in options:
        return str(options["secret"]).encode()
    path = Path(str(options["secret_file"])).expanduser()
    try:
        if path.stat().st_mode & 0o007:
            raise EndpointConfigError(
                f"Everyone may read {os.fspath(path)!r}: run `chmod 600` on it, and make a new "
                "secret if others could read it.",
                path=os.fspath(path),
                field="relay.auth",
            )
        return path.read_bytes().strip()
    except OSError as error:
        raise EndpointConfigError(
            f"The relay's secret cannot be read: {error}",
            path=os.fspath(path),
            field="relay.auth",
        ) from error


def make_authenticator(method: str | None, options: Mapping[str, Any]) -> Authenticator:
    """The relay's side of a configured method.

    Args:
        method: `none` or `None`, `secret`, `globus`.
        options: What the method needs (`docs/relay.md`).

    Raises:
        EndpointConfigError: If the method or an option is wrong.
        MissingExtraError: If Globus' library is not installed.
    """
    match method:
        case None | "none":
            _take_nothing(options)
            return NoAuthentication()
        case "secret":
            return SharedSecret(read_secret(options))
        case "globus":
            from proxystore_endpoint.relay.auth_globus import GlobusAuthenticator

            authenticator: Authenticator = _build(GlobusAuthenticator, options)
            return authenticator
        case _:
            raise _unknown(method)


def make_credentials(method: str | None, options: Mapping[str, Any]) -> Credentials:
    """The client's side of a configured method; arguments and errors as `make_authenticator`."""
    match method:
        case None | "none":
            _take_nothing(options)
            return NoAuthentication()
        case "secret":
            return SharedSecret(read_secret(options))
        case "globus":
            from proxystore_endpoint.relay.auth_globus import GlobusCredentials

            credentials: Credentials = _build(GlobusCredentials, options)
            return credentials
        case _:
            raise _unknown(method)


def _build(cls: Any, options: Mapping[str, Any]) -> Any:
    try:
        return cls(**options)
    except TypeError as error:  # a missing or unknown option
        raise EndpointConfigError(
            f"The options of the relay authentication `globus` are wrong: {error}",
            field="relay.auth",
        ) from error


def _take_nothing(options: Mapping[str, Any]) -> None:
    if options:
        raise EndpointConfigError(
            f"Options for the relay authentication ({sorted(options)}) but no method; use one of "
            f"{', '.join(METHODS)}.",
            field="relay.auth",
        )


def _unknown(method: str) -> EndpointConfigError:
    return EndpointConfigError(
        f"There is no relay authentication {method!r}; use one of {', '.join(METHODS)}.",
        field="relay.auth",
    )
