"""`test`: single operations on an endpoint that runs."""

from __future__ import annotations

import argparse
import uuid

from proxystore_core.serialize import deserialize, serialize
from proxystore_endpoint.cli._find import connect, find
from proxystore_endpoint.cli._output import say


def evict(options: argparse.Namespace) -> int:
    """Remove an object."""
    with connect(find(options.name)) as client:
        client.evict(options.key, options.remote)
    say("Evicted object from endpoint.")
    return 0


def exists(options: argparse.Namespace) -> int:
    """Tell whether there is an object."""
    with connect(find(options.name)) as client:
        say(f"Object exists: {client.exists(options.key, options.remote)}")
    return 0


def get(options: argparse.Namespace) -> int:
    """Print an object."""
    with connect(find(options.name)) as client:
        data = client.get(options.key, options.remote)
    if data is None:
        say("Object does not exist.")
        return 1
    say(f"Result: {deserialize(bytes(data))}")
    return 0


def put(options: argparse.Namespace) -> int:
    """Store a text."""
    key = str(uuid.uuid4())
    with connect(find(options.name)) as client:
        stored = client.put(key, serialize(options.data), options.remote)
    say(f"Put object in endpoint with key {key} ({stored.durability})")
    return 0
