"""The relay's switch against a model, and against clients that send garbage."""

from __future__ import annotations

import random
from uuid import uuid4

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from proxystore_endpoint.exceptions import RelayMessageError
from proxystore_endpoint.limits import KIB, MIB
from proxystore_endpoint.relay import messages as m

from tests.endpoint.relay.rig import BODY, Rig
from tests.endpoint.relay.support import mutated

LETTERS = "abcd"
LIMITS = {
    "first_window": 350 * KIB,
    "window": MIB,
    "buffered": 4 * MIB,
    "circuits": 6,
    "opens": 1e9,
    "signals": 1e9,
}


class End:
    """What a well-behaved client knows of its end of a circuit."""

    def __init__(self, credit: int, granted: int) -> None:
        self.credit = credit
        self.granted = granted
        self.sent: list[bytes] = []
        self.got: list[bytes] = []
        self.closed = False
        self.ended = False


class Clients(RuleBasedStateMachine):
    """Well-behaved clients: what one sends, the other gets, in order, and nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.rig = Rig(LETTERS, **LIMITS)
        self.ends: dict[tuple[str, int], End] = {}
        self.others: dict[tuple[str, int], str] = {}
        self.letters = {port.uuid: letter for letter, port in self.rig.ports.items()}
        self.asked: dict[tuple[str, int], tuple[str, int]] = {}
        self.counter = 0

    @initialize()
    def begin(self) -> None:
        for opener, other in ("ab", "bc", "ac"):
            self.open(opener, other)
        for letter in LETTERS * 2:
            self.hear(letter, 20)
        assert len(self.ends) == 6

    @rule(opener=st.sampled_from(LETTERS), other=st.sampled_from(LETTERS))
    def open(self, opener: str, other: str) -> None:
        self.counter += 1
        self.asked[opener, self.counter] = other, MIB
        self.rig.say(opener, m.Open(self.counter, self.rig.uuid(other), MIB))

    @rule(letter=st.sampled_from(LETTERS), most=st.integers(1, 20))
    def hear(self, letter: str, most: int) -> None:
        for _ in range(most):
            message = self.rig.hear(letter)
            if message is None:
                return
            self.take(letter, message)

    def take(self, letter: str, message: object) -> None:
        match message:
            case m.Incoming():
                source = self.letters[message.source]
                self.ends[letter, message.circuit] = End(message.window, MIB)
                self.others[letter, message.circuit] = source
                self.rig.say(letter, m.Accept(message.circuit, MIB))
            case m.Opened():
                other, granted = self.asked.pop((letter, message.id))
                self.ends[letter, message.circuit] = End(message.window, granted)
                self.others[letter, message.circuit] = other
            case m.Result():
                self.asked.pop((letter, message.id), None)
            case m.Data():
                end = self.ends[letter, message.circuit]
                assert not end.ended
                if not end.closed:
                    end.got.append(bytes(message.payload))
                end.granted -= message.cost
                assert end.granted >= 0
            case m.Credit():
                if (letter, message.circuit) in self.ends:
                    self.ends[letter, message.circuit].credit += message.amount
            case m.Closed():
                end = self.ends[letter, message.circuit]
                assert not end.ended
                end.ended = True
                other = self.ends.get((self.others[letter, message.circuit], message.circuit))
                if other is not None and not end.closed:
                    assert end.got == other.sent  # all that was sent before the end
            case _:
                assert isinstance(message, m.Signalled), message

    @precondition(lambda self: self.ends)
    @rule(data=st.data(), sizes=st.lists(st.sampled_from([1, 5000, 65536, 262144]), min_size=1))
    def send(self, data: st.DataObject, sizes: list[int]) -> None:
        key = data.draw(st.sampled_from(sorted(self.ends)))
        end = self.ends[key]
        for size in sizes:
            self.counter += 1
            payload = (b"%d " % self.counter).ljust(size, b".")
            if end.closed or end.ended or end.credit < m.cost(len(payload)):
                return
            end.credit -= m.cost(len(payload))
            end.sent.append(payload)
            self.rig.say(key[0], m.encode_data(key[1], payload))

    @precondition(lambda self: self.ends)
    @rule(data=st.data())
    def grant(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.ends)))
        self.ends[key].granted += MIB
        self.rig.say(key[0], m.encode_credit(key[1], MIB))

    @precondition(lambda self: self.ends)
    @rule(data=st.data())
    def close(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.ends)))
        if not self.ends[key].closed:
            self.ends[key].closed = True
            self.rig.say(key[0], m.Close(key[1], "done"))

    @rule(letter=st.sampled_from(LETTERS))
    def leave(self, letter: str) -> None:
        port = self.rig.ports[letter]
        self.rig.leave(letter)
        for key in [key for key in self.ends if key[0] == letter]:
            self.ends[key].closed = True
        for key in [key for key in self.asked if key[0] == letter]:
            del self.asked[key]
        self.rig.join(letter, port.uuid)

    @rule()
    def tick(self) -> None:
        self.rig.now += 1.0
        self.rig.switch.tick(self.rig.now)

    @invariant()
    def books_balance(self) -> None:
        self.rig.check()

    @invariant()
    def nothing_is_forged(self) -> None:
        for (letter, number), end in self.ends.items():
            other = self.ends.get((self.others[letter, number], number))
            if other is not None:
                assert end.got == other.sent[: len(end.got)]

    def teardown(self) -> None:
        for letter in LETTERS:
            self.rig.leave(letter)
        assert self.rig.switch.held == 0
        assert self.rig.switch.circuits == {}
        assert self.rig.switch.ports == {}


TestClients = Clients.TestCase
TestClients.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)


def fuzz(count: int, seed: int) -> None:
    """Clients that send mutated messages; those that break the rules are thrown out."""
    rng = random.Random(seed)
    rig = Rig(LETTERS, **LIMITS)
    uuids = [str(port.uuid).encode() for port in rig.ports.values()]
    victim = rig.join("v")
    expelled = 0
    for number in range(count):
        rig.now += 0.001
        letter = rng.choice(LETTERS)
        circuits = list(rig.ports[letter].circuits) or [rng.randrange(50)]
        circuit = rng.choice(circuits)
        to = rig.uuid(rng.choice(LETTERS))
        frames = [
            m.encode(m.Signal(number % 100, to, BODY)),
            m.encode(m.Open(number % 100, to, rng.choice([0, MIB, 2**32 - 1]))),
            m.encode(m.Accept(circuit, MIB)),
            m.encode(m.Close(circuit)),
            m.encode(m.Ping(1)),
            m.encode_data(circuit, bytes(rng.choice([0, 10, 5000, 200_000]))),
            m.encode_credit(circuit, rng.randrange(2**32)),
            *(b'{"type":"signal","id":1,"to":"' + uuid + b'","body":{}}' for uuid in uuids[:1]),
        ]
        frame = rng.choice(frames) if rng.random() < 0.5 else mutated(rng, frames)
        try:
            rig.say(letter, frame)
        except RelayMessageError as error:
            rig.switch.remove(
                rig.ports[letter], m.Goodbye("protocol", str(error)[:200]), now=rig.now
            )
            rig.join(letter, uuid4() if rng.random() < 0.1 else rig.uuid(letter))
            expelled += 1
        if number % 7 == 0:
            for who in LETTERS:
                for _ in range(rng.randrange(30)):
                    if rig.hear(who) is None:
                        break
        if number % 1000 == 0:
            rig.switch.tick(rig.now)
            rig.check()
    assert expelled > count // 100
    assert victim.pop(rig.switch.deliver) is None  # nobody knew of it, and nothing came
    assert victim.goodbye is None
    for letter in (*LETTERS, "v"):
        rig.leave(letter)
    assert rig.switch.held == 0
    assert rig.switch.circuits == {}


def test_mutated_messages_do_no_harm():
    fuzz(20_000, seed=4)


@pytest.mark.soak
def test_a_million_mutated_messages_do_no_harm():
    fuzz(1_000_000, seed=5)
