from __future__ import annotations

import pytest

from proxystore_core.utils.timer import Timer


def test_a_block_is_timed() -> None:
    with Timer() as timer, pytest.raises(RuntimeError, match="still running"):
        _ = timer.elapsed_ns
    assert timer.elapsed_ns > 0
    assert timer.elapsed_ms == timer.elapsed_ns / 1e6
    assert timer.elapsed_s == timer.elapsed_ns / 1e9


def test_start_and_stop() -> None:
    timer = Timer().start()
    first = timer.stop().elapsed_ns
    timer.start()
    assert timer.stop().elapsed_ns != first or first > 0
