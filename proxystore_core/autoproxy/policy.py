"""What travels by reference, and how it is handed in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Literal

from proxystore_core.utils.data import readable_to_bytes


@dataclass(frozen=True)
class Policy:
    """Which arguments and results travel by reference, and how the task gets them.

    Attributes:
        threshold: Smallest size that travels by reference, in bytes or as `'100 kB'`.
        types: Only objects of these types travel by reference; `None` for all.
        depth: How many levels of containers are searched; 0 searches none.
        args: Arguments travel by reference.
        results: Results travel by reference.
        resolve: `'eager'` hands the real objects to the task, `'lazy'` hands in proxies.
        writable: Arrays come as private, writable (copy-on-write) ones instead of read-only
            views.
        should_proxy: Decides for each object, containers before what is in them, instead of
            `threshold` and `types`. Must be picklable.
        exclude: Objects of these types are never touched, and not searched.
        on_unpicklable: `'raise'` an error that names the argument, or `'leave'` it in place.
        on_full: Where the store is full, pass by `'value'` with a warning, or `'raise'`.

    Raises:
        ValueError: If a value is out of range.
        TypeError: If a value is of the wrong type.
    """

    threshold: int | str = "100 kB"
    types: tuple[type, ...] | None = None
    depth: int = 4
    args: bool = True
    results: bool = True
    resolve: Literal["eager", "lazy"] = "eager"
    writable: bool = False
    should_proxy: Callable[[Any], bool] | None = None
    exclude: tuple[type, ...] = ()
    on_unpicklable: Literal["raise", "leave"] = "raise"
    on_full: Literal["value", "raise"] = "value"

    def __post_init__(self) -> None:
        object.__setattr__(self, "nbytes", _parse_threshold(self.threshold))
        object.__setattr__(self, "types", _type_tuple("types", self.types))
        object.__setattr__(self, "exclude", _type_tuple("exclude", self.exclude) or ())
        if isinstance(self.depth, bool) or not isinstance(self.depth, int):
            raise TypeError(f"depth must be an int, not {type(self.depth).__name__}.")
        if self.depth < 0:
            raise ValueError(f"depth must be 0 (search no containers) or more, not {self.depth}.")
        if self.should_proxy is not None and not callable(self.should_proxy):
            raise TypeError(
                "should_proxy must be a callable that takes an object and returns a bool, "
                f"not {type(self.should_proxy).__name__}."
            )
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                choices = " or ".join(repr(choice) for choice in allowed)
                raise ValueError(f"{name} must be {choices}, not {getattr(self, name)!r}.")

    nbytes = 0  # the threshold in bytes; no annotation: no field

    def changes(self) -> dict[str, Any]:
        """Return the settings that differ from the defaults."""
        found = {}
        for name, default in _DEFAULTS.items():
            value = getattr(self, name)
            if value is not default and value != default:
                found[name] = value
        return found

    def __reduce__(self) -> tuple[Any, ...]:
        return _policy, (self.changes(),)


_CHOICES: dict[str, tuple[str, ...]] = {
    "resolve": ("eager", "lazy"),
    "on_unpicklable": ("raise", "leave"),
    "on_full": ("value", "raise"),
}
_DEFAULTS = {field.name: field.default for field in fields(Policy)}


def _policy(changes: dict[str, Any]) -> Policy:
    return Policy(**changes)


def _parse_threshold(value: int | str) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise TypeError(
            f"threshold must be a number of bytes or a string as '100 kB', "
            f"not {type(value).__name__}."
        )
    try:
        nbytes = readable_to_bytes(value) if isinstance(value, str) else value
    except ValueError as error:
        raise ValueError(f"threshold: {error}") from None
    if nbytes < 0:
        raise ValueError(f"threshold must be 0 bytes or more, not {value!r}.")
    return nbytes


def _type_tuple(name: str, value: Any) -> tuple[type, ...] | None:
    if value is None:
        return None
    if isinstance(value, type):
        return (value,)
    found = tuple(value)
    for item in found:
        if not isinstance(item, type):
            raise TypeError(f"{name} must hold types, not {item!r}.")
    return found
