"""From objects to their stored form and back, by the default or by functions of the user."""

from __future__ import annotations

from typing import Any

from proxystore_core.exceptions import CorruptObjectError, SerializationError
from proxystore_core.serialize import (
    BytesLike,
    Parts,
    deserialize,
    dump,
    dump_raw,
    is_bytes_like,
    load,
    load_raw,
    read_header,
    serialize,
)
from proxystore_core.store._outcome import IDENTIFIER as _OUTCOME
from proxystore_core.store.types import DeserializerT, SerializerT

_RAW = dump_raw(b"").serializer


class Codec:
    """How a store serializes.

    Args:
        serializer: Serializer of the store; `None` for the default.
        deserializer: Deserializer of the store; `None` for the default.
        verify: Whether digests must be there and right; `None` checks those
            that are there.
        digest: Whether to write digests.
    """

    def __init__(
        self,
        serializer: SerializerT | None,
        deserializer: DeserializerT | None,
        *,
        verify: bool | None,
        digest: bool,
    ) -> None:
        self.custom_serializer = serializer
        self.custom_deserializer = deserializer
        self._verify = verify
        self._digest = digest

    @property
    def serializer(self) -> SerializerT:
        """The serializer, as a function."""
        return self.custom_serializer or serialize

    @property
    def deserializer(self) -> DeserializerT:
        """The deserializer, as a function."""
        return self.custom_deserializer or deserialize

    def is_custom(self, serializer: SerializerT | None, deserializer: DeserializerT | None) -> bool:
        """Tell whether functions of the user take part, for one object or for all."""
        return any(
            function is not None and function not in (serialize, deserialize)
            for function in (
                serializer or self.custom_serializer,
                deserializer or self.custom_deserializer,
            )
        )

    def dump(self, obj: Any, serializer: SerializerT | None = None) -> Parts:
        """Serialize an object.

        Raises:
            SerializationError: If it cannot be, or if the serializer of the user
                returns something else than bytes.
        """
        serializer = serializer or self.custom_serializer
        if serializer is None or serializer is serialize:
            return dump(obj, digest=self._digest)
        data = serializer(obj)
        if not is_bytes_like(data):
            raise SerializationError(
                f"The serializer {serializer!r} returned {type(data).__name__}: "
                "it must return bytes, a bytearray or a memoryview."
            )
        return dump_raw(data, digest=self._digest)

    def load(
        self,
        buffer: BytesLike,
        checked: bool,
        deserializer: DeserializerT | None = None,
        writable: bool = False,
    ) -> Any:
        """Deserialize an object.

        Args:
            buffer: Its stored form.
            checked: Whether its digest was checked before.
            deserializer: Deserializer of this object; `None` for that of the store.
            writable: Hand out arrays that can be written to.

        Raises:
            SerializationError: If it cannot be.
            CorruptObjectError: If the bytes are not those that were stored.
        """
        verify = False if checked else self._verify
        deserializer = deserializer or self.custom_deserializer
        if deserializer is None or deserializer is deserialize:
            try:
                return load(buffer, verify=verify, writable=writable)
            except SerializationError as error:
                if read_header(buffer).serializer != _RAW:
                    raise
                # A serializer of the user made it, perhaps by way of `serialize`.
                try:
                    return load(load_raw(buffer, verify=verify), writable=writable)
                except CorruptObjectError:
                    raise error from None
        made_by = read_header(buffer).serializer
        if made_by == _OUTCOME:  # of a future: no affair of the user's functions
            return load(buffer, verify=verify)
        raw = made_by == _RAW
        data = bytes(load_raw(buffer, verify=verify)) if raw else bytes(buffer)
        try:
            return deserializer(data)
        except Exception as error:
            raise SerializationError(
                f"The deserializer {deserializer!r} failed: {type(error).__name__}: {error}"
            ) from error
