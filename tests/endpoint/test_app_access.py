"""Who may use the REST API: token x Origin x Host x where it listens."""

from __future__ import annotations

import http.client
import itertools
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from proxystore_endpoint.app.errors import ApiError
from proxystore_endpoint.app.guard import Access, host_name
from proxystore_endpoint.identity import Identity
from proxystore_endpoint.service import https_context, is_loopback

from tests.endpoint.rest import TOKEN, Served, serve

TOKENS = {
    None: False,
    "": False,
    f"Bearer {TOKEN}": True,
    f"bearer {TOKEN}": True,
    f"Bearer {TOKEN}x": False,
    f"Bearer {TOKEN[:-1]}": False,
    "Bearer ": False,
    "Bearer \xff": False,
    f"Basic {TOKEN}": False,
    TOKEN: False,
}
HOSTS = {
    "127.0.0.1:{port}": True,
    "127.0.0.1": True,
    "localhost:{port}": True,
    "LOCALHOST": True,
    "[::1]:{port}": True,
    "trusted.example": True,
    "evil.example:{port}": False,
    "127.0.0.1.evil.example": False,
    "": False,
}
ORIGINS = {
    None: True,
    "http://{host}": True,  # the server's own page
    "https://lab.example": True,
    "http://evil.example": False,
    "null": False,
    "": False,
    "http://{host}.evil.example": False,
}


@pytest.fixture(autouse=True, scope="module")
def no_leaks(watch_leaks: Callable[[], AbstractContextManager[None]]) -> Iterator[None]:
    """One server for all: what it leaves is seen at the end."""
    with watch_leaks():
        yield


@pytest.fixture(scope="module")
def served(no_leaks: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    access = {"allowed_hosts": ["trusted.example"], "allowed_origins": ["https://lab.example/"]}
    directory = tmp_path_factory.mktemp("served")
    with serve(directory, memory_quota="16 MB", access=access) as running:
        yield running


def expected(path: str, token: bool, host: bool, origin: bool) -> tuple[int, str]:
    if not host:
        return 421, "wrong_host"
    if not origin:
        return 403, "wrong_origin"
    if not token and path not in ("/", "/health", "/page/page.js"):
        return 401, "unauthorized"
    return 200, ""


@pytest.mark.parametrize("path", ["/", "/health", "/page/page.js", "/status", "/exists?key=k"])
def test_every_cell(served: Served, path: str) -> None:
    import json

    connection = http.client.HTTPConnection("127.0.0.1", served.server.port, timeout=10)
    for (token, good), (host, known), (origin, own) in itertools.product(
        TOKENS.items(), HOSTS.items(), ORIGINS.items()
    ):
        host = host.format(port=served.server.port)
        connection.putrequest("GET", path, skip_host=True)
        connection.putheader("Host", host)
        if origin is not None:
            connection.putheader("Origin", origin.format(host=host))
        if token is not None:
            connection.putheader("Authorization", token)
        connection.endheaders()
        answer = connection.getresponse()
        body = answer.read()
        status, error = expected(path, good, known, own)
        cell = (path, token, host, origin)
        assert answer.status == status, cell
        if error:
            assert json.loads(body)["error"] == error, cell
            assert TOKEN.encode() not in body
    connection.close()


def test_an_old_client_names_no_host(served: Served) -> None:
    with served.connect() as sock:
        sock.sendall(b"GET /health HTTP/1.0\r\n\r\n")
        assert sock.recv(100).startswith(b"HTTP/1.1 421")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/objects"),
        ("GET", "/objects/k"),
        ("HEAD", "/objects/k"),
        ("PUT", "/objects/k"),
        ("DELETE", "/objects/k"),
        ("GET", "/get?key=k"),
        ("POST", "/set?key=k"),
        ("GET", "/exists?key=k"),
        ("POST", "/evict?key=k"),
        ("GET", "/endpoint"),
        ("GET", "/status"),
        ("GET", "/metrics"),
        ("GET", "/openapi.json"),
        ("GET", "/unknown"),
    ],
)
def test_everything_else_needs_the_token(served: Served, method: str, path: str) -> None:
    served.storage.put("k", [b"secret"])
    answer = served.ask(method, path, b"x" if method in ("PUT", "POST") else None, token=None)
    assert answer.status == 401
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert b"secret" not in answer.body
    assert bytes(served.storage.open("k").view) == b"secret"


def test_a_page_of_another_origin_cannot_write(served: Served) -> None:
    """Not even with a request that needs no leave (`no-cors`), and without one that does."""
    simple = served.ask("POST", "/set?key=evil", b"x", Origin="http://evil.example")
    assert simple.status == 403
    preflight = served.ask(
        "OPTIONS",
        "/objects/evil",
        token=None,
        Origin="http://evil.example",
        Access_Control_Request_Method="PUT",
    )
    assert preflight.status == 403
    assert not any(name.lower().startswith("access-control") for name in preflight.headers)
    assert not served.storage.exists("evil")


def test_what_browsers_are_told(served: Served) -> None:
    for path in ("/", "/page/page.js", "/objects/none", "/health"):
        headers = served.ask("GET", path).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert "Server" not in headers


def test_the_page_is_all_that_is_served_from_disk(served: Served) -> None:
    for path in ("/page/..%2fguard.py", "/page/%2e%2e/guard.py", "/page//etc/passwd", "/page/x"):
        assert served.ask("GET", path, token=None).status in (401, 404), path


class TestPublic:
    """Where others than this machine reach it, it speaks TLS and proves its id."""

    def test_tls(self, tmp_path: Path) -> None:
        from proxystore_endpoint.client import EndpointClient
        from proxystore_endpoint.exceptions import AuthenticationError, EndpointUnreachableError

        identity = Identity.generate()
        with serve(tmp_path, memory_quota="16 MB", tls=https_context(identity)) as served:
            assert served.url.startswith("https://")
            with EndpointClient(served.url, TOKEN, uuid=identity.uuid) as client:
                client.put("k", b"data")
                assert bytes(client.get("k") or b"") == b"data"
            other = Identity.generate().uuid
            with (
                EndpointClient(served.url, TOKEN, uuid=other) as client,
                pytest.raises(AuthenticationError, match=str(other)),
            ):
                client.get("k")
            plain = served.url.replace("https", "http")
            with (
                EndpointClient(plain, TOKEN) as client,
                pytest.raises(EndpointUnreachableError),
            ):
                client.get("k")

    def test_old_tls(self, tmp_path: Path) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        with (
            serve(tmp_path, memory_quota="16 MB", tls=https_context(Identity.generate())) as served,
            served.connect() as sock,
            pytest.raises(ssl.SSLError),
        ):
            context.wrap_socket(sock)

    def test_what_is_local(self) -> None:
        assert is_loopback("127.0.0.1")
        assert is_loopback("localhost")
        assert is_loopback("::1")
        assert not is_loopback("0.0.0.0")
        assert not is_loopback("192.0.2.1")
        assert not is_loopback("no-such-host.invalid")

    def test_names(self) -> None:
        access = Access(TOKEN, "192.0.2.1")
        for name in ("192.0.2.1:80", socket.gethostname(), socket.getfqdn(), "localhost"):
            access.check_host(name)
        with pytest.raises(ApiError):
            access.check_host("192.0.2.2")

    def test_all_addresses(self) -> None:
        access = Access(TOKEN, "0.0.0.0")
        for name in ("192.0.2.1:80", "[2001:db8::1]:80", "localhost"):
            access.check_host(name)
        for name in ("evil.example", "1.2.3", ""):
            with pytest.raises(ApiError):
                access.check_host(name)


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("a:1", "a"),
        ("A.B.", "a.b"),
        ("[::1]:80", "::1"),
        ("[::1]", "::1"),
        ("", ""),
        (" a ", "a"),
        ("[", ""),
        ("a:b:c", "a"),
    ],
)
def test_host_names(header: str, name: str) -> None:
    assert host_name(header) == name
