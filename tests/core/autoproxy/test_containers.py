from __future__ import annotations

import dataclasses
from collections import OrderedDict, defaultdict, namedtuple
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxystore_core.autoproxy import walk
from proxystore_core.autoproxy.containers import shape_of


class Leaf:
    """Stands for something large."""

    def __init__(self, name: int) -> None:
        self.name = name


class Point(NamedTuple):
    x: Any
    y: Any


@dataclasses.dataclass
class Plain:
    a: Any
    b: Any = 2


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    a: Any
    b: Any = 2


@dataclasses.dataclass
class WithInit:
    a: Any
    seen: list[Any] = dataclasses.field(init=False, default_factory=list)
    scale: dataclasses.InitVar[int] = 1

    def __post_init__(self, scale: int) -> None:
        self.seen = [scale]


def replace(obj: Any) -> Any:
    return ("new", obj.name) if type(obj) is Leaf else obj


def same(obj: Any) -> Any:
    return obj


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([1, Leaf(1)], [1, ("new", 1)]),
        ((1, Leaf(1)), (1, ("new", 1))),
        ({"a": Leaf(1), 2: 3}, {"a": ("new", 1), 2: 3}),
        ({Leaf(1)}, {("new", 1)}),
        (Point(Leaf(1), 2), Point(("new", 1), 2)),
        (Plain(Leaf(1)), Plain(("new", 1))),
        (Frozen(1, [Leaf(3)]), Frozen(1, [("new", 3)])),
        (OrderedDict(b=1, a=Leaf(1)), OrderedDict(b=1, a=("new", 1))),
        ([[[Leaf(1)]]], [[[("new", 1)]]]),
    ],
)
def test_leaves_are_replaced_and_the_kind_of_container_kept(value: Any, expected: Any) -> None:
    made = walk(value, replace, depth=4)
    assert made == expected
    assert type(made) is type(expected)
    assert made is not value


def test_frozensets_and_defaultdicts() -> None:
    assert walk(frozenset([Leaf(1)]), replace, depth=1) == frozenset([("new", 1)])
    made = walk(defaultdict(list, a=Leaf(1)), replace, depth=1)
    assert made == {"a": ("new", 1)}
    assert made["other"] == []


def test_keys_are_not_touched() -> None:
    key = Leaf(1)
    assert walk({key: 1}, replace, depth=3) == {key: 1}


def test_post_init_and_validators_do_not_run_again() -> None:
    value = WithInit(Leaf(1), scale=5)
    made = walk(value, replace, depth=2)
    assert made.a == ("new", 1)
    assert made.seen == [5]
    assert isinstance(value.a, Leaf)


def test_attributes_beside_the_fields_stay() -> None:
    value = Plain(Leaf(1))
    value.extra = "kept"  # type: ignore[attr-defined]
    assert walk(value, replace, depth=1).extra == "kept"


def test_attrs_classes() -> None:
    attr = pytest.importorskip("attr")
    cls = attr.make_class("Made", ["a", "b"], slots=True, frozen=True)
    made = walk(cls(Leaf(1), 2), replace, depth=1)
    assert type(made) is cls
    assert made == cls(("new", 1), 2)


def test_depth_bounds_the_search() -> None:
    value = [[Leaf(1)]]
    seen: list[Any] = []
    walk(value, lambda leaf: seen.append(leaf) or leaf, depth=1)
    assert seen == [value[0]]
    assert walk(value, replace, depth=1) is value
    assert walk(value, replace, depth=0) is value
    assert walk(value, replace, depth=2) == [[("new", 1)]]


def test_shared_objects_are_visited_once_and_stay_shared() -> None:
    leaf, calls = Leaf(1), []

    def visit(obj: Any) -> Any:
        calls.append(obj)
        return replace(obj)

    inner = [leaf]
    made = walk({"a": inner, "b": inner, "c": leaf}, visit, depth=3)
    assert calls == [leaf]
    assert made["a"] is made["b"]
    assert made["c"] is made["a"][0]


def test_an_object_that_contains_itself_is_returned_as_it_is() -> None:
    value: list[Any] = [Leaf(1)]
    value.append(value)
    assert walk(value, replace, depth=10) is value
    table: dict[str, Any] = {"leaf": Leaf(1)}
    table["me"] = (table,)
    assert walk(table, replace, depth=10) is table


def test_only_limits_the_visits() -> None:
    seen: list[Any] = []
    leaf = Leaf(1)
    walk([1, "a", leaf, [2.0]], lambda x: seen.append(x) or x, depth=3, only=[Leaf])
    assert seen == [leaf]


def test_classes_that_pickle_in_their_own_way_are_left_alone() -> None:
    @dataclasses.dataclass
    class Own:
        a: Any

        def __reduce__(self) -> tuple[Any, ...]:
            return Own, (self.a,)

    @dataclasses.dataclass
    class OwnState:
        a: Any

        def __getstate__(self) -> Any:
            return {"a": 1}

    class Tuple(tuple[Any, ...]):
        pass

    class Dict(dict[str, Any]):
        pass

    for value in (Own(Leaf(1)), OwnState(Leaf(1)), Tuple([Leaf(1)]), Dict(a=Leaf(1))):
        assert walk(value, replace, depth=3) is value


def test_errors_and_classes_are_no_containers() -> None:
    @dataclasses.dataclass
    class Problem(Exception):
        a: Any

    assert shape_of(Problem) is None
    assert walk(Plain, replace, depth=3) is Plain


pair = namedtuple("pair", ["x", "y"])
atoms = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)
hashable = st.recursive(
    atoms, lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=1), max_leaves=5
)
values = st.recursive(
    atoms | hashable,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner)
        | st.dictionaries(st.text(max_size=2), inner, max_size=3)
        | st.builds(Plain, inner, inner)
        | st.builds(Frozen, inner, inner)
        | st.builds(pair, inner, inner)
    ),
    max_leaves=12,
)


@given(values, st.integers(0, 6))
def test_nothing_changes_where_no_leaf_does(value: Any, depth: int) -> None:
    assert walk(value, same, depth=depth) is value


@given(values)
def test_there_and_back_again(value: Any) -> None:
    """Replacing every leaf, and then every replacement, gives an equal object."""
    boxed = walk(value, Box, depth=50)
    assert repr(walk(boxed, lambda box: box.obj, depth=50, only=[Box])) == repr(value)


class Box:
    def __init__(self, obj: Any) -> None:
        self.obj = obj

    def __eq__(self, other: object) -> bool:
        return type(other) is Box and repr(other.obj) == repr(self.obj)

    def __hash__(self) -> int:
        return hash(repr(self.obj))
