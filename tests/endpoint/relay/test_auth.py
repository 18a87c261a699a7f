"""Who may use a relay: everyone, those who know a secret, those whom Globus knows."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs
from uuid import uuid4

import globus_sdk
import pytest
from proxystore_endpoint.exceptions import (
    EndpointConfigError,
    RelayRefusedError,
    RelayUnreachableError,
)
from proxystore_endpoint.identity import Identity
from proxystore_endpoint.relay import messages as m
from proxystore_endpoint.relay.auth import (
    Authenticator,
    Claim,
    Credentials,
    NoAuthentication,
    SharedSecret,
    make_authenticator,
    make_credentials,
)
from proxystore_endpoint.relay.auth_globus import GlobusAuthenticator, GlobusCredentials
from proxystore_endpoint.relay.backoff import Backoff
from proxystore_endpoint.relay.client import RelayClient
from proxystore_endpoint.relay.limits import RelayLimits
from proxystore_endpoint.relay.server import RelayServer

from tests.endpoint.relay.support import asynchronous, by_hand, client, eventually, registered

SECRET = b"a secret of the site"


def claim(proof: m.Proof) -> Claim:
    return Claim(uuid4(), bytes(32), "relay:443", proof)


def test_both_sides_are_what_the_protocols_say():
    for part in (NoAuthentication(), SharedSecret(SECRET)):
        assert isinstance(part, Authenticator)
        assert isinstance(part, Credentials)
    assert isinstance(GlobusCredentials("token"), Credentials)


@asynchronous
async def test_a_secret_is_bound_to_nonce_id_and_relay():
    secret = SharedSecret(SECRET)
    right = Claim(uuid4(), b"n" * 32, "relay:443", m.Proof())
    proof = await secret.prove(right.nonce, right.uuid, right.audience)
    assert SECRET not in m.encode(m.Ping(1)) + proof.mac
    assert (await secret.authenticate(right._replace(proof=proof))).name == str(right.uuid)
    for wrong in (
        {"nonce": b"o" * 32},
        {"uuid": uuid4()},
        {"audience": "evil:443"},
        {"proof": m.Proof("secret", b"")},
        {"proof": m.Proof("none", bytes(32))},
    ):
        with pytest.raises(RelayRefusedError):
            await secret.authenticate(right._replace(**({"proof": proof} | wrong)))
    with pytest.raises(RelayRefusedError):
        await SharedSecret(b"x" * 16).authenticate(right._replace(proof=proof))


@asynchronous
async def test_a_relay_with_a_secret():
    async with RelayServer(authenticator=SharedSecret(SECRET)) as relay:
        async with client(relay.url, auth=SharedSecret(SECRET)) as (one, _, _):
            assert one.connected
        async with by_hand(relay.url) as websocket:
            goodbye = await registered(websocket, Identity.generate())
            assert goodbye.reason == "refused"


@asynchronous
async def test_a_client_tells_an_open_relay_nothing():
    asked = False

    class Watched(SharedSecret):
        async def prove(self, *args: Any) -> m.Proof:
            nonlocal asked
            asked = True
            return await super().prove(*args)

    async with RelayServer() as relay, client(relay.url, auth=Watched(SECRET)) as (one, _, _):
        assert one.connected
    assert not asked


@pytest.mark.parametrize(
    ("method", "options", "text"),
    [
        ("secret", {}, "secret_file"),
        ("secret", {"secret": "short"}, "at least 16"),
        ("secret", {"secret": "x" * 20, "secret_file": "y"}, "nothing else"),
        ("secret", {"secret_file": "/no/such/file"}, "cannot be read"),
        ("none", {"secret": "x" * 20}, "no method"),
        (None, {"client_id": "x"}, "no method"),
        ("kerberos", {}, "kerberos"),
    ],
)
def test_wrong_configurations(method, options, text):
    for make in (make_authenticator, make_credentials):
        with pytest.raises(EndpointConfigError, match=text):
            make(method, options)


def test_a_secret_file(tmp_path: Path):
    file = tmp_path / "secret"
    file.write_bytes(SECRET + b"\n")
    file.chmod(0o600)
    assert isinstance(make_authenticator("secret", {"secret_file": str(file)}), SharedSecret)
    assert make_credentials("secret", {"secret_file": str(file)}).method == "secret"
    file.chmod(0o644)
    with pytest.raises(EndpointConfigError, match="chmod 600"):
        make_authenticator("secret", {"secret_file": str(file)})
    assert isinstance(make_credentials(None, {}), NoAuthentication)


# Globus: the real library against a server that answers as Globus Auth does.

APP, APP_SECRET = "6ec0bd7f-11c0-43da-975e-2a8ad9ebae0b", "app secret"


class Introspection(BaseHTTPRequestHandler):
    """POST /v2/oauth2/token/introspect, RFC 7662."""

    tokens: ClassVar[dict[str, dict[str, Any]]] = {}
    status = 200

    def do_POST(self) -> None:
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        basic = base64.b64encode(f"{APP}:{APP_SECRET}".encode()).decode()
        known = self.headers["Authorization"] == f"Basic {basic}"
        right = known and self.path == "/v2/oauth2/token/introspect"
        status = self.status if right else 401
        about = self.tokens.get(form["token"][0], {"active": False})
        body = json.dumps(about if status == 200 else {"error": "no"}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        return


@pytest.fixture
def globus() -> Iterator[tuple[type[Introspection], Any]]:
    handler = type("Handler", (Introspection,), {"tokens": {}})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    auth = globus_sdk.ConfidentialAppAuthClient(
        APP,
        APP_SECRET,
        base_url=f"http://127.0.0.1:{server.server_port}",
        retry_config=globus_sdk.transport.RetryConfig(max_retries=0),
    )
    try:
        yield handler, auth
    finally:
        auth.transport.close()
        server.shutdown()
        server.server_close()
        thread.join()


def user(**changes: Any) -> dict[str, Any]:
    about = {
        "active": True,
        "aud": ["transfer.api.globus.org", APP],
        "sub": str(uuid4()),
        "username": "Ada@example.org",
        "exp": int(time.time()) + 3600,
    }
    return about | changes


@asynchronous
async def test_globus_tokens(globus):
    handler, auth = globus
    handler.tokens |= {
        "right": user(),
        "expired": {"active": False},
        "other service": user(aud=["transfer.api.globus.org"]),
        "no audience": user(aud=None),
        "other user": user(username="eve@evil.org"),
    }
    relay = GlobusAuthenticator(APP, APP_SECRET, client=auth, users=["@example.org"])
    assert isinstance(relay, Authenticator)
    principal = await relay.authenticate(claim(m.Proof("globus", token="right")))
    assert principal.name == "Ada@example.org"
    assert principal.expires is not None
    assert principal.expires > time.time()
    for token, text in (
        ("expired", "log in again"),
        ("unheard of", "log in again"),
        ("other service", "another service"),
        ("no audience", "another service"),
        ("other user", "may not use"),
        ("", "needs a token"),
    ):
        with pytest.raises(RelayRefusedError, match=text):
            await relay.authenticate(claim(m.Proof("globus", token=token)))
    everyone = GlobusAuthenticator(APP, APP_SECRET, client=auth)
    other = await everyone.authenticate(claim(m.Proof("globus", token="other user")))
    assert other.name == "eve@evil.org"


@asynchronous
async def test_globus_that_fails_refuses_nobody_for_good(globus):
    handler, auth = globus
    handler.tokens["right"] = user()
    relay = GlobusAuthenticator(APP, APP_SECRET, client=auth)
    handler.status = 500
    with pytest.raises(RelayUnreachableError):
        await relay.authenticate(claim(m.Proof("globus", token="right")))
    handler.status = 200
    assert await relay.authenticate(claim(m.Proof("globus", token="right")))


@asynchronous
async def test_a_relay_with_globus(globus):
    handler, auth = globus
    handler.tokens["right"] = user()
    authenticator = GlobusAuthenticator(APP, APP_SECRET, client=auth)
    async with RelayServer(authenticator=authenticator) as relay:
        async with client(relay.url, auth=GlobusCredentials("right")) as (one, identity, _):
            assert one.connected
            assert relay.switch.ports[identity.uuid].principal == "Ada@example.org"
        async with RelayClient(
            relay.url,
            Identity.generate(),
            auth=GlobusCredentials(lambda: "wrong"),
            backoff=Backoff(0.02, 0.1, 0.02),
        ) as wrong:
            assert await eventually(lambda: isinstance(wrong.last_error, RelayRefusedError))
        assert relay.switch.counts["refused_refused"] >= 1


@asynchronous
async def test_a_token_that_expires_is_asked_for_again(globus):
    handler, auth = globus
    handler.tokens["soon"] = user(exp=int(time.time()) + 1)
    handler.tokens["later"] = user()
    tokens = iter(["soon", "later"])
    authenticator = GlobusAuthenticator(APP, APP_SECRET, client=auth)
    async with (
        RelayServer(authenticator=authenticator, limits=RelayLimits(silence=2.0)) as relay,
        client(relay.url, auth=GlobusCredentials(lambda: next(tokens)), ping_interval=0.5) as (
            one,
            _,
            _,
        ),
    ):
        assert await eventually(lambda: one.registrations == 2 and one.connected)


@asynchronous
async def test_slow_authentication_is_given_up():
    class Slow(NoAuthentication):
        async def authenticate(self, claim: Claim) -> Any:
            await asyncio.sleep(3600)

    limits = RelayLimits(auth_timeout=0.1)
    async with (
        RelayServer(authenticator=Slow(), limits=limits) as relay,
        by_hand(relay.url) as websocket,
    ):
        goodbye = await registered(websocket, Identity.generate())
        assert goodbye.reason == "auth"


@asynchronous
async def test_who_gave_up_while_it_was_checked_replaces_nobody():
    begun, goon = asyncio.Event(), asyncio.Event()

    class Slow(NoAuthentication):
        async def authenticate(self, claim: Claim) -> Any:
            if not begun.is_set():
                begun.set()
                await goon.wait()
            return await super().authenticate(claim)

    identity = Identity.generate()
    async with RelayServer(authenticator=Slow()) as relay:
        async with by_hand(relay.url) as impatient:
            registering = asyncio.create_task(registered(impatient, identity))
            await begun.wait()
            registering.cancel()
            await asyncio.gather(registering, return_exceptions=True)
        async with client(relay.url, identity) as (one, _, _):
            assert await eventually(lambda: relay.connections == 1)
            goon.set()
            await one.signal(identity.uuid, {})
            assert await eventually(lambda: relay.switch.counts["signals"] == 1)
            assert (one.connected, one.registrations) == (True, 1)
            assert relay.switch.counts["replaced"] == 0


@asynchronous
async def test_a_token_is_not_sent_in_the_clear():
    # Only an address beyond this host matters, so none is dialled: the rule is the dialler's.
    secretive = RelayClient(
        "ws://relay.example.org:8700", Identity.generate(), auth=GlobusCredentials("token")
    )
    with pytest.raises(RelayRefusedError, match="wss://"):
        await secretive._dialer._prove(m.Challenge(bytes(32), "globus"))
    covered = RelayClient(
        "wss://relay.example.org", Identity.generate(), auth=GlobusCredentials("token")
    )
    assert (await covered._dialer._prove(m.Challenge(bytes(32), "globus"))).token == "token"


def test_globus_credentials(monkeypatch):
    monkeypatch.delenv("PROXYSTORE_RELAY_TOKEN", raising=False)
    with pytest.raises(EndpointConfigError, match="PROXYSTORE_RELAY_TOKEN"):
        make_credentials("globus", {})
    with pytest.raises(EndpointConfigError, match="options"):
        make_credentials("globus", {"tokens": "x"})
    monkeypatch.setenv("PROXYSTORE_RELAY_TOKEN", "from the environment")
    made = make_credentials("globus", {})
    assert made.confidential
    assert asyncio.run(made.prove(bytes(32), uuid4(), "relay:443")).token == "from the environment"


def test_a_globus_relay_needs_an_application(monkeypatch):
    monkeypatch.delenv("PROXYSTORE_GLOBUS_CLIENT_ID", raising=False)
    with pytest.raises(EndpointConfigError, match="client_id"):
        make_authenticator("globus", {})
    with pytest.raises(EndpointConfigError, match="options"):
        make_authenticator("globus", {"client": None, "secret": "x"})
    monkeypatch.setenv("PROXYSTORE_GLOBUS_CLIENT_ID", APP)
    monkeypatch.setenv("PROXYSTORE_GLOBUS_CLIENT_SECRET", APP_SECRET)
    assert make_authenticator("globus", {}).method == "globus"
