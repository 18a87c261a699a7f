from __future__ import annotations

import select
import threading
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from proxystore_endpoint.transports.driver import _RECORD, _joined
from proxystore_endpoint.transports.waker import Waker

sizes = st.lists(
    st.one_of(
        st.integers(1, 100), st.integers(_RECORD - 20, _RECORD + 20), st.integers(30_000, 300_000)
    ),
    max_size=12,
)


@given(sizes)
def test_joined_parts_are_the_same_bytes_in_fewer_records(lengths: list[int]) -> None:
    parts = [bytes([index % 251]) * length for index, length in enumerate(lengths)]
    joined = _joined(list(parts))
    assert b"".join(bytes(part) for part in joined) == b"".join(parts)
    records = sum(-(-len(part) // _RECORD) for part in joined)
    assert records <= sum(-(-length // _RECORD) for length in lengths)
    for part, following in pairwise(joined):
        assert len(part) >= _RECORD or len(part) + len(following) > _RECORD


def test_the_body_of_a_large_frame_is_not_copied() -> None:
    body = bytes(300_000)
    head, rest = _joined([b"h" * 16, body])
    assert len(head) == _RECORD
    assert isinstance(rest, memoryview)
    assert rest.obj is body


def readable(waker: Waker) -> bool:
    poll = select.poll()
    poll.register(waker.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def test_a_waker_wakes_once_however_often_it_was_called() -> None:
    waker = Waker()
    assert not readable(waker)
    threads = [threading.Thread(target=waker.wake) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert readable(waker)
    waker.clear()
    assert not readable(waker)
    waker.wake()
    assert readable(waker)
    waker.close()
    waker.close()
    waker.wake()  # does nothing any more
    waker.clear()
