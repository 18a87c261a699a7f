"""Processes that use a store and are killed: `killing.py CONFIG KILLS SEED`.

Writers, readers and an evictor are forked, killed at random, and replaced. An
object is one random 8-byte word, repeated, so that a torn one shows. Prints what
went wrong; nothing, if nothing did.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
import traceback
from collections import deque

from proxystore_core.connectors.shared_memory import SharedMemoryConnector, SharedMemoryKey
from proxystore_core.exceptions import StorageFullError

SIZES = (8, 1000, 50_000, 100_000, 200_000, 400_000, 1_000_000, 1_600_000)


def check(found: bytes | memoryview) -> None:
    data = bytes(found)
    if not data or data != data[:8] * (len(data) // 8):
        raise AssertionError(f"an object of {len(data)} bytes is torn")


def write(store: SharedMemoryConnector, chance: random.Random) -> None:
    mine: deque[SharedMemoryKey] = deque()
    while True:
        word = chance.randbytes(8)
        try:
            size = chance.choice(SIZES)
            if chance.random() < 0.5:
                mine.append(store.put(word * (size // 8)))
            else:
                fill(store, mine, word, size)
        except StorageFullError:
            for key in store.keys():
                store.evict(key)
        if len(mine) > 8:
            store.evict(mine.popleft())


def fill(store: SharedMemoryConnector, mine: deque, word: bytes, size: int) -> None:
    key = store.new_key()
    with store.reserve(key, size) as room:
        for start in range(0, size, 80_000):
            part = room.buffer[start : start + 80_000]
            part[:] = word * (len(part) // 8)
        if word[0] > 50:
            room.publish()
            mine.append(key)


def read(store: SharedMemoryConnector, chance: random.Random) -> None:
    held: deque[bytes | memoryview] = deque(maxlen=10)
    while True:
        for key in store.keys():
            found = store.get(key)
            if found is not None:
                check(found)
                held.append(found)
        for found in held:
            check(found)


def evict(store: SharedMemoryConnector, chance: random.Random) -> None:
    while True:
        for key in store.keys():
            if chance.random() < 0.3:
                store.evict(key)


def start(act, config: dict, seed: float) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            act(SharedMemoryConnector.from_config(config), random.Random(seed))
        except BaseException:
            print(traceback.format_exc(), flush=True)
        finally:
            os._exit(1)
    return pid


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status != -signal.SIGKILL:
        print("one ended before it was killed", status, flush=True)


def main() -> None:
    config, kills, chance = json.loads(sys.argv[1]), int(sys.argv[2]), random.Random(sys.argv[3])
    running = [(act, start(act, config, chance.random())) for act in (write, write, read, evict)]
    for _ in range(kills):
        time.sleep(chance.uniform(0, 0.03))  # not to wait for anything: to kill anywhere
        act, pid = running.pop(chance.randrange(len(running)))
        kill(pid)
        running.append((act, start(act, config, chance.random())))
    for _, pid in running:
        kill(pid)


main()
