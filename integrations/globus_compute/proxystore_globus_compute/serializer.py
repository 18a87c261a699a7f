"""The serializer of a client, aware of what was serialized before and of our functions."""

from __future__ import annotations

from typing import Any

from globus_compute_sdk.serialize import ComputeSerializer, SerializationStrategy

from proxystore_globus_compute.payloads import ReadyArgs, ReadyKwargs
from proxystore_globus_compute.source import serialize_function
from proxystore_globus_compute.worker import RemoteFunction


class ProxySerializer(ComputeSerializer):
    """Stands before the serializer of a client, and does as that one does.

    Args:
        inner: The serializer that was there; `None` for the SDK's default.
    """

    def __init__(self, inner: ComputeSerializer | None = None) -> None:
        self.inner = ComputeSerializer() if inner is None else inner

    @property
    def code_serializer(self) -> SerializationStrategy:  # type: ignore[override]  # set there
        """The strategy for functions."""
        return self.inner.code_serializer

    @property
    def data_serializer(self) -> SerializationStrategy:  # type: ignore[override]  # set there
        """The strategy for arguments."""
        return self.inner.data_serializer

    @property
    def allowed_deserializer_types(self) -> set[type[SerializationStrategy]]:  # type: ignore[override]  # set there
        """The strategies of which results are taken; empty for all."""
        return self.inner.allowed_deserializer_types

    def serialize(self, data: Any) -> str:
        """Serialize a function, or the arguments of a call; raises as the SDK does."""
        if type(data) is ReadyArgs or type(data) is ReadyKwargs:
            return data.payload
        if isinstance(data, RemoteFunction):
            return serialize_function(self.inner, data)
        return self.inner.serialize(data)

    def deserialize(self, payload: str) -> Any:
        """Deserialize a result; raises as the SDK does."""
        return self.inner.deserialize(payload)


def aware(serializer: ComputeSerializer) -> ProxySerializer:
    """Return a serializer that knows of our functions and arguments."""
    return serializer if isinstance(serializer, ProxySerializer) else ProxySerializer(serializer)
