"""Numbers for Prometheus, in its text format (version 0.0.4)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from proxystore_core import __version__
from proxystore_endpoint.endpoint import Endpoint

_PREFIX = "proxystore_endpoint"
_COUNTERS = {
    "gets": "Objects that were asked for.",
    "hits": "Objects that were asked for and were here.",
    "copies": "Objects of peers of which a copy was here.",
    "shared": "Requests that waited for a transfer which others had begun.",
    "fetched": "Objects that came from peers.",
    "fetched_bytes": "Bytes of objects that came from peers.",
    "pushed": "Objects that were put at peers.",
    "pushed_bytes": "Bytes of objects that were put at peers.",
    "puts": "Objects that were put through the REST API.",
    "rest_bytes_in": "Bytes of objects that came through the REST API.",
    "rest_bytes_out": "Bytes of objects that went through the REST API.",
    "evicts": "Objects that were removed.",
    "failed": "Requests to peers that failed.",
}
_GAUGES = {
    "objects": "Objects of this endpoint.",
    "nbytes": "Bytes of objects of this endpoint.",
    "copies": "Copies of objects of peers.",
    "copies_nbytes": "Bytes of copies of objects of peers.",
    "memory": "Bytes of memory in use.",
    "memory_limit": "Bytes of memory that may be used.",
    "warm": "Bytes of memory kept for reuse.",
    "disk": "Bytes on disk.",
    "disk_limit": "Bytes that may be on disk.",
    "durable": "Bytes on disk that are durable.",
    "in_flight": "Bytes of objects that are arriving.",
    "in_flight_limit": "Bytes of objects that may be arriving.",
    "damaged": "Objects on disk that were found damaged.",
}
_PEER = {
    "bytes_received": ("counter", "Bytes of objects that came from a peer."),
    "bytes_sent": ("counter", "Bytes of objects that went to a peer."),
    "resumed": ("counter", "Transfers that went on over another lane."),
    "rtt": ("gauge", "Round trip in seconds."),
}


def render(endpoint: Endpoint, status: Mapping[str, Any]) -> str:
    """Write all numbers of an endpoint.

    Args:
        endpoint: The endpoint.
        status: What its daemon says of itself.
    """
    lines: list[str] = []
    info = f"{_labels({'uuid': str(endpoint.uuid), 'version': __version__})}"
    _family(lines, "info", "gauge", "What this endpoint is.", [(info, 1)])
    _family(lines, "uptime_seconds", "gauge", "Time since the start.", [("", status["uptime"])])
    for name, value in msgspec.to_builtins(endpoint.counters).items():
        _family(lines, f"{name}_total", "counter", _COUNTERS[name], [("", value)])
    usage = endpoint.storage.usage()._asdict()
    for name, said in _GAUGES.items():
        _family(lines, f"storage_{name}", "gauge", said, [("", usage[name])])
    peers = [msgspec.to_builtins(peer) for peer in endpoint.peer_status()]
    for name, (kind, said) in _PEER.items():
        rows = [
            (_labels({"peer": peer["uuid"], "path": peer["path"]}), peer[name])
            for peer in peers
            if peer[name] is not None
        ]
        suffix = "_total" if kind == "counter" else "_seconds"
        _family(lines, f"peer_{name}{suffix}", kind, said, rows)
    relay = status.get("relay")
    if relay is not None:
        connected = [("", int(relay["connected"]))]
        _family(lines, "relay_connected", "gauge", "Whether the relay is there.", connected)
    return "\n".join(lines) + "\n"


def _family(
    lines: list[str], name: str, kind: str, said: str, rows: Iterable[tuple[str, float]]
) -> None:
    full = f"{_PREFIX}_{name}"
    lines += [f"# HELP {full} {said}", f"# TYPE {full} {kind}"]
    lines += [f"{full}{labels} {value}" for labels, value in rows]


def _labels(labels: Mapping[str, str]) -> str:
    return "{" + ",".join(f'{name}="{_escape(value)}"' for name, value in labels.items()) + "}"


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
