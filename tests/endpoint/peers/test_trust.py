from __future__ import annotations

import asyncio
import socket
import ssl

import pytest
from proxystore_endpoint.exceptions import PeerRefusedError, PeerUnreachableError
from proxystore_endpoint.membership import Right
from proxystore_endpoint.tickets import Ticket

from proxystore_core.exceptions import MissingReason
from tests.conftest import wait_until
from tests.endpoint.peers.support import Node, meet, nodes


def test_a_stranger_is_refused_and_told_why() -> None:
    async def run() -> None:
        async with nodes(known=False) as (stranger, node):
            key = node.put(b"secret")
            stranger.book.add(node.uuid, [node.address])
            with pytest.raises(PeerRefusedError, match="not known here") as caught:
                await stranger.fetch(node, key)
            assert caught.value.peer == node.uuid
            assert node.peers.status() == []
            assert node.peers._greeter.refused == 1

    asyncio.run(run())


def test_a_known_peer_without_rights_may_only_connect() -> None:
    async def run() -> None:
        async with nodes(known=False) as (here, there):
            meet(here, there, rights=[])
            assert await here.peers.connect(there.uuid) == "tcp"
            with pytest.raises(PeerRefusedError, match="no right to read"):
                await here.fetch(there, there.put(b"secret"))

    asyncio.run(run())


def test_another_endpoint_at_the_address_is_found_out() -> None:
    async def run() -> None:
        async with nodes(3) as (here, there, impostor):
            for old in (here.book, here.grants):
                getattr(old, "remove", getattr(old, "revoke", None))(there.uuid)
            here.book.add(there.uuid, [impostor.address])
            with pytest.raises(PeerUnreachableError, match=f"{impostor.uuid} answered") as caught:
                await here.fetch(there, there.put(b"x"))
            assert "answered where" in caught.value.paths["tcp"]
            assert impostor.peers.status() == []

    asyncio.run(run())


def test_what_does_not_speak_the_protocol_is_no_peer() -> None:
    async def run() -> None:
        async with nodes(1) as (node,):
            server = await asyncio.start_server(
                lambda reader, writer: writer.close(), "127.0.0.1", 0
            )
            other = Node()
            host, port = server.sockets[0].getsockname()
            node.book.add(other.uuid, [f"{host}:{port}", "127.0.0.1:1"])
            with pytest.raises(PeerUnreachableError) as caught:
                await node.peers.exists(other.uuid, "k")
            assert "refused" in caught.value.paths["tcp"]
            assert caught.value.paths["relay"] == "no relay is configured"
            server.close()
            await other.close()

    asyncio.run(run())


def test_strangers_do_not_disturb() -> None:
    """Garbage, plain HTTP, a TLS client that says nothing: others are served meanwhile."""

    async def run() -> None:
        async with nodes() as (here, there):
            key = there.put(b"x")
            host, port = there.address.split(":")
            for talk in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01" + b"\xff" * 300, b""):
                with socket.create_connection((host, int(port))) as sock:
                    sock.sendall(talk)
                    assert await here.fetch(there, key) == b"x"
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            with socket.create_connection((host, int(port))) as sock:
                sock.settimeout(5)
                tls = await asyncio.to_thread(context.wrap_socket, sock)
                tls.sendall(b"\xff" * 100)
                try:
                    while await asyncio.to_thread(tls.recv, 4096):
                        pass
                except OSError:
                    pass  # it cut us off, which is as good
                tls.close()
            assert await here.fetch(there, key) == b"x"
            assert wait_until(lambda: there.peers._greeter.guests == 0)

    asyncio.run(run())


def test_a_ticket_lets_in_once_and_turns_into_a_grant() -> None:
    async def run() -> None:
        async with nodes(3, known=False) as (host, guest, thief):
            key = host.put(b"shared")
            ticket = Ticket.issue(
                host.identity, addresses=host.peers.addresses, rights=[Right.READ]
            )
            host.grants.share(ticket)
            guest.grants.accept(ticket)
            assert await guest.fetch(host, key) == b"shared"
            known = host.grants.peer(guest.uuid)
            assert known is not None
            assert known.rights == {Right.READ}
            thief.grants.accept(ticket)
            with pytest.raises(PeerRefusedError):
                await thief.fetch(host, key)
            assert await guest.fetch(host, "11111111-1111-4111-8111-111111111111") is (
                MissingReason.UNKNOWN
            )

    asyncio.run(run())


def test_lanes_of_one_peer_are_limited() -> None:
    async def run() -> None:
        from proxystore_endpoint.peers import PeerSettings

        async with nodes(settings=PeerSettings(max_peer_lanes=1)) as (here, there):
            await here.peers.connect(there.uuid)
            peer = here.peers._peer(there.uuid)
            with pytest.raises(PeerRefusedError, match="lanes here already"):
                await here.peers._paths.spare(peer)
            assert await here.fetch(there, there.put(b"x")) == b"x"

    asyncio.run(run())
