"""Objects from one endpoint to another on loopback, by direct TCP and through the relay.

Each endpoint is a process of its own, as is each end of what it is compared with:

* a bare TLS 1.3 connection of Python's ssl with blocking sockets, `sendall` and `recv_into`, into
  shared memory that was written before; ours goes into a warm segment of the storage and is
  published there,
* ProxyStore's peer connection (WebRTC), which knows no other path,
* for small objects an echo of asyncio streams, without encryption.

While 1 GB flows from an endpoint to a peer, another peer asks it for small objects; and an
endpoint into which 1 GB flows asks another one for small objects. Memory is what the receiving
process takes beside the object.
"""

from __future__ import annotations

import contextlib
import statistics
import subprocess
from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks._endpoint_node import Process
from benchmarks._harness import (
    GB,
    KB,
    MB,
    Options,
    Report,
    have,
    interleave,
    median,
    parse,
    progress,
    seconds,
    size,
)
from benchmarks._webrtc_peer import PROXYSTORE, Ends
from benchmarks.endpoint_relay import relay

BARE = "bare TLS 1.3"
PEER = "ProxyStore's peer connection"
ECHO = "bare asyncio echo"
MIB = 1 << 20
ROUND_TRIPS = 300  # behind one sample


class Here:
    """Where both ends of ProxyStore's connection run: this host as it is."""

    def popen(self, *command: str, **options: Any) -> subprocess.Popen[bytes]:
        """Start a process."""
        return subprocess.Popen(command, **options)


class Endpoint(Process):
    """An endpoint in a process of its own."""

    def __init__(self, *arguments: str) -> None:
        super().__init__("node", *arguments)
        self.uuid, self.addresses = self.ask("who")

    def knows(self, other: Endpoint) -> None:
        """Let another endpoint in."""
        self.ask("know", uuid=other.uuid, addresses=other.addresses)


@contextlib.contextmanager
def endpoints(count: int, *arguments: str) -> Iterator[list[Endpoint]]:
    """Start endpoints that know each other."""
    with contextlib.ExitStack() as stack:
        started = []
        for _ in range(count):
            started.append(Endpoint(*arguments))
            stack.callback(started[-1].close)
        for one in started:
            for other in started:
                if other is not one:
                    one.knows(other)
        yield started


@contextlib.contextmanager
def bare(nbytes: int) -> Iterator[tuple[Process, Process]]:
    """Start both ends of a bare TLS connection; give sender and receiver."""
    with contextlib.ExitStack() as stack:
        ends = []
        for _ in range(2):
            ends.append(Process("tls"))
            stack.callback(ends[-1].close)
        sender, receiver = ends
        port = sender.ask("where")
        sender.tell("accept", nbytes=nbytes)
        receiver.ask("connect", port=port, nbytes=nbytes)
        sender.hear()
        yield sender, receiver


def bulk(report: Report, options: Options, nbytes: int, target: float | None) -> None:
    """Measure one large object."""
    progress(f"peers, {size(nbytes)}")
    with endpoints(2) as (source, target_end), bare(nbytes) as (sender, receiver):
        key = source.ask("put", nbytes=nbytes)

        def ours() -> float:
            took: float = target_end.ask("get", uuid=source.uuid, key=key)
            return took

        def theirs() -> float:
            sender.tell("send")
            took: float = receiver.ask("receive")
            sender.hear()
            return took

        samples = interleave({"ours": ours, BARE: theirs}, options.rounds, warmup=2)
    report.samples |= {f"get {size(nbytes)}, {name}": taken for name, taken in samples.items()}
    middle = {name: median(taken) for name, taken in samples.items()}
    report.faster(f"get {size(nbytes)}", BARE, middle["ours"], middle[BARE], target)


def against_proxystore(report: Report, options: Options, nbytes: int) -> None:
    """Measure an object against ProxyStore's way between peers."""
    name = f"get {size(nbytes)}"
    if not have("proxystore"):
        report.not_run(name, PEER, "needs: pip install 'proxystore-core[bench]'")
        return
    progress(f"peers, {size(nbytes)}, ProxyStore")
    here: Any = Here()
    with endpoints(2) as (source, target_end), Ends(here, here, PROXYSTORE) as ends:
        if ends.connected is None:
            report.not_run(name, PEER, f"it does not connect here: {ends.error}")
            return
        key = source.ask("put", nbytes=nbytes)

        def ours() -> float:
            took: float = target_end.ask("get", uuid=source.uuid, key=key)
            return took

        cases = {"ours": ours, PEER: lambda: ends.carry(nbytes)}
        samples = interleave(cases, options.rounds, warmup=2, limit=30)
    report.samples |= {f"{name}, {who}": taken for who, taken in samples.items()}
    report.faster(name, PEER, median(samples["ours"]), median(samples[PEER]), 50)


def small(report: Report, options: Options) -> None:
    """Measure the round trip of a small object."""
    progress("peers, 1 kB")
    with endpoints(2) as (source, asking), contextlib.ExitStack() as stack:
        echo, client = Process("echo"), Process("echo")
        stack.callback(echo.close)
        stack.callback(client.close)
        key, port = source.ask("put", nbytes=KB), echo.ask("where")
        count = ROUND_TRIPS

        def ours() -> float:
            return median(asking.ask("round_trips", uuid=source.uuid, key=key, count=count))

        def theirs() -> float:
            return median(client.ask("round_trips", port=port, nbytes=KB, count=count))

        samples = interleave({"ours": ours, ECHO: theirs}, max(options.rounds, 3), warmup=1)
    report.samples |= {f"get 1 kB, {name}": taken for name, taken in samples.items()}
    mine, echoed = median(samples["ours"]), median(samples[ECHO])
    report.add(
        "get 1 kB, round trip",
        peer=ECHO,
        value=mine / echoed,
        target=3,
        at_most=True,
        ours=seconds(mine),
        theirs=seconds(echoed),
    )


def beside(report: Report, options: Options, nbytes: int) -> None:
    """Measure small requests while a large object flows, and the memory that it takes."""
    progress(f"peers, beside {size(nbytes)}")
    with endpoints(3) as (source, receiver, other):
        large = source.ask("put", nbytes=nbytes)
        little, little_of_other = source.ask("put", nbytes=KB), other.ask("put", nbytes=KB)
        taken: list[float] = []
        for _ in range(2 if options.quick else 3):
            receiver.ask("begin", uuid=source.uuid, key=large)
            receiver.tell("end")
            taken += other.ask("round_trips", uuid=source.uuid, key=little, count=100)
            receiver.hear()
        _p99(report, f"1 kB of an endpoint that sends {size(nbytes)} to another", taken)
        taken = receiver.ask(
            "during", uuid=other.uuid, key=little_of_other, flow=source.uuid, large=large
        )
        _p99(report, f"1 kB by an endpoint that gets {size(nbytes)} of another", taken)
    with endpoints(2) as (source, receiver):  # fresh ones: nothing is warm yet
        large, little = source.ask("put", nbytes=nbytes), source.ask("put", nbytes=KB)
        receiver.ask("get", uuid=source.uuid, key=little)
        grown = receiver.ask("beside", uuid=source.uuid, key=large)
    report.add(
        f"memory beside a get of {size(nbytes)}",
        value=grown / MIB,
        unit="MiB",
        target=16,
        at_most=True,
        ours=f"{grown / MIB:.1f} MiB",
    )


def _p99(report: Report, name: str, taken: list[float]) -> None:
    report.samples[name] = taken
    worst = statistics.quantiles(taken, n=100)[98] if len(taken) > 1 else taken[0]
    report.add(
        f"{name}, p99",
        value=worst * 1e6,
        unit="µs",
        target=100_000,
        at_most=True,
        ours=f"{seconds(worst)} (n={len(taken)})",
    )


def relayed(report: Report, options: Options, nbytes: int) -> None:
    """Measure an object through the relay."""
    progress(f"peers, {size(nbytes)} through the relay")
    with relay() as address, endpoints(2, address) as (source, target):
        key = source.ask("put", nbytes=nbytes)
        cases = {"ours": lambda: float(target.ask("get", uuid=source.uuid, key=key))}
        taken = interleave(cases, options.rounds)["ours"]
    report.samples[f"get {size(nbytes)}, relayed"] = taken
    report.add(
        f"get {size(nbytes)}, relayed",
        value=nbytes / median(taken) / MB,
        unit="MB/s",
        target=100,
        ours=seconds(median(taken)),
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    options = parse(argv, __doc__)
    report = Report("endpoint peers")
    if options.quick:
        bulk(report, options, 4 * MB, None)
    else:
        bulk(report, options, 16 * MB, None)
        bulk(report, options, 256 * MB, 0.8)
    against_proxystore(report, options, MB if options.quick else 40 * MB)
    small(report, options)
    beside(report, options, 64 * MB if options.quick else GB)
    relayed(report, options, 4 * MB if options.quick else 64 * MB)
    report.finish(options)


if __name__ == "__main__":
    main()
