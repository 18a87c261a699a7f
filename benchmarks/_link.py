"""A slow link between two network namespaces: every packet arrives later, some never.

The kernel's own emulator (netem) is often missing, so a process forwards: each namespace gets a
TUN device whose packets this process reads, keeps for the delay and writes into the other one.
UDP, TCP and ICMP pass alike, whatever their ports.

    python -m benchmarks._link PID_A PID_B --delay 0.005
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import fcntl
import os
import random
import select
import struct
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from benchmarks._netns import Namespace, NamespaceError

ADDRESSES = ("10.77.0.1", "10.77.0.2")
DEVICE = "link0"
_TUNSETIFF = 0x400454CA  # linux/if_tun.h
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000
_CLONE_NEWNET = 0x40000000
_AT_ONCE = 64  # packets read from one side before the other's turn
_QUEUE = 4000  # packets that wait in the kernel for this process


@contextlib.contextmanager
def slow_link(
    left: Namespace, right: Namespace, delay: float, *, loss: float = 0.0, mtu: int = 1500
) -> Iterator[tuple[str, str]]:
    """Join two namespaces by a link; yield the addresses of both ends.

    Args:
        left: One end.
        right: The other end.
        delay: Seconds that a packet takes, one way.
        loss: Part of the packets that are dropped, at random.
        mtu: Largest IP packet, in bytes.

    Raises:
        NamespaceError: If the link cannot be made here.
    """
    root = Path(__file__).resolve().parent.parent
    process = left.popen(
        *(sys.executable, "-m", "benchmarks._link", str(left.pid), str(right.pid)),
        *("--delay", str(delay), "--loss", str(loss), "--mtu", str(mtu)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=root,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        if process.stdout.readline() != b"up\n":
            raise NamespaceError("the emulated link did not come up; it needs /dev/net/tun")
        yield ADDRESSES
    finally:
        process.stdin.close()  # which ends it
        process.stdout.close()
        process.wait(timeout=10)


def _device(pid: int, address: str, peer: str, mtu: int) -> int:
    """Make a TUN device in a process's network namespace, and move there; return its descriptor."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open(f"/proc/{pid}/ns/net") as namespace:
        if libc.setns(namespace.fileno(), _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"cannot enter the namespace of process {pid}")
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    request = struct.pack("16sH22x", DEVICE.encode(), _IFF_TUN | _IFF_NO_PI)
    fcntl.ioctl(fd, _TUNSETIFF, request)
    for command in (
        f"link set {DEVICE} mtu {mtu} txqueuelen {_QUEUE} up",
        f"addr add {address} peer {peer} dev {DEVICE}",
    ):
        subprocess.run(["ip", *command.split()], check=True)
    return fd


def _forward(ends: tuple[int, int], delay: float, loss: float) -> None:
    """Carry packets until standard input ends."""
    across = {ends[0]: ends[1], ends[1]: ends[0]}
    waiting: deque[tuple[float, int, bytes]] = deque()  # in order: the delay is always the same
    stdin = sys.stdin.fileno()
    while True:
        pause = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
        readable, _, _ = select.select([*ends, stdin], [], [], pause)
        if stdin in readable:
            return
        for end in readable:
            other = across[end]
            with contextlib.suppress(BlockingIOError):
                for _ in range(_AT_ONCE):
                    packet = os.read(end, 65536)
                    if not loss or random.random() >= loss:
                        waiting.append((time.monotonic() + delay, other, packet))
        now = time.monotonic()
        while waiting and waiting[0][0] <= now:
            _, other, packet = waiting.popleft()
            with contextlib.suppress(OSError):  # a full queue loses packets, as links do
                os.write(other, packet)


def main() -> None:
    """Read the arguments and forward."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("left", type=int, metavar="PID_A")
    parser.add_argument("right", type=int, metavar="PID_B")
    parser.add_argument("--delay", type=float, required=True)
    parser.add_argument("--loss", type=float, default=0.0)
    parser.add_argument("--mtu", type=int, default=1500)
    given = parser.parse_args()
    here, there = ADDRESSES
    left = _device(given.left, here, there, given.mtu)
    right = _device(given.right, there, here, given.mtu)
    print("up", flush=True)
    _forward((left, right), given.delay, given.loss)


if __name__ == "__main__":
    main()
