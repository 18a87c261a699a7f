"""What a client makes of the answers of an endpoint's REST API."""

from __future__ import annotations

import http.client
import json
from typing import Any

from proxystore_core.exceptions import (
    CorruptObjectError,
    InvalidKeyError,
    ObjectTooLargeError,
    StorageFullError,
)
from proxystore_endpoint.exceptions import (
    AccessDeniedError,
    EndpointError,
    EndpointUnreachableError,
    PeerLostError,
    PeerRefusedError,
    PeerResponseError,
    PeerTimeoutError,
    PeerUnreachableError,
)

_ERROR_BYTES = 64 * 1024


def read_all(answer: http.client.HTTPResponse) -> memoryview:
    """Read a body into memory of its size.

    Raises:
        HTTPException: It is shorter than its length, or has none.
    """
    nbytes = answer.length
    if nbytes is None:
        raise http.client.HTTPException("its answer has no length")
    data = memoryview(bytearray(nbytes))
    at = 0
    while at < nbytes:
        count = answer.readinto(data[at:])
        if not count:
            raise http.client.IncompleteRead(b"", nbytes - at)
        at += count
    answer.read()
    return data.toreadonly()


def read_json(answer: http.client.HTTPResponse, address: str) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        EndpointUnreachableError: It is none: whatever answers is no endpoint.
    """
    raw = answer.read()
    try:
        told = json.loads(raw)
    except ValueError:
        told = None
    if not isinstance(told, dict):
        raise EndpointUnreachableError(
            f"{address} is no endpoint: its answer is no JSON.", address=address
        )
    return told


def drop_missing(answer: http.client.HTTPResponse, address: str) -> None:
    """Read an answer 404, which may also come from something that is no endpoint.

    Raises:
        EndpointUnreachableError: It did.
    """
    told = read_json(answer, address)
    if told.get("error") != "missing":
        raise EndpointUnreachableError(f"{address} is no endpoint.", address=address)


def error_of(answer: http.client.HTTPResponse, address: str, nbytes: int = 0) -> Exception:
    """Make the error that an answer tells of.

    Args:
        answer: The answer.
        address: Who gave it.
        nbytes: Length of the object that was sent.
    """
    raw = answer.read(_ERROR_BYTES)
    try:
        told = json.loads(raw)
        code, reason = str(told["error"]), str(told["reason"])
        hint = str(told.get("hint", ""))
    except (ValueError, KeyError, TypeError):
        code, hint = answer.getheader("X-Error", ""), ""
        reason = (
            f"{address} answered {answer.status} {answer.reason} ({code or 'it says no more'})."
        )
    text = f"{reason} {hint}".strip()
    match code:
        case "bad_key":
            return InvalidKeyError(text)
        case "too_large":
            return ObjectTooLargeError(text, nbytes=nbytes, limit=0)
        case "full":
            return StorageFullError(text, nbytes=nbytes)
        case "corrupt":
            return CorruptObjectError(text)
        case "refused":
            return PeerRefusedError(text)
        case "timeout":
            return PeerTimeoutError(text)
        case "lost":
            return PeerLostError(text)
        case "unreachable":
            return PeerUnreachableError(text)
        case "peer_failed":
            return PeerResponseError(text)
        case "unauthorized" | "wrong_host" | "wrong_origin":
            return AccessDeniedError(text)
        case _:
            return EndpointError(text)
