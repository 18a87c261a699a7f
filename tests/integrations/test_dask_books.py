"""The scheduler's books and its map of the nodes."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from proxystore_dask.access import Handle
from proxystore_dask.books import Books, home_of
from proxystore_dask.nodemap import NodeMap

from proxystore_core.connectors.file import FileKey
from proxystore_core.connectors.shared_memory import SharedMemoryKey


def key(number: int, home: str = "here") -> SharedMemoryKey:
    return SharedMemoryKey(f"{home}-0-{number}")


def handle(number: int) -> Handle:
    return Handle(None, key(number), 1, True)


def test_home_of_a_key() -> None:
    assert home_of(key(1, "abc")) == "abc"
    assert home_of(FileKey("name")) == ""


def test_lives_until_its_last_task() -> None:
    books = Books()
    books.claim(key(1), ["a", "b"])
    books.claim(key(2), ["a"])
    assert books.release("a") == [key(2)]
    assert key(1) in books
    assert books.release("b", [key(1)]) == [key(1)]
    assert books.release("b") == []
    assert list(books) == []


def test_result_that_is_also_an_argument() -> None:
    books = Books()
    books.publish("made", handle(1))
    books.claim(key(1), ["user"])
    assert [h.key for h in books.results("made")] == [key(1)]
    assert books.unpublish("made") == []
    assert books.release("user") == [key(1)]
    books.publish("made", handle(1))
    books.claim(key(1), ["user"])
    assert books.release("user") == []
    assert books.unpublish("made") == [key(1)]


def test_copies_go_with_their_object() -> None:
    books = Books()
    books.claim(key(1), ["a"])
    assert books.copied(key(1), key(7, "there")) == []
    assert books.places(key(1)) == {"here": key(1), "there": key(7, "there")}
    assert set(books) == {key(1), key(7, "there")}
    assert books.release("a") == [key(1), key(7, "there")]
    assert books.copied(key(1), key(8, "there")) == [key(8, "there")]  # it came too late


def test_memory_that_is_gone() -> None:
    books = Books()
    books.claim(key(1), ["a"])
    books.copied(key(1), key(7, "there"))
    books.leave("there")
    assert books.places(key(1)) == {"here": key(1)}
    assert books.release("a") == [key(1)]


def test_clear() -> None:
    books = Books()
    books.claim(key(1), ["a"])
    books.publish("b", handle(2))
    books.copied(key(1), key(7, "there"))
    assert set(books.clear()) == {key(1), key(2), key(7, "there")}
    assert list(books) == []
    assert books.release("a") == books.unpublish("b") == []


TASKS = st.sampled_from("abcd")
NUMBERS = st.integers(0, 3)


class BooksModel(RuleBasedStateMachine):
    """What is evicted is exactly what nobody needs any more, once."""

    def __init__(self) -> None:
        super().__init__()
        self.books = Books()
        self.needs: set[tuple[str, Any]] = set()
        self.made: set[tuple[str, Any]] = set()
        self.stored: set[Any] = set()

    def evicted(self, gone: list[Any]) -> None:
        assert len(gone) == len(set(gone))
        alive = {stored for _, stored in self.needs | self.made}
        assert set(gone) == self.stored - alive
        self.stored &= alive

    @rule(number=NUMBERS, tasks=st.lists(TASKS, min_size=1))
    def claim(self, number: int, tasks: list[str]) -> None:
        self.books.claim(key(number), tasks)
        self.needs |= {(task, key(number)) for task in tasks}
        self.stored.add(key(number))

    @rule(task=TASKS)
    def release(self, task: str) -> None:
        self.needs = {(t, s) for t, s in self.needs if t != task}
        self.evicted(self.books.release(task))

    @rule(task=TASKS, number=NUMBERS)
    def release_one(self, task: str, number: int) -> None:
        self.needs.discard((task, key(number)))
        self.evicted(self.books.release(task, [key(number)]))

    @rule(task=TASKS)
    def publish(self, task: str) -> None:
        number = 10 + "abcd".index(task)  # an object is the result of one task
        self.books.publish(task, handle(number))
        self.made.add((task, key(number)))
        self.stored.add(key(number))

    @rule(task=TASKS, user=TASKS)
    def use_result(self, task: str, user: str) -> None:
        number = 10 + "abcd".index(task)
        if (task, key(number)) in self.made:
            self.books.claim(key(number), [user])
            self.needs.add((user, key(number)))

    @rule(task=TASKS)
    def unpublish(self, task: str) -> None:
        self.made = {(t, s) for t, s in self.made if t != task}
        self.evicted(self.books.unpublish(task))

    @invariant()
    def knows_what_is_stored(self) -> None:
        assert set(self.books) == self.stored


BooksModel.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestBooksModel = BooksModel.TestCase


class TestNodeMap:
    def test_first_worker_leads(self) -> None:
        nodes = NodeMap()
        assert nodes.arrive("w1", "m1-0-", is_worker=True)
        assert not nodes.arrive("w2", "m1-1-", is_worker=True)
        assert not nodes.arrive("client", "m1-2-", is_worker=False)
        assert nodes.arrive("w3", "m2-0-", is_worker=True)
        assert nodes.workers_at("m1") == ["w1", "w2"]
        assert nodes.worker_at("m2") == "w3"
        assert nodes.home_of("client") == "m1"
        assert nodes.home_of("nobody") == ""
        assert nodes.worker_at("m3") is None

    def test_leaving(self) -> None:
        nodes = NodeMap()
        for number in range(3):
            nodes.arrive(f"w{number}", f"m-{number}-", is_worker=True)
        assert nodes.leave("w1") == ("m", "m-1-", "w0", None)
        assert nodes.leave("w0") == ("m", "m-0-", "w2", "w2")
        assert nodes.leave("w2") == ("m", "m-2-", None, None)
        assert nodes.leave("w2") is None
        assert nodes.workers_at("m") == []
