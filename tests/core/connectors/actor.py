"""A process that uses a store until it, or its parent, is killed: `actor.py ROLE CONFIG SEED`.

An object is one random 8-byte word, repeated, so that a torn one shows.
"""

from __future__ import annotations

import json
import os
import random
import sys
from collections import deque

from proxystore_core.connectors.shared_memory import SharedMemoryConnector, SharedMemoryKey
from proxystore_core.exceptions import StorageFullError

PARENT = os.getppid()
SIZES = (8, 1000, 100_000, 200_000, 400_000, 1_000_000, 1_600_000)


def check(found: bytes | memoryview) -> None:
    data = bytes(found)
    if not data or data != data[:8] * (len(data) // 8):
        print("TORN", len(data), flush=True)
        sys.exit(3)


def write(store: SharedMemoryConnector, chance: random.Random) -> None:
    mine: deque[SharedMemoryKey] = deque()
    while os.getppid() == PARENT:
        word = chance.randbytes(8)
        try:
            mine.append(store.put(word * (chance.choice(SIZES) // 8)))
        except StorageFullError:
            for key in store.keys():
                store.evict(key)
        if len(mine) > 8:
            store.evict(mine.popleft())


def read(store: SharedMemoryConnector, chance: random.Random) -> None:
    held: deque[bytes | memoryview] = deque(maxlen=10)
    while os.getppid() == PARENT:
        for key in store.keys():
            found = store.get(key)
            if found is not None:
                check(found)
                held.append(found)
        for found in held:
            check(found)


def evict(store: SharedMemoryConnector, chance: random.Random) -> None:
    while os.getppid() == PARENT:
        for key in store.keys():
            if chance.random() < 0.3:
                store.evict(key)


def main() -> None:
    role, config, seed = sys.argv[1:]
    store = SharedMemoryConnector.from_config(json.loads(config))
    print("ready", flush=True)
    {"write": write, "read": read, "evict": evict}[role](store, random.Random(seed))


main()
