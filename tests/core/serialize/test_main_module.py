"""Classes and functions of a script reach workers that run another one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = '''
import concurrent.futures, dataclasses, enum, multiprocessing, subprocess, sys, threading
from proxystore_core.serialize import deserialize, serialize


class Color(enum.Enum):
    RED = 1


@dataclasses.dataclass
class Point:
    x: int
    color: Color = Color.RED

    def doubled(self):
        return Point(self.x * 2)


def increment(x):
    return x + 1


class Locked:
    lock = threading.Lock()  # so its definition cannot be sent


def same_script(stored):
    loaded = deserialize(stored)
    assert isinstance(loaded["point"], Point), type(loaded["point"])
    assert loaded["point"].color is Color.RED
    assert loaded["class"] is Point
    assert loaded["function"] is increment
    return serialize([loaded["point"].doubled(), loaded["function"]])


OTHER = """
import sys
from proxystore_core.serialize import deserialize, serialize
stored = sys.stdin.buffer.read()
loaded, again = deserialize(stored), deserialize(stored)
assert type(loaded["point"]) is loaded["class"] is again["class"]
assert loaded["function"](1) == 2
assert loaded["lambda"](1) == 3
sys.stdout.buffer.write(serialize([loaded["point"].doubled(), loaded["point"].color]))
"""

if __name__ == "__main__":
    def late(x):
        return x + 2

    content = {"point": Point(3), "class": Point, "function": increment}
    stored = serialize(content)
    same_script(stored)
    for method in sys.argv[1:]:
        context = multiprocessing.get_context(method)
        with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
            point, function = deserialize(pool.submit(same_script, stored).result())
        assert type(point) is Point and point.x == 6 and function is increment
    stored = serialize(content | {"lambda": lambda x: late(x)})
    done = subprocess.run(
        [sys.executable, "-c", OTHER], input=stored, stdout=subprocess.PIPE, check=True
    )
    point, color = deserialize(done.stdout)
    assert type(point) is Point and point.x == 6 and color is Color.RED
    locked = deserialize(serialize(Locked()))
    assert type(locked) is Locked
    print("done")
'''


def test_definitions_travel_where_they_are_needed(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, script, "fork", "spawn"], capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "done\n", done.stderr


def test_definitions_of_a_session_without_a_file() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, "fork"], capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "done\n", done.stderr
