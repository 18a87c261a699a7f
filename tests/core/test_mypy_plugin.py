"""What mypy makes of proxies with the plugin."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

api = pytest.importorskip("mypy.api")

PROGRAM = """
from typing import Any, Generic, TypeVar
from proxystore_core.proxy import Proxy, ProxyOr, extract, get_factory
from proxystore_core.store.ref import OwnedProxy, RefMutProxy, RefProxy

T = TypeVar("T")
ImageT = TypeVar("ImageT", bound="Image")

class Image:
    width: int = 1
    tags: dict[str, list[float]] = {}

    @property
    def area(self) -> float:
        return 1.0

    def scaled(self: ImageT, by: float) -> ImageT:
        return self

    @classmethod
    def blank(cls) -> "Image":
        return cls()

class Box(Generic[T]):
    def __init__(self, inside: T) -> None:
        self.inside = inside

class Png(Image): ...

class Mine(Proxy[Png]): ...

def factory() -> Image:
    return Image()

proxy = Proxy(factory)
def functions(
    owned: OwnedProxy[Image], ref: RefProxy[Image], mut: RefMutProxy[Image], either: ProxyOr[Image],
    box: Proxy[Box[str]], two: Proxy[Image] | Proxy[Box[int]], unknown: Proxy[Any], mine: Mine,
    text: Proxy[str], pair: Proxy[tuple[int, str]], sum: Proxy[Image | Png],
) -> None:
    reveal_type(proxy)  # Proxy[Image]
    reveal_type(proxy.width)  # int
    reveal_type(proxy.tags)  # dict[str, list[float]]
    reveal_type(proxy.area)  # float
    reveal_type(proxy.scaled(2))  # Image
    reveal_type(proxy.blank())  # Image
    reveal_type(owned.width)  # int
    reveal_type(ref.area)  # float
    reveal_type(mut.scaled(2))  # Image
    reveal_type(either.width)  # int
    reveal_type(box.inside)  # str
    reveal_type(unknown.width)  # Any
    reveal_type(mine.scaled(2))  # Png
    reveal_type(text.upper())  # str
    reveal_type(pair.count(1))  # int
    reveal_type(sum.width)  # int
    reveal_type(extract(owned))  # Image
    reveal_type(get_factory(proxy))  # def () -> Image
    proxy.heigth  # E: "Image" has no attribute "heigth"
    either.heigth  # E: "Image" has no attribute "heigth"
    proxy.scaled("2")  # E: Argument 1 to "scaled" of "Image" has incompatible type "str"
    proxy.width.upper()  # E: "int" has no attribute "upper"
    two.width  # E: "Box[int]" has no attribute "width"

def generic(anything: Proxy[T], image: Proxy[ImageT]) -> None:
    reveal_type(anything.width)  # Any
    reveal_type(image.width)  # int
    reveal_type(image.scaled(2))  # Image
"""


def run_mypy(tmp_path: Path) -> dict[int, list[str]]:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    config = tmp_path / "mypy.ini"
    config.write_text("[mypy]\nstrict = true\nplugins = proxystore_core.mypy_plugin\n")
    arguments = ["--config-file", str(config), "--cache-dir", str(tmp_path / "cache")]
    out, errors, _ = api.run([*arguments, "--follow-imports=silent", str(program)])
    assert not errors
    found: dict[int, list[str]] = {}
    for match in re.finditer(r"program\.py:(\d+): (\w+): (.*)", out):
        found.setdefault(int(match[1]), []).append(match[3])
    return found


def test_attributes_have_the_types_of_the_target(tmp_path: Path) -> None:
    found = run_mypy(tmp_path)
    wanted = 0
    for number, line in enumerate(PROGRAM.splitlines(), 1):
        _, _, comment = line.partition("  # ")
        messages = found.pop(number, [])
        if comment.startswith("E: "):
            assert any(comment.removeprefix("E: ") in message for message in messages), line
        elif comment:
            revealed = re.match(r'Revealed type is "(.*)"', " ".join(messages))
            assert revealed is not None, (line, messages)
            short = re.sub(r"\b[\w.]*\.(\w+)", r"\1", revealed[1]).replace("?", "")
            assert short == comment, line
        else:
            assert not messages, (line, messages)
        wanted += bool(comment)
    assert wanted > 20
    assert found == {}
