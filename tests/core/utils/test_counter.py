from __future__ import annotations

import threading

import pytest

from proxystore_core.utils.counter import AtomicCounter


def test_counts_from_zero_to_its_end() -> None:
    counter = AtomicCounter(3)
    assert [counter.increment() for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="end: 3"):
        counter.increment()


def test_threads_get_different_numbers() -> None:
    counter = AtomicCounter()
    numbers: list[int] = []

    def work() -> None:
        numbers.extend([counter.increment() for _ in range(2000)])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers) == list(range(8000))
