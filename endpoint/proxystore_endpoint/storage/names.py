"""Keys of objects, and the names that they have in memory and on disk."""

from __future__ import annotations

import hashlib
import os
import re

from proxystore_core.exceptions import InvalidKeyError

_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~-]{0,127}")


def check_key(key: object) -> str:
    """Return a key if it is one: up to 128 letters, digits and `._~-`, a letter or digit first.

    Raises:
        InvalidKeyError: It is none.
    """
    if isinstance(key, str) and _KEY.fullmatch(key) is not None:
        return key
    raise InvalidKeyError(
        f"{str(key)[:100]!r} is no key of an object: use up to 128 letters, digits and '._~-'."
    )


def new_key() -> str:
    """Return a key that nobody else has: 128 random bits in hex."""
    return os.urandom(16).hex()


def memory_name(endpoint_id: str, key: str) -> str:
    """Return the name that an object has in the memory of a node.

    It is a digest, so that no key can name the object of another endpoint, and of
    the form that a `SharedMemoryConnector` takes as an object id.

    Args:
        endpoint_id: UUID of the endpoint that the object belongs to, as text.
        key: Its key there.
    """
    digest = hashlib.sha256(f"{endpoint_id}/{key}".encode()).hexdigest()
    return f"{digest[:8]}-{digest[8:16]}-{digest[16:28]}"
