"""What the relay's tests share: async tests, clients by hand, and relays in processes."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, ParamSpec

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from proxystore_endpoint.identity import Identity
from proxystore_endpoint.relay import messages as m
from proxystore_endpoint.relay.backoff import Backoff
from proxystore_endpoint.relay.client import RelayClient
from proxystore_endpoint.relay.limits import RelayLimits
from websockets.asyncio.client import ClientConnection, connect

P = ParamSpec("P")

_PIECES = (
    *(b"{", b"}", b"[", b"]", b'"', b":", b",", b"null", b"true", b"-1", b"1e999", b"\\u0000"),
    *(b"9" * 40, b"[" * 3000, b'{"a":' * 3000, b"\xff\xfe", b"\x01" + bytes(8), b"\x02", bytes(64)),
    *(b'"type":"open"', b'"type":"register"', b'"circuit":1', b'"id":4294967296', b"\xed\xa0\x80"),
)

QUICK = RelayLimits(
    handshake_timeout=0.6, register_timeout=0.6, auth_timeout=2.0, accept_timeout=0.6, silence=1.2
)
"""Limits with short times, for tests that wait for them."""


def asynchronous(test: Callable[P, Awaitable[None]]) -> Callable[P, None]:
    """Run an async test in a loop of its own, for a minute at most."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        async def limited() -> None:
            async with asyncio.timeout(60):
                await test(*args, **kwargs)

        asyncio.run(limited())

    return run


async def eventually(condition: Callable[[], bool], timeout: float = 10.0) -> bool:
    """Poll until the condition holds; tell whether it did."""
    deadline = asyncio.get_running_loop().time() + timeout
    while not condition():
        if asyncio.get_running_loop().time() > deadline:
            return False
        await asyncio.sleep(0.01)
    return True


class Inbox:
    """Takes what a client is told: signals and circuits."""

    def __init__(self) -> None:
        self.signals: asyncio.Queue[tuple[Any, dict[str, Any]]] = asyncio.Queue()
        self.circuits: asyncio.Queue[tuple[Any, Any]] = asyncio.Queue()

    async def signal(self, source: Any, message: dict[str, Any]) -> None:
        self.signals.put_nowait((source, message))

    async def circuit(self, source: Any, pipe: Any) -> None:
        self.circuits.put_nowait((source, pipe))


@contextlib.asynccontextmanager
async def client(
    address: str, identity: Identity | None = None, **options: Any
) -> AsyncIterator[tuple[RelayClient, Identity, Inbox]]:
    """A registered client that retries quickly, with its identity and inbox."""
    identity = Identity.generate() if identity is None else identity
    inbox = Inbox()
    options.setdefault("on_signal", inbox.signal)
    options.setdefault("on_circuit", inbox.circuit)
    options.setdefault("backoff", Backoff(first=0.05, most=0.3, refused=0.3))
    async with RelayClient(address, identity, **options) as made:
        assert await made.wait_connected(10), made.last_error
        yield made, identity, inbox


@contextlib.asynccontextmanager
async def by_hand(address: str, **options: Any) -> AsyncIterator[ClientConnection]:
    """A bare websocket to a relay, for what a client of ours would not do."""
    websocket = await connect(
        address, proxy=None, compression=None, close_timeout=0.2, ping_interval=None, **options
    )
    try:
        yield websocket
    finally:
        websocket.transport.abort()
        await websocket.wait_closed()


def answer(challenge: m.Challenge, identity: Identity, **changes: Any) -> m.Register:
    """A right registration, but for the changes."""
    audience = changes.pop("audience", "127.0.0.1:1")
    uuid = changes.pop("uuid", identity.uuid)
    key = changes.pop("public_key", identity.public_key)
    nonce = changes.pop("nonce", challenge.nonce)
    signed = changes.pop("signed_audience", audience)
    return m.Register(
        uuid=uuid,
        public_key=key,
        signature=changes.pop("signature", identity.sign(m.registration(nonce, uuid, key, signed))),
        audience=audience,
        **changes,
    )


async def registered(websocket: ClientConnection, identity: Identity, **changes: Any) -> Any:
    """Register by hand; return what the relay answers."""
    challenge = m.decode_from_relay(await websocket.recv(decode=False))
    assert isinstance(challenge, m.Challenge)
    await websocket.send(m.encode(answer(challenge, identity, **changes)), text=True)
    return m.decode_from_relay(await websocket.recv(decode=False))


class RelayProcess:
    """`proxystore-relay` in a process of its own, which can be stopped and started again."""

    def __init__(self, *arguments: str) -> None:
        self._arguments = arguments
        self._process: subprocess.Popen[str] | None = None
        self.port = 0
        self.start()

    def start(self) -> None:
        """Start it at the same port as before."""
        command = "import sys; from proxystore_endpoint.relay.cli import main; sys.exit(main())"
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                command,
                "--host",
                "127.0.0.1",
                "--port",
                str(self.port),
                *self._arguments,
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if "listening on port" in line:
                self.port = int(line.split()[-1])
                return
        raise AssertionError("the relay did not start")

    def kill(self, number: int = signal.SIGKILL) -> int:
        """End it; return its exit status."""
        assert self._process is not None
        self._process.send_signal(number)
        self._process.communicate(timeout=20)
        status = self._process.returncode
        self._process = None
        return status

    def signal(self, number: int) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate(timeout=20)
            self._process = None


@contextlib.contextmanager
def relay_process(*arguments: str) -> Iterator[RelayProcess]:
    """A relay in a process, ended at last."""
    process = RelayProcess(*arguments)
    try:
        yield process
    finally:
        process.close()


def self_signed(directory: Path) -> tuple[Path, Path]:
    """A certificate for localhost and its key, as PEM files."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(IPv4Address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certfile, keyfile = directory / "certificate.pem", directory / "key.pem"
    certfile.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    keyfile.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return certfile, keyfile


def mutated(rng: random.Random, frames: Sequence[bytes]) -> bytes:
    """A message with a few things changed: bits, bytes, its length, a piece of another one."""
    frame = bytearray(rng.choice(frames))
    for _ in range(rng.randint(1, 4)):
        kind = rng.randrange(7)
        at = rng.randrange(len(frame) + 1)
        if kind == 0 and at < len(frame):
            frame[at] ^= 1 << rng.randrange(8)
        elif kind == 1 and at < len(frame):
            frame[at] = rng.randrange(256)
        elif kind == 2:
            del frame[at:]
        elif kind == 3:
            frame[at:at] = rng.choice(_PIECES)
        elif kind == 4:
            other = rng.choice(frames)
            frame[at:] = other[rng.randrange(len(other) + 1) :]
        elif kind == 5:
            frame[at:at] = frame[at : at + rng.randrange(64)]
        else:
            del frame[at : at + rng.randrange(1, 16)]
    return bytes(frame)
