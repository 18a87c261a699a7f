"""Beside the object itself, `dump` and `load` take next to no memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

MAKES_OBJECTS = {"bytes", "bytes in a dict", "bytearray"}  # which cannot be views


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux")
def test_peak_memory_beside_the_object_is_at_most_a_tenth() -> None:
    for module in ("pandas", "polars", "pyarrow"):
        pytest.importorskip(module)
    script = Path(__file__).with_name("peak_memory.py")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert len(lines) == 13
    for name, *numbers in lines:
        nbytes, dumped, loading = map(int, numbers)
        assert nbytes > 20_000_000, name
        assert dumped < 0.1 * nbytes, f"dump of {name}: {dumped} beside {nbytes}"
        own = nbytes if name in MAKES_OBJECTS else 0
        assert loading - own < 0.1 * nbytes, f"load of {name}: {loading} beside {nbytes}"
