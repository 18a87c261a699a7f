"""What a relay answers to plain HTTP: its health, and metrics in Prometheus' text format."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from proxystore_endpoint.relay.server import RelayServer

_GAUGES = {
    "connections_open": "Connections, registered or not.",
    "clients": "Registered clients.",
    "circuits_open": "Circuits.",
    "held_bytes": "Bytes held for circuits, or granted to their senders.",
    "uptime_seconds": "Time since the relay started.",
}
_COUNTERS = {
    "connections": "Connections made.",
    "registrations": "Registrations.",
    "replaced": "Registrations that a newer one of the same id replaced.",
    "signals": "Signals forwarded.",
    "circuits": "Circuits opened.",
    "opens_failed": "Circuits asked for and not opened.",
    "forwarded_messages": "Messages forwarded on circuits.",
    "forwarded_bytes": "Bytes forwarded on circuits.",
    "late_messages": "Messages for circuits that were over.",
    "unknown_messages": "Messages of unknown type.",
    "malformed": "Clients dismissed for breaking the protocol.",
}
_REASONS = {
    "cut": ("connections_cut", "Connections cut."),
    "refused": ("registrations_refused", "Registrations refused."),
}


def health(relay: RelayServer) -> str:
    """The body of /health: JSON."""
    return json.dumps(
        {
            "status": "ok",
            "clients": len(relay.switch.ports),
            "circuits": len(relay.switch.circuits),
            "connections": relay.connections,
            "uptime_seconds": round(time.monotonic() - relay.started, 1),
        }
    )


def metrics(relay: RelayServer) -> str:
    """The body of /metrics. It names no client."""
    switch = relay.switch
    values: dict[str, float] = {
        "connections_open": relay.connections,
        "clients": len(switch.ports),
        "circuits_open": len(switch.circuits),
        "held_bytes": switch.held,
        "uptime_seconds": round(time.monotonic() - relay.started, 1),
    }
    lines: list[str] = []
    for name, text in _GAUGES.items():
        lines += _head(name, text, "gauge")
        lines.append(f"proxystore_relay_{name} {values[name]}")
    for name, text in _COUNTERS.items():
        lines += _head(f"{name}_total", text, "counter")
        lines.append(f"proxystore_relay_{name}_total {switch.counts[name]}")
    for prefix, (name, text) in _REASONS.items():
        lines += _head(f"{name}_total", text, "counter")
        lines += [
            f'proxystore_relay_{name}_total{{reason="{key.removeprefix(prefix + "_")}"}} {count}'
            for key, count in sorted(switch.counts.items())
            if key.startswith(prefix + "_")
        ]
    return "\n".join(lines) + "\n"


def _head(name: str, text: str, kind: str) -> list[str]:
    full = f"proxystore_relay_{name}"
    return [f"# HELP {full} {text}", f"# TYPE {full} {kind}"]
