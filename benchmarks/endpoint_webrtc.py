"""Data channels over a link with a round trip of 10 ms: ours, ProxyStore's, and bare TCP.

Two network namespaces are joined by an emulated link (see `_link`); both systems use aiortc, and
have a connection of their own across it. A sample is the time from sending an object until
the receiver's one-byte answer is back. Ours is the pipe as the endpoint uses it, but without the
TLS inside, and ProxyStore's is its `PeerConnection` without the relay.

What limits ours is Python's work for each packet of 1.2 kB, not the link: it is about as fast
without any delay. Needs root, or user namespaces.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Sequence
from functools import partial

from benchmarks._harness import (
    KB,
    MB,
    Options,
    Report,
    have,
    interleave,
    median,
    parse,
    progress,
    size,
)
from benchmarks._link import slow_link
from benchmarks._netns import Namespace, NamespaceError, Namespaces
from benchmarks._webrtc_peer import OURS, PROXYSTORE, Ends

ONE_WAY = 0.005  # seconds
TARGET = 2.0
SYSTEMS = (OURS, PROXYSTORE)
PEER = "ProxyStore's peer connection"
TCP = "one TCP stream"

_RECEIVER = """
import socket
with socket.create_server((%r, 5001)) as listening:
    print("ready", flush=True)
    while True:
        connection, _ = listening.accept()
        while data := connection.recv(2**20):
            if data[-1]:
                connection.sendall(b"x")
"""
_SENDER = """
import socket, sys, time
with socket.create_connection((%r, 5001)) as connection:
    for line in sys.stdin:
        data = bytes(int(line) - 1) + b"\\1"
        begin = time.perf_counter()
        connection.sendall(data)
        connection.recv(1)
        print(time.perf_counter() - begin, flush=True)
"""


class Program:
    """A Python program in a namespace, which answers each line with a line."""

    def __init__(self, space: Namespace, text: str) -> None:
        self._process = space.popen(
            *(sys.executable, "-c", text), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def tell(self, line: str) -> None:
        """Write a line."""
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()

    def hear(self) -> str:
        """Wait for a line."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().decode()

    def close(self) -> None:
        """End it."""
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()
        self._process.terminate()
        self._process.wait(timeout=10)


def first(left: Namespace, right: Namespace, system: str) -> float:
    """Carry 1 MB over a new connection; return the seconds."""
    with Ends(left, right, system) as ends:
        return ends.carry(MB)


def measure(report: Report, options: Options, left: Namespace, right: Namespace, far: str) -> None:
    """Measure all rows."""
    systems = SYSTEMS if have("proxystore") else (OURS,)
    if PROXYSTORE not in systems:
        report.not_run("all sizes", PEER, "needs: pip install 'proxystore-core[bench]'")
    with contextlib.ExitStack() as stack:
        ends = {name: stack.enter_context(Ends(left, right, name)) for name in systems}
        receiver = stack.enter_context(contextlib.closing(Program(right, _RECEIVER % far)))
        receiver.hear()
        sender = stack.enter_context(contextlib.closing(Program(left, _SENDER % far)))

        def tcp(nbytes: int) -> float:
            sender.tell(str(nbytes))
            return float(sender.hear())

        for nbytes in (KB, MB) if options.quick else (KB, MB, 16 * MB):
            progress(f"webrtc: {size(nbytes)}")
            cases = {name: partial(end.carry, nbytes) for name, end in ends.items()}
            cases[TCP] = partial(tcp, nbytes)
            taken = interleave(cases, options.rounds, warmup=2)
            report.samples.update({f"{size(nbytes)}, {name}": s for name, s in taken.items()})
            what, ours = f"{size(nbytes)}, RTT 10 ms", median(taken[OURS])
            target = TARGET if nbytes >= MB else None
            if PROXYSTORE in taken:
                report.faster(what, PEER, ours, median(taken[PROXYSTORE]), target)
            report.faster(what, TCP, ours, median(taken[TCP]))
    progress("webrtc: new connections")
    fresh = interleave(
        {name: partial(first, left, right, name) for name in systems},
        1 if options.quick else 3,
        warmup=0,
    )
    if PROXYSTORE in fresh:
        report.faster("first 1 MB, RTT 10 ms", PEER, median(fresh[OURS]), median(fresh[PROXYSTORE]))


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    options = parse(argv, __doc__)
    report = Report("webrtc")
    try:
        with Namespaces() as spaces:
            left, right = spaces.add("left"), spaces.add("right")
            with slow_link(left, right, ONE_WAY) as (_, far):
                measure(report, options, left, right, far)
    except NamespaceError as error:
        report.not_run("data channel, RTT 10 ms", PEER, str(error))
    report.finish(options)


if __name__ == "__main__":
    main()
