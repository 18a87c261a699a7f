"""What a connector is: one small protocol, and one more for each further ability.

Every channel implements `Connector`. What only some channels can do is a
protocol of its own, tested with `isinstance`, so that nothing ever raises
`NotImplementedError`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol, Self, TypeVar, runtime_checkable

from proxystore_core.exceptions import MissingReason
from proxystore_core.serialize import BytesLike

KeyT = TypeVar("KeyT", bound=tuple[Any, ...])
KeyT_co = TypeVar("KeyT_co", bound=tuple[Any, ...], covariant=True)
KeyT_contra = TypeVar("KeyT_contra", bound=tuple[Any, ...], contravariant=True)


@runtime_checkable
class Connector(Protocol[KeyT]):
    """A channel that carries bytes from a producer to consumers.

    Keys are hashable, picklable `NamedTuple`s of strings and integers.
    """

    def put(self, obj: BytesLike) -> KeyT:
        """Store bytes and return the key they lie under."""
        ...

    def put_batch(self, objs: Sequence[BytesLike]) -> list[KeyT]:
        """Store several objects; all are stored, or none."""
        ...

    def get(self, key: KeyT) -> BytesLike | None:
        """Return the bytes of a key (read-only), or `None` where there are none."""
        ...

    def get_batch(self, keys: Sequence[KeyT]) -> list[BytesLike | None]:
        """Return the bytes of several keys, in their order."""
        ...

    def exists(self, key: KeyT) -> bool:
        """Tell whether the key has an object."""
        ...

    def evict(self, key: KeyT) -> None:
        """Remove the object of a key; removing nothing is no error."""
        ...

    def config(self) -> dict[str, Any]:
        """Return what `from_config` needs, of JSON types only and small."""
        ...

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Connector[KeyT]:
        """Make a connector of the same channel, in this or another process."""
        ...

    def close(self) -> None:
        """Let go of resources; calling it twice is no error."""
        ...


@runtime_checkable
class DeferrableConnector(Protocol[KeyT]):
    """A connector that can make a key before there is an object."""

    def new_key(self, obj: BytesLike | None = None) -> KeyT:
        """Return a key that `set` takes later."""
        ...

    def set(self, key: KeyT, obj: BytesLike) -> None:
        """Store bytes under a key of `new_key`; readers see all of them or none."""
        ...


@runtime_checkable
class VectoredConnector(Protocol[KeyT_co]):
    """A connector that writes the parts of an object in place, without joining them."""

    def put_parts(self, parts: Sequence[BytesLike]) -> KeyT_co:
        """Store the concatenation of the parts."""
        ...


@runtime_checkable
class VectoredDeferrableConnector(Protocol[KeyT_contra]):
    """A deferrable connector that writes the parts of an object in place."""

    def set_parts(self, key: KeyT_contra, parts: Sequence[BytesLike]) -> None:
        """Store the concatenation of the parts under a key of `new_key`."""
        ...


@runtime_checkable
class ZeroCopyConnector(Protocol[KeyT_contra]):
    """A connector whose objects can be mapped instead of read."""

    def get_view(self, key: KeyT_contra) -> memoryview | None:
        """Map the object of a key.

        Returns:
            A writable view of private, copy-on-write pages: reading shares the
            pages of the channel, writing changes only this view. The view, and
            everything made from it, holds the mapping. `None` where there is no
            object.
        """
        ...


class Reservation(Protocol):
    """Room in a channel for one object, filled in place and then published or abandoned.

    Either may be called from another thread than the one that fills; the first one
    counts. As a context manager it is abandoned at the end unless it was published, and so
    is one that is collected.
    """

    @property
    def buffer(self) -> memoryview:
        """The writable memory of the object: `nbytes` bytes, of format `B`.

        Nothing may be written to it, or to a view of it, after `publish`.
        """
        ...

    def publish(self) -> None:
        """Make the bytes the object of the key, as `set` does: readers see all or none.

        Raises:
            ReservationError: It was published or abandoned before.
        """
        ...

    def abandon(self) -> None:
        """Give the room back, and leave nothing; after `publish` this does nothing."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc_info: object) -> None: ...


@runtime_checkable
class ReservingConnector(Protocol[KeyT_contra]):
    """A connector that lends the memory an object will lie in before its bytes are there.

    So bytes that come from a socket, or are computed, are written once, where
    they stay. The room is counted from `reserve` on.
    """

    def reserve(self, key: KeyT_contra, nbytes: int) -> Reservation:
        """Make room for an object.

        Args:
            key: A key of `new_key`.
            nbytes: Its length in bytes, exactly.

        Raises:
            StorageFullError: There is no room.
        """
        ...


@runtime_checkable
class EnumerableConnector(Protocol[KeyT_co]):
    """A connector that can tell which objects it holds."""

    def keys(self) -> Iterator[KeyT_co]:
        """Iterate over the keys of all objects in the channel."""
        ...


class Usage(NamedTuple):
    """What a channel holds.

    Attributes:
        objects: Number of objects.
        nbytes: Bytes of these objects.
        reserved: Bytes kept beside them for reuse.
        limit: Bytes allowed, or `None` for no limit.
    """

    objects: int
    nbytes: int
    reserved: int = 0
    limit: int | None = None


@runtime_checkable
class AccountingConnector(Protocol):
    """A connector that knows how much it holds."""

    def usage(self) -> Usage:
        """Count what the channel holds now."""
        ...


@runtime_checkable
class ExplainingConnector(Protocol[KeyT_contra]):
    """A connector that remembers what became of a key."""

    def missing_reason(self, key: KeyT_contra) -> MissingReason:
        """Say why a key has no object; called only after `get` found none."""
        ...

    def expire(self, key: KeyT_contra) -> None:
        """Remove the object of a key as `evict` does, and remember it as expired."""
        ...


@runtime_checkable
class VersionedConnector(Protocol[KeyT_contra]):
    """A connector that can tell whether `set` replaced an object since it was read."""

    def version(self, key: KeyT_contra) -> object | None:
        """Return what differs after the object of a key was replaced.

        Returns:
            Something small to compare with `==`, got without the object; `None`
            where there is no object.
        """
        ...


@runtime_checkable
class TrustedConnector(Protocol):
    """A connector whose bytes need no digest: they never leave this user and node."""

    trusted: ClassVar[bool]
