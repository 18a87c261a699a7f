"""An endpoint's peers and storage in a process of its own, for `test_malicious.py` to attack.

It reads its friends' ids from the first line of stdin and says who and where it is; then each
line asks for its state.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from pathlib import Path
from uuid import UUID

from proxystore_endpoint.grants import Grants
from proxystore_endpoint.identity import Identity
from proxystore_endpoint.limits import Limits
from proxystore_endpoint.membership import ALL_RIGHTS, Right
from proxystore_endpoint.peers import Peers
from proxystore_endpoint.storage import Storage


def _anonymous() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


async def main() -> None:
    loop = asyncio.get_running_loop()
    given = json.loads(await loop.run_in_executor(None, sys.stdin.readline))
    identity, grants = Identity.generate(), Grants()
    grants.grant(UUID(given["friend"]), ALL_RIGHTS)
    grants.grant(UUID(given["guest"]), [])
    grants.grant(UUID(given["writer"]), [Right.WRITE])
    storage = Storage(str(identity.uuid), memory_quota="64 MB")
    storage.put(given["key"], [bytes.fromhex(given["canary"]) * 4096])
    peers = Peers(identity, grants, storage, limits=Limits(handshake_timeout=3.0))
    await peers.start("127.0.0.1", 0)
    print(json.dumps({"key": identity.public_key.hex(), "address": peers.addresses[0]}), flush=True)
    while await loop.run_in_executor(None, sys.stdin.readline):
        state = {
            "anonymous": _anonymous(),
            "threads": threading.active_count(),
            "descriptors": len(list(Path("/proc/self/fd").iterdir())),
            "guests": peers._greeter.guests,
            "lanes": len(peers._lanes),
            "known": sorted(str(peer) for peer in grants.peers()),
        }
        print(json.dumps(state), flush=True)
    await peers.close()
    storage.close()


if __name__ == "__main__":
    asyncio.run(main())
