"""Types that the modules of the store share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

from proxystore_core.connectors.protocols import Connector
from proxystore_core.serialize import BytesLike

ConnectorT = TypeVar("ConnectorT", bound=Connector[Any])
"""A connector."""
ConnectorKeyT: TypeAlias = tuple[Any, ...]
"""The key of an object: a named tuple of strings and integers."""
SerializerT: TypeAlias = Callable[[Any], BytesLike]
"""Turns an object into bytes."""
DeserializerT: TypeAlias = Callable[[BytesLike], Any]
"""Turns the bytes of a serializer, handed in as `bytes`, back into an object."""
