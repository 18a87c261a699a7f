"""What requests say in their query and headers."""

from __future__ import annotations

import base64
import binascii
import math
import re
import uuid
from typing import cast

from quart import request

from proxystore_endpoint.app import limits
from proxystore_endpoint.app.errors import ApiError, bad_request
from proxystore_endpoint.storage import Durability

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})\Z")
_DIGEST = re.compile(r"(?:^|,)\s*sha-256=:([A-Za-z0-9+/=]{44}):")
_DURABILITIES = ("memory", "spill", "durable")


def key_argument() -> str:
    """Return `key=`.

    Raises:
        ApiError: There is none.
    """
    key = request.args.get("key")
    if not key:
        raise bad_request("The request has no key.", "Add ?key=...")
    return key


def endpoint_argument() -> str | None:
    """Return `endpoint=`, the endpoint that the object belongs to, if it is there.

    Raises:
        ApiError: It is no UUID.
    """
    text = request.args.get("endpoint")
    if not text:
        return None
    try:
        return str(uuid.UUID(text))
    except ValueError:
        raise bad_request(f"endpoint={text[:100]!r} is no UUID.") from None


def _seconds(name: str) -> float | None:
    text = request.args.get(name)
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not (value > 0 and math.isfinite(value)):
        raise bad_request(f"{name}={text[:100]!r} is no number of seconds.")
    return value


def ttl_argument() -> float | None:
    """Return `ttl=` in seconds, if it is there.

    Raises:
        ApiError: It is none.
    """
    return _seconds("ttl")


def timeout_argument(default: float) -> float:
    """Return `timeout=` in seconds, or the default.

    Raises:
        ApiError: It is none.
    """
    value = _seconds("timeout")
    return default if value is None else min(value, limits.MAX_TIMEOUT_S)


def durability_argument() -> Durability | None:
    """Return `durability=`, if it is there.

    Raises:
        ApiError: It is none.
    """
    text = request.args.get("durability")
    if text is None:
        return None
    if text not in _DURABILITIES:
        raise bad_request(f"durability={text[:100]!r} is none of {', '.join(_DURABILITIES)}.")
    return cast("Durability", text)


def digest_header() -> bytes | None:
    """Return the SHA-256 that the client says its body has (RFC 9530), if it says so.

    Raises:
        ApiError: It cannot be read.
    """
    text = request.headers.get("Content-Digest", "")
    if "sha-256=" not in text:
        return None
    found = _DIGEST.search(text)
    try:
        if found is not None:
            return base64.b64decode(found[1], validate=True)
    except binascii.Error:
        pass
    raise bad_request("The header Content-Digest cannot be read.", "See RFC 9530.")


def length_header() -> int | None:
    """Return the length that the client says its body has; `None` for one in chunks."""
    if "Transfer-Encoding" in request.headers:
        return None
    return request.content_length or 0


def range_header(nbytes: int, etag: str) -> tuple[int, int] | None:
    """Return which part of an object is wanted (RFC 9110, section 14).

    Args:
        nbytes: Its length.
        etag: Its digest.

    Returns:
        First byte and the one after the last; `None` for all of it. More than one range is
        answered with all, as the RFC allows.

    Raises:
        ApiError: It has no such bytes.
    """
    text = request.headers.get("Range")
    found = _RANGE.match(text.replace(" ", "")) if text else None
    if found is None or found[0] == "bytes=-":
        return None
    condition = request.headers.get("If-Range")
    if condition is not None and condition.strip() != f'"{etag}"':
        return None
    first, last = found.groups()
    if not first:
        start, stop = max(nbytes - int(last), 0), nbytes
    else:
        start, stop = int(first), min(int(last) + 1, nbytes) if last else nbytes
        if last and int(last) < start:
            return None
    if start >= stop:
        raise ApiError(
            416,
            "bad_range",
            f"The object has {nbytes} bytes, and {text!r} asks for others.",
            headers={"Content-Range": f"bytes */{nbytes}"},
        )
    return start, stop


def wants_none_of(etag: str) -> bool:
    """Tell whether the client has this very object already (`If-None-Match`)."""
    text = request.headers.get("If-None-Match", "")
    tags = [tag.strip().removeprefix("W/") for tag in text.split(",")]
    return f'"{etag}"' in tags or "*" in tags
