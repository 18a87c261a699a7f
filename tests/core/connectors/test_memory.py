"""How much memory there is."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxystore_core.connectors import _memory
from proxystore_core.connectors._memory import available_memory, total_memory

GB = 1 << 30


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Files of a system, as `{path: text}`, in place of the real ones."""
    read = _memory._read

    def install(files: dict[str, str]) -> None:
        for path, text in files.items():
            place = tmp_path / path.lstrip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text)
        monkeypatch.setattr(_memory, "_read", lambda path: read(f"{tmp_path}{path}"))

    return install


def test_of_this_machine() -> None:
    assert 0 < available_memory() <= total_memory()


def test_of_a_container(system) -> None:
    system(
        {
            "/proc/meminfo": "MemTotal: 99 kB\nMemAvailable: 9000000 kB\n",
            "/proc/self/cgroup": "0::/job/step\n",
            "/sys/fs/cgroup/job/step/memory.max": "max\n",
            "/sys/fs/cgroup/job/memory.max": f"{GB}\n",
            "/sys/fs/cgroup/job/memory.current": f"{GB * 3 // 4}\n",
            "/sys/fs/cgroup/job/memory.stat": f"anon 5\nfile {GB // 2}\nshmem {GB // 4}\n",
        }
    )
    assert total_memory() == GB
    assert available_memory() == GB // 2


def test_of_an_older_container(system) -> None:
    group = "/sys/fs/cgroup/memory/job/memory"
    system(
        {
            "/proc/self/cgroup": "4:memory:/job\n3:cpuset:/\n0::/\n",
            "/sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            f"{group}.limit_in_bytes": f"{GB}\n",
            f"{group}.usage_in_bytes": f"{GB // 2}\n",
            f"{group}.stat": "cache 7\ntotal_cache 3000\ntotal_shmem 1000\n",
        }
    )
    assert total_memory() == GB
    assert available_memory() == GB // 2 + 2000


def test_where_nothing_is_known(system) -> None:
    system({})
    assert total_memory() > GB
    assert available_memory() > GB
