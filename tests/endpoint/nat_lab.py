"""A small internet in network namespaces: sites behind NATs, and what stands in the middle.

```
site a: host --- router (NAT) ---+
                                 +--- the internet: a bridge, a STUN server, room for a relay
site b: host --- router (NAT) ---+
```

Kinds of site:
* `open`: the host has a public address, and nothing in front of it.
* `cone`: Linux' masquerading keeps the port, so every destination sees the same address
  (endpoint-independent mapping as long as no port is taken twice); only answers come in.
* `symmetric`: the same with a random port for every destination.

Both sites use the same private network, as it is with homes.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from benchmarks._netns import Namespace, Namespaces

Kind = Literal["open", "cone", "symmetric"]
KINDS: tuple[Kind, ...] = ("open", "cone", "symmetric")
MIDDLE = "203.0.113.1"  # of the documentation's networks, RFC 5737
MIDDLE_TOO = "203.0.113.2"
STUN_URL = f"stun:{MIDDLE}:3478"
LAN_HOST, LAN_ROUTER = "192.168.1.2", "192.168.1.1"
HERE = Path(__file__).resolve().parent

_ROUTER = """
ip addr add {lan}/24 dev lan
echo 1 > /proc/sys/net/ipv4/ip_forward
iptables -t nat -A POSTROUTING -o wan -j MASQUERADE {random}
iptables -A INPUT -i wan -m conntrack --ctstate NEW -j DROP
iptables -P FORWARD DROP
iptables -A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
iptables -A FORWARD -i lan -o wan -j ACCEPT
"""
_DROP = "iptables -I {chain} {what} -j DROP"


class NatLab:
    """The laboratory; close it, or use it as a context manager.

    Args:
        sites: Kind of each site, by name.
        udp: Whether packets of UDP get through each site's border.
        loss: Part of the packets that get lost at each border, at random.
        punch: Whether routers let in the SYN of a TCP connection that both sides began, as
            Linux does; many firewalls don't.

    Attributes:
        middle: The namespace of servers that everybody reaches, at `MIDDLE`.
        hosts: The namespace of each site's host.
    """

    def __init__(
        self,
        sites: Mapping[str, Kind],
        *,
        udp: bool = True,
        loss: float = 0.0,
        punch: bool = False,
    ) -> None:
        self._drops = [] if udp else ["-p udp"]
        if loss:
            self._drops.append(f"-m statistic --mode random --probability {loss}")
        self._punch = punch
        self._spaces = Namespaces(iptables="iptables")
        self._servers: list[subprocess.Popen[bytes]] = []
        self.hosts: dict[str, Namespace] = {}
        try:
            self.middle = self._spaces.add("middle")
            self.middle.script(
                "ip link add net type bridge\n"
                "ip link set net up\n"
                f"ip addr add {MIDDLE}/24 dev net\n"
                f"ip addr add {MIDDLE_TOO}/24 dev net"
            )
            for number, (name, kind) in enumerate(sites.items()):
                self.hosts[name] = self._site(name, kind, number)
        except BaseException:
            self.close()
            raise

    def _site(self, name: str, kind: Kind, number: int) -> Namespace:
        public = f"203.0.113.{10 + number}"
        outer = self._spaces.add(name if kind == "open" else f"router of {name}")
        self._spaces.wire(outer, "wan", self.middle, f"site{number}")
        self.middle.run("ip", "link", "set", f"site{number}", "master", "net")
        outer.script(f"ip addr add {public}/24 dev wan\nip route add default via {MIDDLE} dev wan")
        chains = ("INPUT -i wan", "OUTPUT -o wan") if kind == "open" else ("FORWARD",)
        drops = [_DROP.format(chain=chain, what=what) for chain in chains for what in self._drops]
        if kind == "open":
            outer.script("\n".join(drops))
            return outer
        host = self._spaces.add(name)
        self._spaces.wire(host, "eth0", outer, "lan")
        random = "--random-fully" if kind == "symmetric" else ""
        if not self._punch:
            drops.append(_DROP.format(chain="FORWARD", what="-i wan -p tcp --syn"))
        outer.script(_ROUTER.format(lan=LAN_ROUTER, random=random) + "\n".join(drops))
        host.script(f"ip addr add {LAN_HOST}/24 dev eth0\nip route add default via {LAN_ROUTER}")
        return host

    def start_stun(self) -> None:
        """Start the STUN server at `MIDDLE` and `MIDDLE_TOO`."""
        self.serve(str(HERE / "stun_server.py"), MIDDLE, MIDDLE_TOO)

    def serve(self, *argv: str, where: Namespace | None = None, **kwargs: Any) -> None:
        """Run a Python program in the middle, or elsewhere, that prints when it is ready."""
        process = (where or self.middle).popen(
            *(sys.executable, *argv), stdin=subprocess.PIPE, stdout=subprocess.PIPE, **kwargs
        )
        self._servers.append(process)
        assert process.stdout is not None
        if not process.stdout.readline():
            raise RuntimeError(f"{argv[0]} ended with status {process.wait()}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the servers and let all namespaces go."""
        while self._servers:
            server = self._servers.pop()
            assert server.stdin is not None
            assert server.stdout is not None
            server.stdin.close()
            server.terminate()
            server.wait(timeout=10)
            server.stdout.close()
        self._spaces.close()
