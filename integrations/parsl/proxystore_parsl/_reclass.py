"""Giving one object a further base class.

Parsl asks with `isinstance`, and reads and writes attributes of what is plugged
into it, so an object that stands before another one does not do.
"""

from __future__ import annotations

import types
from functools import cache
from typing import TypeVar

T = TypeVar("T")


@cache
def derive(mixin: type[T], cls: type) -> type[T]:
    """Return a class with the methods of `mixin` before those of `cls`; always the same one."""
    return types.new_class(f"Proxy{cls.__name__}", (mixin, cls))


def reclass(obj: object, cls: type) -> None:
    """Make an object an instance of another class."""
    obj.__class__ = cls
