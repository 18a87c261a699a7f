"""A node in a process of its own, for tests that kill or stop it.

Its first line on stdout says who and where it is; then it takes commands, one a line:
`get <peer> <address> <key>` begins to fetch an object and says when memory was asked for.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4


def _support() -> Any:
    path = Path(__file__).with_name("support.py")
    spec = importlib.util.spec_from_file_location("support", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["support"] = module
    spec.loader.exec_module(module)
    return module


async def main(peers: list[str], nbytes: int) -> None:
    """Serve the peers until stdin is closed."""
    support = _support()
    node = support.Node(limits=support.Limits(), settings=support.PeerSettings())
    await node.peers.start("127.0.0.1", 0)
    for peer in peers:
        node.grants.grant(UUID(peer), support.ALL_RIGHTS)
    keys = {"small": node.put(b"s" * 1000)}
    if nbytes:
        keys["large"] = node.put(support.noise(nbytes))
    print(json.dumps([str(node.uuid), node.address, keys]), flush=True)
    loop = asyncio.get_running_loop()
    tasks = []
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        _, peer, address, key = line.split()
        node.book.add(UUID(peer), [address])

        def sink(nbytes: int) -> Any:
            print("reserved", flush=True)
            return node.storage.reserve(str(uuid4()), nbytes)

        tasks.append(asyncio.create_task(node.peers.get(UUID(peer), key, sink)))
    await node.close()
    await asyncio.gather(*tasks, return_exceptions=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[2:], int(sys.argv[1])))
