"""The public registry of serializers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from proxystore_core.exceptions import SerializationError
from proxystore_core.serialize import (
    BytesLike,
    Serializer,
    dump,
    get_serializer,
    load,
    register_serializer,
    unregister_serializer,
)


class Point:
    def __init__(self, x: int) -> None:
        self.x = x

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.x == self.x  # type: ignore[attr-defined]

    __hash__ = None  # type: ignore[assignment]


class SubPoint(Point):
    pass


class PointSerializer:
    identifier = "test.point"

    def __init__(self, made: type[Point] = Point) -> None:
        self.made = made

    def dump(self, obj: Point) -> tuple[BytesLike, Sequence[BytesLike]]:
        return str(obj.x).encode(), ()

    def load(self, data: memoryview, buffers: Sequence[memoryview]) -> Point:
        return self.made(int(bytes(data)))


class Declining(PointSerializer):
    def dump(self, obj: Point) -> Any:
        return None


class Failing(PointSerializer):
    def dump(self, obj: Point) -> Any:
        raise ZeroDivisionError("no")


@pytest.fixture(autouse=True)
def registered_nothing() -> Iterator[None]:
    yield
    for name in ("test.point", "test.other", "test.pieces"):
        try:
            unregister_serializer(name)
        except KeyError:
            continue


def test_a_registered_serializer_is_used() -> None:
    register_serializer(Point, PointSerializer())
    parts = dump(Point(3))
    assert parts.serializer == "test.point"
    assert load(parts.tobytes()) == Point(3)
    assert isinstance(get_serializer(Point(1)), PointSerializer)
    assert isinstance(get_serializer(Point(1)), Serializer)


def test_types_by_name_are_found_without_an_import() -> None:
    register_serializer(f"{__name__}:Point", PointSerializer())
    assert dump(Point(3)).serializer == "test.point"
    assert dump(Point(3)).serializer == "test.point"


def test_a_name_replaces_what_was_bound_to_the_type() -> None:
    register_serializer(f"{__name__}:Point", PointSerializer())
    assert dump(Point(3)).serializer == "test.point"
    other = PointSerializer()
    other.identifier = "test.other"
    register_serializer(f"{__name__}:Point", other, exist_ok=True)
    assert dump(Point(3)).serializer == "test.other"


@pytest.mark.parametrize("subclasses", [True, False])
@pytest.mark.parametrize("spec", [Point, f"{__name__}:Point"])
def test_subclasses_only_where_wanted(spec: type | str, subclasses: bool) -> None:
    register_serializer(spec, PointSerializer(SubPoint), subclasses=subclasses)
    assert dump(Point(3)).serializer == "test.point"
    assert dump(SubPoint(3)).serializer == ("test.point" if subclasses else "pickle")
    assert load(dump(SubPoint(3)).tobytes()) == SubPoint(3)


def test_the_closest_class_wins() -> None:
    other = PointSerializer(SubPoint)
    other.identifier = "test.other"
    register_serializer((Point,), PointSerializer())
    register_serializer(SubPoint, other)
    assert dump(SubPoint(3)).serializer == "test.other"
    assert dump(Point(3)).serializer == "test.point"


def test_a_builtin_type_that_pickle_took_before() -> None:
    assert dump([1]).serializer == "pickle"

    class Lists(PointSerializer):
        def dump(self, obj: Any) -> tuple[BytesLike, Sequence[BytesLike]]:
            return b"", [bytes(obj)]

        def load(self, data: memoryview, buffers: Sequence[memoryview]) -> Any:
            return list(buffers[0])

    register_serializer(list, Lists())
    assert dump([1, 2]).serializer == "test.point"
    assert load(dump([1, 2]).tobytes()) == [1, 2]
    unregister_serializer("test.point")
    assert dump([1]).serializer == "pickle"


def test_declined_objects_are_pickled() -> None:
    register_serializer(Point, Declining())
    assert dump(Point(3)).serializer == "pickle"
    assert load(dump(Point(3)).tobytes()) == Point(3)


def test_a_failing_serializer_is_named() -> None:
    register_serializer(Point, Failing())
    with pytest.raises(SerializationError, match=r"Point.*'test.point'.*ZeroDivisionError") as info:
        dump(Point(3))
    assert isinstance(info.value.__cause__, ZeroDivisionError)


def test_taken_identifiers_and_types() -> None:
    serializer = PointSerializer()
    register_serializer(Point, serializer)
    register_serializer("no.such:Thing", serializer)  # one serializer, more types
    with pytest.raises(ValueError, match=r"'test\.point' is registered already"):
        register_serializer(SubPoint, PointSerializer())
    other = PointSerializer()
    other.identifier = "test.other"
    with pytest.raises(ValueError, match=r"Point.* is registered already"):
        register_serializer(Point, other)
    with pytest.raises(ValueError, match=r"'no\.such:Thing' is registered already"):
        register_serializer("no.such:Thing", other)
    assert dump(Point(1)).serializer == "test.point"
    register_serializer(SubPoint, PointSerializer(), exist_ok=True)
    assert dump(Point(1)).serializer == "pickle"  # it belonged to the replaced one


def test_unregistered_objects_say_what_to_do() -> None:
    register_serializer(Point, PointSerializer())
    stored = dump(Point(3)).tobytes()
    unregister_serializer("test.point")
    with pytest.raises(SerializationError, match=r"'test\.point'.*register_serializer"):
        load(stored)
    with pytest.raises(KeyError, match=r"test\.point"):
        unregister_serializer("test.point")
    with pytest.raises(ValueError, match="cannot be unregistered"):
        unregister_serializer("pickle")


@pytest.mark.parametrize("name", ["", "x" * 17, "ü", "a\n", "raw", 3])
def test_malformed_identifiers(name: Any) -> None:
    serializer = PointSerializer()
    serializer.identifier = name
    with pytest.raises(ValueError, match="identifier"):
        register_serializer(Point, serializer)


@pytest.mark.parametrize("spec", ["", "Point", "module:", ":Point"])
def test_malformed_names(spec: str) -> None:
    with pytest.raises(ValueError, match=r"package\.module:Class"):
        register_serializer(spec, PointSerializer())


def test_what_is_no_type_and_no_serializer() -> None:
    with pytest.raises(TypeError, match="a type or its name"):
        register_serializer(3, PointSerializer())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="`identifier`, `dump` and `load`"):
        register_serializer(Point, object())  # type: ignore[arg-type]


def test_writable_serializers_get_memory_of_their_own() -> None:
    class Pieces:
        identifier = "test.pieces"
        writable = True

        def dump(self, obj: Point) -> Any:
            return [b"in", b"band"], [[b"out", bytearray(b"of")], memoryview(b"band")]

        def load(self, data: memoryview, buffers: Sequence[memoryview]) -> Any:
            assert bytes(data) == b"inband"
            assert bytes(buffers[1]) == b"band"
            assert not buffers[0].readonly
            buffers[0][0] = ord("O")
            return bytes(buffers[0])

    register_serializer(Point, Pieces())
    stored = bytearray(dump(Point(1)).tobytes())
    before = bytes(stored)
    assert load(stored) == b"Outof"
    assert load(bytes(stored)) == b"Outof"
    assert stored == before
    assert load(stored, writable=True) == b"Outof"
    assert stored != before
