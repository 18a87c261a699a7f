"""Python's operators, forwarded to the target.

Each method reads the target's slot; while the slot is empty, that read falls
through to `__getattr__`, which resolves. So a resolved proxy pays for one call
and one slot, and there is no second path to keep in step. Spelled out rather
than generated: nothing to run at import, and tracebacks, editors and type
checkers see plain code.
"""

from __future__ import annotations

import math
import operator
from typing import TYPE_CHECKING, Any


class Operators:
    """Forwards every operator to `__proxy_target__`."""

    __slots__ = ("__proxy_target__",)

    if TYPE_CHECKING:
        __proxy_target__: Any
        __proxy_peek__: Any

    # Comparison

    def __lt__(self, other: Any) -> Any:
        return self.__proxy_target__ < other

    def __le__(self, other: Any) -> Any:
        return self.__proxy_target__ <= other

    def __gt__(self, other: Any) -> Any:
        return self.__proxy_target__ > other

    def __ge__(self, other: Any) -> Any:
        return self.__proxy_target__ >= other

    def __eq__(self, other: object) -> Any:
        return self.__proxy_target__ == other

    def __ne__(self, other: object) -> Any:
        return self.__proxy_target__ != other

    # Arithmetic

    def __add__(self, other: Any) -> Any:
        return self.__proxy_target__ + other

    def __sub__(self, other: Any) -> Any:
        return self.__proxy_target__ - other

    def __mul__(self, other: Any) -> Any:
        return self.__proxy_target__ * other

    def __matmul__(self, other: Any) -> Any:
        return self.__proxy_target__ @ other

    def __truediv__(self, other: Any) -> Any:
        return self.__proxy_target__ / other

    def __floordiv__(self, other: Any) -> Any:
        return self.__proxy_target__ // other

    def __mod__(self, other: Any) -> Any:
        return self.__proxy_target__ % other

    def __lshift__(self, other: Any) -> Any:
        return self.__proxy_target__ << other

    def __rshift__(self, other: Any) -> Any:
        return self.__proxy_target__ >> other

    def __and__(self, other: Any) -> Any:
        return self.__proxy_target__ & other

    def __xor__(self, other: Any) -> Any:
        return self.__proxy_target__ ^ other

    def __or__(self, other: Any) -> Any:
        return self.__proxy_target__ | other

    def __divmod__(self, other: Any) -> Any:
        return divmod(self.__proxy_target__, other)

    def __pow__(self, other: Any, mod: Any = None) -> Any:
        return pow(self.__proxy_target__, other, mod)

    def __radd__(self, other: Any) -> Any:
        return other + self.__proxy_target__

    def __rsub__(self, other: Any) -> Any:
        return other - self.__proxy_target__

    def __rmul__(self, other: Any) -> Any:
        return other * self.__proxy_target__

    def __rmatmul__(self, other: Any) -> Any:
        return other @ self.__proxy_target__

    def __rtruediv__(self, other: Any) -> Any:
        return other / self.__proxy_target__

    def __rfloordiv__(self, other: Any) -> Any:
        return other // self.__proxy_target__

    def __rmod__(self, other: Any) -> Any:
        return other % self.__proxy_target__

    def __rlshift__(self, other: Any) -> Any:
        return other << self.__proxy_target__

    def __rrshift__(self, other: Any) -> Any:
        return other >> self.__proxy_target__

    def __rand__(self, other: Any) -> Any:
        return other & self.__proxy_target__

    def __rxor__(self, other: Any) -> Any:
        return other ^ self.__proxy_target__

    def __ror__(self, other: Any) -> Any:
        return other | self.__proxy_target__

    def __rdivmod__(self, other: Any) -> Any:
        return divmod(other, self.__proxy_target__)

    def __rpow__(self, other: Any, mod: Any = None) -> Any:
        return pow(other, self.__proxy_target__, mod)

    def __iadd__(self, other: Any) -> Any:
        target = self.__proxy_target__
        target += other
        _set_target(self, target)
        return self

    def __isub__(self, other: Any) -> Any:
        target = self.__proxy_target__
        target -= other
        _set_target(self, target)
        return self

    def __imul__(self, other: Any) -> Any:
        target = self.__proxy_target__
        target *= other
        _set_target(self, target)
        return self

    def __imatmul__(self, other: Any) -> Any:
        target = self.__proxy_target__
        target @= other
        _set_target(self, target)
        return self

    def __itruediv__(self, other: Any) -> Any:
        target = self.__proxy_target__
        target /= other
        _set_target(self, target)
        return self

    def __ifloordiv__(self, other: Any) -> Any:
        target = self.__proxy_target__
        target //= other
        _set_target(self, target)
        return self

    def __imod__(self, other: Any) -> Any:
        target = self.__proxy_target__
        target %= other
        _set_target(self, target)
        return self

    def __ilshift__(self, other: Any) -> Any:
        target = self.__proxy_target__
        target <<= other
        _set_target(self, target)
        return self

    def __irshift__(self, other: Any) -> Any:
        target = self.__proxy_target__
        target >>= other
        _set_target(self, target)
        return self

    def __iand__(self, other: Any) -> Any:
        target = self.__proxy_target__
        target &= other
        _set_target(self, target)
        return self

    def __ixor__(self, other: Any) -> Any:
        target = self.__proxy_target__
        target ^= other
        _set_target(self, target)
        return self

    def __ior__(self, other: Any) -> Any:
        target = self.__proxy_target__
        target |= other
        _set_target(self, target)
        return self

    def __ipow__(self, other: Any) -> Any:  # type: ignore[misc]  # pow() takes a third
        target = self.__proxy_target__
        target **= other
        _set_target(self, target)
        return self

    def __neg__(self) -> Any:
        return -self.__proxy_target__

    def __pos__(self) -> Any:
        return +self.__proxy_target__

    def __invert__(self) -> Any:
        return ~self.__proxy_target__

    # Conversion

    def __abs__(self) -> Any:
        return abs(self.__proxy_target__)

    def __round__(self, ndigits: Any = None) -> Any:
        return (
            round(self.__proxy_target__)
            if ndigits is None
            else round(self.__proxy_target__, ndigits)
        )

    def __trunc__(self) -> Any:
        return math.trunc(self.__proxy_target__)

    def __floor__(self) -> Any:
        return math.floor(self.__proxy_target__)

    def __ceil__(self) -> Any:
        return math.ceil(self.__proxy_target__)

    def __int__(self) -> int:
        return int(self.__proxy_target__)

    def __float__(self) -> float:
        return float(self.__proxy_target__)

    def __complex__(self) -> complex:
        return complex(self.__proxy_target__)

    def __index__(self) -> int:
        return operator.index(self.__proxy_target__)

    def __str__(self) -> str:
        return str(self.__proxy_target__)

    def __bytes__(self) -> bytes:
        return bytes(self.__proxy_target__)

    def __format__(self, spec: str) -> str:
        return format(self.__proxy_target__, spec)

    def __buffer__(self, flags: int) -> memoryview:
        return memoryview(self.__proxy_target__)

    # Containers

    def __getitem__(self, key: Any) -> Any:
        return self.__proxy_target__[key]

    def __setitem__(self, key: Any, value: Any) -> None:
        self.__proxy_target__[key] = value

    def __delitem__(self, key: Any) -> None:
        del self.__proxy_target__[key]

    def __contains__(self, item: Any) -> bool:
        return item in self.__proxy_target__

    def __iter__(self) -> Any:
        return iter(self.__proxy_target__)

    def __next__(self) -> Any:
        return next(self.__proxy_target__)

    def __reversed__(self) -> Any:
        return reversed(self.__proxy_target__)

    def __length_hint__(self) -> int:
        return operator.length_hint(self.__proxy_target__)

    # Calls, contexts and classes

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:  # noqa: D102  # the target's own
        return self.__proxy_target__(*args, **kwargs)

    def __enter__(self) -> Any:
        return self.__proxy_target__.__enter__()

    def __exit__(self, *args: Any) -> Any:
        return self.__proxy_target__.__exit__(*args)

    def __instancecheck__(self, obj: Any) -> bool:
        return isinstance(obj, self.__proxy_target__)

    def __subclasscheck__(self, cls: type[Any]) -> bool:
        return issubclass(cls, self.__proxy_target__)

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[Any, ...]:
        return (self.__proxy_target__,)

    def __dir__(self) -> list[str]:
        return dir(self.__proxy_target__)

    # Coroutines

    def __await__(self) -> Any:
        return _await(self.__proxy_target__).__await__()

    def __aiter__(self) -> Any:
        return self.__proxy_target__.__aiter__()

    def __anext__(self) -> Any:
        return self.__proxy_target__.__anext__()

    def __aenter__(self) -> Any:
        return self.__proxy_target__.__aenter__()

    def __aexit__(self, *args: Any) -> Any:
        return self.__proxy_target__.__aexit__(*args)


async def _await(awaitable: Any) -> Any:
    return await awaitable


_slot: Any = Operators.__dict__["__proxy_target__"]
_set_target = _slot.__set__

# A second name of the slot, for looking without resolving: `__getattr__` answers for it while the
# slot is empty, at half the price of catching an AttributeError.
Operators.__proxy_peek__ = _slot
