"""A STUN responder with two addresses and two ports (RFC 5780), for the NAT laboratory.

    python tests/endpoint/stun_server.py ADDRESS OTHER_ADDRESS

It prints `ready` and ends with its standard input. The messages are aioice's, not ours,
so that a mistake in ours does not meet itself.
"""

from __future__ import annotations

import select
import socket
import sys

from aioice import stun

PORTS = (3478, 3479)


def answer(request: bytes, source: tuple[str, int], me: int, ends: list[socket.socket]) -> None:
    """Answer one request from the socket that it asks for; `ends[i ^ 1]` has the other port."""
    try:
        message = stun.parse_message(request)
    except ValueError:
        return
    if message.message_class is not stun.Class.REQUEST:
        return
    change = message.attributes.get("CHANGE-REQUEST", 0)
    origin = me ^ (2 if change & 4 else 0) ^ (1 if change & 2 else 0)
    response = stun.Message(
        message_method=message.message_method,
        message_class=stun.Class.RESPONSE,
        transaction_id=message.transaction_id,
        attributes={
            "XOR-MAPPED-ADDRESS": source,
            "RESPONSE-ORIGIN": ends[origin].getsockname(),
            "OTHER-ADDRESS": ends[me ^ 3].getsockname(),
        },
    )
    ends[origin].sendto(bytes(response), source)


def serve(addresses: list[str], ports: tuple[int, ...] = PORTS) -> None:
    """Answer until standard input ends."""
    ends = []
    for address in addresses:
        for port in ports:
            end = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            end.bind((address, port))
            ends.append(end)
    print("ready", flush=True)
    while True:
        readable, _, _ = select.select([*ends, sys.stdin], [], [])
        if sys.stdin in readable:
            return
        for end in readable:
            request, source = end.recvfrom(2048)
            answer(request, source, ends.index(end), ends)


if __name__ == "__main__":
    serve(sys.argv[1:3])
