"""The secure channel: TLS 1.3 inside every path, and the proof of who is at each end.

The accepting side shows a self-signed Ed25519 certificate; the handshake proves that it holds
the key, and the connecting side compares that key with the id that it wanted (`check_server`).
The connecting side then proves itself inside the channel: it signs a label, both keys and the
nonce of the accepting side's HELLO (`make_auth`, `check_auth`). That signature is worth nothing
to a server with another key, so nobody can pass it on. No certificate authority, no session
tickets, and no clock is involved. The exchange is specified in docs/wire.md.
"""

from __future__ import annotations

import os
import secrets
import ssl
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from uuid import UUID

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from proxystore_endpoint import limits
from proxystore_endpoint.exceptions import AuthenticationError, VersionError
from proxystore_endpoint.identity import Identity, uuid_of, verify
from proxystore_endpoint.wire.messages import MIN_VERSION, VERSION, Auth, Hello

ALPN: Final = "proxystore-peer/1"
"""What the handshake says the channel is for (RFC 7301)."""
_AUTH_LABEL: Final = b"proxystore peer auth 1\0"


def server_context(identity: Identity) -> ssl.SSLContext:
    """TLS for the side that accepts: for sockets (`wrap_socket`) and `MemoryTls`."""
    context = _harden(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    context.num_tickets = 0  # a ticket would stand in for the proof of the key
    with _as_file(b"".join(identity.certificate())) as path:
        context.load_cert_chain(path)
    return context


def client_context() -> ssl.SSLContext:
    """TLS for the side that connects. Call `check_server` after the handshake."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    return _harden(context)


def _harden(context: ssl.SSLContext) -> ssl.SSLContext:
    context.verify_mode = ssl.CERT_NONE  # keys are compared with ids instead, see above
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_3
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols([ALPN])
    return context


@contextmanager
def _as_file(pem: bytes) -> Iterator[str]:
    """A path that `load_cert_chain` can read (it takes nothing else), gone afterwards."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("identity", os.MFD_CLOEXEC)
        with open(descriptor, "wb") as file:
            file.write(pem)
            file.flush()
            yield f"/proc/self/fd/{descriptor}"
    else:
        with tempfile.TemporaryDirectory(prefix="proxystore-") as directory:  # mode 0700
            path = Path(directory) / "identity.pem"
            path.write_bytes(pem)
            yield str(path)


def server_key(channel: ssl.SSLSocket | ssl.SSLObject) -> bytes:
    """The key that the accepting side proved to hold in the handshake, 32 bytes.

    Raises:
        AuthenticationError: It speaks another TLS or protocol, or showed another kind of key.
    """
    if channel.version() != "TLSv1.3" or channel.selected_alpn_protocol() != ALPN:
        raise AuthenticationError("The other side does not speak the peer protocol.")
    raw = channel.getpeercert(binary_form=True)
    try:
        key = x509.load_der_x509_certificate(raw or b"").public_key()
    except Exception as error:  # the parser's errors on hostile input are many
        raise AuthenticationError("The other side's certificate cannot be read.") from error
    if not isinstance(key, Ed25519PublicKey):
        raise AuthenticationError("The other side's certificate has no Ed25519 key.")
    return key.public_bytes_raw()


def check_server(channel: ssl.SSLSocket | ssl.SSLObject, expected: UUID) -> bytes:
    """Make sure, before anything is sent, that the other side is the endpoint we want.

    Returns:
        Its key, 32 bytes, for `make_auth`.

    Raises:
        AuthenticationError: It is another.
    """
    key = server_key(channel)
    if uuid_of(key) != expected:
        raise AuthenticationError(
            f"Endpoint {uuid_of(key)} answered where {expected} was expected: its address is out "
            "of date, or someone stands between."
        )
    return key


def make_hello(agent: str = "") -> Hello:
    """The accepting side's HELLO, with a fresh nonce."""
    return Hello(
        version=VERSION,
        min_version=MIN_VERSION,
        nonce=secrets.token_bytes(limits.NONCE_BYTES),
        agent=agent[: limits.MAX_TEXT],
    )


def agree_version(hello: Hello) -> int:
    """The highest version that both sides speak.

    Raises:
        VersionError: There is none.
    """
    version = min(VERSION, hello.version)
    if version < max(MIN_VERSION, hello.min_version):
        raise VersionError(
            f"The other side speaks versions {hello.min_version} to {hello.version} of the peer "
            f"protocol, this side {MIN_VERSION} to {VERSION}: update the older of the two.",
            ours=(MIN_VERSION, VERSION),
            theirs=(hello.min_version, hello.version),
        )
    return version


def auth_message(server_key: bytes, client_key: bytes, nonce: bytes) -> bytes:
    """What the connecting side signs."""
    return _AUTH_LABEL + server_key + client_key + nonce


def make_auth(
    identity: Identity,
    server_key: bytes,
    hello: Hello,
    *,
    memberships: Iterable[bytes] = (),
    ticket: bytes = b"",
    link: bytes = b"",
    lane: int = 0,
    agent: str = "",
) -> Auth:
    """The connecting side's proof.

    Args:
        identity: Ours.
        server_key: What `check_server` gave.
        hello: What the other side said.
        memberships: Encoded memberships to show.
        ticket: Secret of a ticket to redeem.
        link: Id of the link that the connection is a lane of.
        lane: Number of the lane.
        agent: Name and version of our software.

    Raises:
        VersionError: The sides share no version of the protocol.
    """
    message = auth_message(server_key, identity.public_key, hello.nonce)
    return Auth(
        version=agree_version(hello),
        public_key=identity.public_key,
        signature=identity.sign(message),
        memberships=list(memberships)[: limits.MAX_MEMBERSHIPS],
        ticket=ticket,
        link=link,
        lane=lane,
        agent=agent[: limits.MAX_TEXT],
    )


def check_auth(identity: Identity, hello: Hello, auth: Auth) -> UUID:
    """Check the connecting side's proof. What it may do, `Grants.admit` says.

    Args:
        identity: Ours, whose certificate the channel was made with.
        hello: What we sent in this very channel.
        auth: What came back.

    Returns:
        The id that the other side has proved to be.

    Raises:
        AuthenticationError: The proof is wrong.
        VersionError: It wants a version that we do not speak.
    """
    if not hello.min_version <= auth.version <= hello.version:
        raise VersionError(
            f"The other side wants version {auth.version} of the peer protocol, this side speaks "
            f"{hello.min_version} to {hello.version}.",
            ours=(hello.min_version, hello.version),
            theirs=(auth.version, auth.version),
        )
    message = auth_message(identity.public_key, auth.public_key, hello.nonce)
    if auth.public_key == identity.public_key:
        raise AuthenticationError("The other side claims to be this endpoint.")
    if not verify(auth.public_key, message, auth.signature):
        raise AuthenticationError("The other side does not hold the key that it claims.")
    return uuid_of(auth.public_key)


class MemoryTls:
    """TLS without a socket, for paths that carry messages: ciphertext in, ciphertext out.

    Not thread-safe. Errors of the channel come as `ssl.SSLError`.

    Args:
        context: Of `server_context` or `client_context`.
        server: Whether this side accepts.
    """

    def __init__(self, context: ssl.SSLContext, *, server: bool) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self.channel: Final = context.wrap_bio(self._incoming, self._outgoing, server_side=server)
        """What `check_server` takes."""

    def feed(self, ciphertext: bytes | bytearray | memoryview) -> None:
        """Take ciphertext from the other side; empty means that no more will come."""
        if len(ciphertext):
            self._incoming.write(ciphertext)
        else:
            self._incoming.write_eof()

    def handshake(self) -> bool:
        """Go on with the handshake; tell whether it is done. Then, or else, send `drain`."""
        try:
            self.channel.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def read_into(self, view: memoryview) -> int | None:
        """Decrypt into `view`.

        Returns:
            Bytes written, 0 at the end of the other side's bytes, None when more ciphertext
            is needed.
        """
        try:
            return self.channel.read(len(view), view)  # type: ignore[return-value]  # typeshed: bytearray only
        except ssl.SSLWantReadError:
            return None
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt all of `data`; take the ciphertext with `drain`."""
        if len(data):
            self.channel.write(data)  # a memory BIO takes all of it

    def drain(self, max_bytes: int = -1) -> bytes:
        """Take ciphertext for the other side, all or so many bytes; empty when there is none."""
        return self._outgoing.read(max_bytes)

    @property
    def undrained(self) -> int:
        """Bytes of ciphertext that wait to be sent."""
        return self._outgoing.pending

    def close(self) -> None:
        """Say that no more will come: a last message is left in `drain`."""
        try:
            self.channel.unwrap()
        except (ssl.SSLWantReadError, ssl.SSLError, ValueError):
            return  # the other side need not answer, and may be gone
