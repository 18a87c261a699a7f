"""Which path is taken when there are several: the links themselves are made up here."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID, uuid4

import pytest
from proxystore_endpoint.exceptions import PathError
from proxystore_endpoint.peers import signals

from tests.endpoint.peers.support import Node, noise, until
from tests.endpoint.peers.test_paths import SETTINGS, at_relay
from tests.endpoint.transports.test_secured import MemoryPipe, pair


class DataChannels:
    """Stands for WebRTC: offers and answers go over the signalling, bytes through memory."""

    def __init__(self) -> None:
        self.waiting: dict[str, MemoryPipe] = {}
        self.works = True

    async def offer(self, signal: Any, servers: Any, *, timeout: float) -> MemoryPipe:
        if not self.works:
            raise PathError("webrtc: no way through", kind="webrtc")
        ours, theirs = pair()
        ours.kind = theirs.kind = "webrtc"
        session = uuid4().hex
        self.waiting[session] = theirs
        await signal.send({"type": "offer", "session": session})
        message = await signal.receive()
        assert message["type"] == "answer"
        return ours

    async def answer(self, offer: Any, signal: Any, servers: Any, **_: Any) -> MemoryPipe:
        await signal.send({"type": "answer", "session": offer["session"]})
        return self.waiting.pop(offer["session"])


@pytest.fixture
def channels(monkeypatch: pytest.MonkeyPatch) -> DataChannels:
    made = DataChannels()
    monkeypatch.setattr(signals.webrtc, "offer", made.offer)
    monkeypatch.setattr(signals.webrtc, "answer", made.answer)
    return made


def path(node: Node, other: UUID) -> str:
    return next(status.path for status in node.peers.status() if status.uuid == other)


def test_a_data_channel_is_better_than_the_relay(channels: DataChannels) -> None:
    async def run() -> None:
        async with at_relay(webrtc=True) as ((here, there), _):
            data = noise(2_000_000)
            assert await here.fetch(there, there.put(data)) == data
            await until(lambda: path(here, there.uuid) == "webrtc")
            data = noise(1_000_000)
            assert await there.fetch(here, here.put(data)) == data

    asyncio.run(run())


def test_a_data_channel_that_comes_late_replaces_the_relay(channels: DataChannels) -> None:
    async def run() -> None:
        channels.works = False
        async with at_relay(webrtc=True) as ((here, there), _):
            assert await here.peers.connect(there.uuid) == "relay"
            await until(lambda: "no way" in here.peers.status()[0].paths["webrtc"])
            channels.works = True  # it is tried again after a while: `upgrade_after`
            await until(lambda: path(here, there.uuid) == "webrtc")
            assert SETTINGS.upgrade_after == (0.2,)

    asyncio.run(run())


def test_a_lost_data_channel_falls_back_to_the_relay(channels: DataChannels) -> None:
    async def run() -> None:
        async with at_relay(webrtc=True) as ((here, there), _):
            await here.peers.connect(there.uuid)
            await until(lambda: path(here, there.uuid) == "webrtc")
            channels.works = False
            for lane in tuple(here.peers._lanes):
                if lane.kind == "webrtc":
                    lane.kill()
            data = noise(1_000_000)
            assert await here.fetch(there, there.put(data)) == data
            assert path(here, there.uuid) == "relay"

    asyncio.run(run())
