from __future__ import annotations

import random
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from proxystore_endpoint.exceptions import AuthenticationError, VersionError
from proxystore_endpoint.identity import Identity
from proxystore_endpoint.secure import (
    ALPN,
    MemoryTls,
    agree_version,
    check_auth,
    check_server,
    client_context,
    make_auth,
    make_hello,
    server_context,
    server_key,
)
from proxystore_endpoint.wire.messages import Hello

SERVER, CLIENT, OTHER = (Identity.generate() for _ in range(3))


def shake(client: MemoryTls, server: MemoryTls) -> None:
    """Pass the handshake's bytes to and fro."""
    done = [False, False]
    for _ in range(10):
        for index, (one, other) in enumerate(((client, server), (server, client))):
            done[index] = done[index] or one.handshake()
            if raw := one.drain():
                other.feed(raw)
        if all(done):
            return
    pytest.fail("the handshake does not end")


def pair(
    server: ssl.SSLContext | None = None, client: ssl.SSLContext | None = None
) -> tuple[MemoryTls, MemoryTls]:
    one = MemoryTls(client or client_context(), server=False)
    two = MemoryTls(server or server_context(SERVER), server=True)
    shake(one, two)
    return one, two


@contextmanager
def sockets(context: ssl.SSLContext) -> Iterator[tuple[ssl.SSLSocket, ssl.SSLSocket]]:
    raw = socket.socketpair()
    found: list[ssl.SSLSocket] = []
    thread = threading.Thread(
        target=lambda: found.append(context.wrap_socket(raw[1], server_side=True))
    )
    thread.start()
    with client_context().wrap_socket(raw[0]) as client:
        thread.join()
        with found[0] as server:
            yield client, server


def read(side: MemoryTls, size: int = 1000) -> bytes | None:
    view = memoryview(bytearray(size))
    n = side.read_into(view)
    return None if n is None else bytes(view[:n])


# The channel.


def test_a_server_is_known_by_its_key() -> None:
    client, _ = pair()
    assert check_server(client.channel, SERVER.uuid) == SERVER.public_key
    assert client.channel.version() == "TLSv1.3"
    with pytest.raises(AuthenticationError, match=str(SERVER.uuid)):
        check_server(client.channel, OTHER.uuid)


def test_the_same_over_sockets() -> None:
    with sockets(server_context(SERVER)) as (client, server):
        assert check_server(client, SERVER.uuid) == SERVER.public_key
        server.sendall(b"hello")
        assert client.recv(10) == b"hello"
        assert client.session is None or not client.session.has_ticket


def test_no_session_is_ever_resumed() -> None:
    context = client_context()
    server = server_context(SERVER)
    client, other = pair(server, context)
    other.write(b"x")
    client.feed(other.drain())
    assert read(client) == b"x"
    session = client.channel.session
    again = MemoryTls(context, server=False)
    if session is not None:
        assert not session.has_ticket
        again.channel.session = session
    shake(again, MemoryTls(server, server=True))
    assert not again.channel.session_reused


def test_older_versions_of_tls_are_not_spoken() -> None:
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname = False
    old.verify_mode = ssl.CERT_NONE
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    old.set_alpn_protocols([ALPN])
    with pytest.raises(ssl.SSLError):
        pair(client=old)


def test_another_protocol_is_not_ours() -> None:
    web = server_context(SERVER)
    web.set_alpn_protocols(["http/1.1"])
    client, _ = pair(web)
    with pytest.raises(AuthenticationError, match="peer protocol"):
        check_server(client.channel, SERVER.uuid)


def test_another_kind_of_key_is_refused(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem = tmp_path / "pem"
    pem.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = server_context(SERVER)
    other = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    other.load_cert_chain(pem)
    other.set_alpn_protocols([ALPN])
    client, _ = pair(other)
    with pytest.raises(AuthenticationError, match="Ed25519"):
        check_server(client.channel, SERVER.uuid)
    assert context.verify_mode is ssl.CERT_NONE


def test_a_stolen_certificate_without_its_key_is_of_no_use(tmp_path: Path) -> None:
    certificate, _ = SERVER.certificate()
    _, key = OTHER.certificate()
    pem = tmp_path / "pem"
    pem.write_bytes(certificate + key)
    with pytest.raises(ssl.SSLError):
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(pem)


def test_data_goes_both_ways_and_ends() -> None:
    client, server = pair()
    assert read(client) is None
    blob = bytes(range(256)) * 4000
    client.write(blob)
    client.write(b"")
    assert client.undrained > len(blob)
    raw = client.drain()
    got = bytearray()
    for start in range(0, len(raw), 777):  # cut anywhere
        server.feed(raw[start : start + 777])
        while part := read(server, 16384):
            got += part
    assert got == blob
    client.close()
    server.feed(client.drain())
    assert read(server) == b""
    client.feed(b"")
    assert read(client) == b""


def test_a_flipped_bit_is_never_read() -> None:
    rng = random.Random(1)
    for _ in range(300):
        client, server = PAIRS()
        client.write(b"canary" * 10)
        raw = bytearray(client.drain())
        raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
        server.feed(raw)
        try:
            got = read(server)
        except ssl.SSLError:
            continue
        assert not got, "it was read"  # a length that changed: it waits for more


def PAIRS() -> tuple[MemoryTls, MemoryTls]:
    return pair(_SERVER, _CLIENT)


_SERVER, _CLIENT = server_context(SERVER), client_context()


def test_a_replayed_record_is_never_read() -> None:
    client, server = pair()
    client.write(b"once")
    raw = client.drain()
    server.feed(raw)
    assert read(server) == b"once"
    server.feed(raw)
    with pytest.raises(ssl.SSLError):
        read(server)


@pytest.mark.parametrize("noise", [b"GET / HTTP/1.1\r\n\r\n", bytes(100), b"\x16\x03\x01\xff\xff"])
def test_noise_ends_the_handshake_or_waits(noise: bytes) -> None:
    server = MemoryTls(server_context(SERVER), server=True)
    server.feed(noise)
    try:
        assert not server.handshake()
    except ssl.SSLError:
        return


# The proof inside it.


def test_a_client_proves_who_it_is() -> None:
    hello = make_hello("test 1.0")
    auth = make_auth(
        CLIENT,
        SERVER.public_key,
        hello,
        memberships=[b"m"] * 20,
        ticket=b"t",
        link=b"l",
        lane=3,
        agent="a" * 2000,
    )
    assert check_auth(SERVER, hello, auth) == CLIENT.uuid
    assert (len(auth.memberships), auth.ticket, auth.link, auth.lane) == (16, b"t", b"l", 3)
    assert len(auth.agent) == 1024
    assert make_hello().nonce != hello.nonce


def test_a_stolen_id_is_refused() -> None:
    hello = make_hello()
    auth = make_auth(OTHER, SERVER.public_key, hello)
    stolen = msgspec.structs.replace(auth, public_key=CLIENT.public_key)
    with pytest.raises(AuthenticationError, match="does not hold the key"):
        check_auth(SERVER, hello, stolen)


def test_a_replayed_proof_is_refused() -> None:
    hello = make_hello()
    auth = make_auth(CLIENT, SERVER.public_key, hello)
    with pytest.raises(AuthenticationError):
        check_auth(SERVER, make_hello(), auth)


def test_a_proof_cannot_be_passed_on() -> None:
    """A server that a client trusts shows the client's proof to another: it is worth nothing."""
    hello = make_hello()  # of the victim, handed to the client by the server between
    auth = make_auth(CLIENT, OTHER.public_key, hello)
    with pytest.raises(AuthenticationError):
        check_auth(SERVER, hello, auth)


def test_our_own_key_is_nobody_elses() -> None:
    hello = make_hello()
    auth = make_auth(SERVER, SERVER.public_key, hello)
    with pytest.raises(AuthenticationError, match="this endpoint"):
        check_auth(SERVER, hello, auth)


def test_every_flipped_bit_of_a_proof_is_refused() -> None:
    hello = make_hello()
    auth = make_auth(CLIENT, SERVER.public_key, hello)
    for name in ("public_key", "signature"):
        value = getattr(auth, name)
        for bit in range(8 * len(value)):
            flipped = bytearray(value)
            flipped[bit // 8] ^= 1 << (bit % 8)
            changed = msgspec.structs.replace(auth, **{name: bytes(flipped)})
            with pytest.raises(AuthenticationError):
                check_auth(SERVER, hello, changed)


def test_versions_are_agreed_on_or_refused() -> None:
    hello = make_hello()
    newer = msgspec.structs.replace(hello, version=9)
    assert agree_version(newer) == 1
    too_new = Hello(version=9, min_version=7, nonce=bytes(32))
    with pytest.raises(VersionError, match="update") as caught:
        make_auth(CLIENT, SERVER.public_key, too_new)
    assert (caught.value.ours, caught.value.theirs) == ((1, 1), (7, 9))
    auth = msgspec.structs.replace(make_auth(CLIENT, SERVER.public_key, hello), version=2)
    with pytest.raises(VersionError):
        check_auth(SERVER, hello, auth)


def test_the_private_key_is_left_in_no_file(tmp_path: Path) -> None:
    code = (
        "import sys, os, tempfile\n"
        "tempfile.tempdir = sys.argv[1]\n"
        "if sys.argv[2] == 'file': del os.memfd_create\n"
        "from proxystore_endpoint.identity import Identity\n"
        "from proxystore_endpoint.secure import server_context\n"
        "before = set(os.listdir('/proc/self/fd')) if os.path.isdir('/proc/self/fd') else set()\n"
        "server_context(Identity.generate())\n"
        "after = set(os.listdir('/proc/self/fd')) if before else set()\n"
        "print(os.listdir(sys.argv[1]), len(after) - len(before))\n"
    )
    for way in ("memory", "file"):
        command = [sys.executable, "-c", code, str(tmp_path), way]
        out = subprocess.run(command, capture_output=True, text=True, check=True)
        assert out.stdout.strip() == "[] 0"


def test_the_key_of_a_channel_needs_its_handshake() -> None:
    with pytest.raises((AuthenticationError, ValueError)):
        server_key(MemoryTls(client_context(), server=False).channel)
