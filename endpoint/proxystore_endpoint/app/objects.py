"""Objects over HTTP: written into their memory as they arrive, sent from it as it lies."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import tempfile
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, cast

from quart import Response, request

from proxystore_core.exceptions import MissingReason
from proxystore_endpoint.app import limits
from proxystore_endpoint.app.arguments import (
    digest_header,
    durability_argument,
    length_header,
    range_header,
    timeout_argument,
    ttl_argument,
    wants_none_of,
)
from proxystore_endpoint.app.body import StreamedBody
from proxystore_endpoint.app.errors import ApiError, bad_request
from proxystore_endpoint.endpoint import Endpoint
from proxystore_endpoint.storage import Stored, StoredObject
from proxystore_endpoint.storage.types import Reservation

if TYPE_CHECKING:
    import io

_BINARY = "application/octet-stream"


def missing(reason: MissingReason) -> ApiError:
    """Return the answer where there is no object."""
    return ApiError(404, "missing", f"There is no such object: {reason.value}.")


async def send_object(endpoint: Endpoint, key: str, owner: str | None) -> Response:
    """Answer GET and HEAD of an object."""
    found = await endpoint.get(key, owner, timeout=timeout_argument(limits.TRANSFER_TIMEOUT_S))
    if found is None:
        raise missing(endpoint.missing_reason(key, owner))
    etag = found.etag or await _digest(endpoint, found)
    if wants_none_of(etag):
        response = Response(b"", 304)
        response.headers["ETag"] = f'"{etag}"'
        return response
    part = range_header(found.nbytes, etag)
    start, stop = part or (0, found.nbytes)
    response = Response(b"", 206 if part else 200, content_type=_BINARY)
    if request.method != "HEAD":
        response = Response(
            _parts(endpoint, found, start, stop), response.status_code, content_type=_BINARY
        )
    headers = response.headers
    headers["Content-Length"] = str(stop - start)
    headers["ETag"] = f'"{etag}"'
    headers["Accept-Ranges"] = "bytes"
    headers["Cache-Control"] = "no-cache"
    headers["X-Durability"] = found.stat.durability
    if part:
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{found.nbytes}"
    if found.expires_in is not None:
        headers["X-Expires-In"] = f"{found.expires_in:.3f}"
    return response


async def _digest(endpoint: Endpoint, found: StoredObject) -> str:
    """Compute a digest, once: the storage keeps it."""
    stat = found.stat
    digest = await asyncio.to_thread(endpoint.storage.digest, stat.key, origin=stat.origin)
    if digest is None:  # it was evicted meanwhile
        return await asyncio.to_thread(lambda: hashlib.sha256(found.view).hexdigest())
    return digest


async def _parts(
    endpoint: Endpoint, found: StoredObject, start: int, stop: int
) -> AsyncIterator[memoryview]:
    for first in range(start, stop, limits.SEND_BYTES):
        part = found.view[first : min(first + limits.SEND_BYTES, stop)]
        yield part
        endpoint.counters.rest_bytes_out += len(part)
        await asyncio.sleep(0)  # others have their turn, however fast this client reads


async def receive_object(
    endpoint: Endpoint, key: str, owner: str | None, *, may_be_empty: bool
) -> Stored:
    """Take in the body of a request as an object.

    Args:
        endpoint: Where to.
        key: Its key.
        owner: Endpoint that it is for, if not this one.
        may_be_empty: Whether an object of no bytes is one.

    Raises:
        ApiError: The body is not what its header says, or the client stalled.
    """
    nbytes = length_header()
    remote = owner is not None and owner != endpoint.endpoint_id
    ttl, durability = ttl_argument(), durability_argument()
    expected, digest = digest_header(), hashlib.sha256()
    origin = cast("str", owner) if remote else ""
    body = cast("StreamedBody", request.body)
    spooled: io.BufferedIOBase | None = None
    if nbytes is None:
        spooled = await _spool(body, endpoint)
        nbytes = spooled.tell()
    reservation: Reservation | None = None
    try:
        if not nbytes and not may_be_empty:
            raise bad_request("The request has no body.", "Send the object as the body.")
        reservation = await asyncio.to_thread(endpoint.storage.reserve, key, nbytes, origin=origin)
        if spooled is not None:
            await asyncio.to_thread(_copy, spooled, reservation.buffer, digest)
        elif nbytes:
            await _fill(body, reservation.buffer, digest)
        if expected is not None and not hmac.compare_digest(expected, digest.digest()):
            raise bad_request("The body does not have the digest that its header says.")
        endpoint.counters.puts += 1
        endpoint.counters.rest_bytes_in += nbytes
        if remote:
            return await endpoint.put(
                key,
                reservation.buffer,
                origin,
                ttl=ttl,
                durability=durability,
                timeout=timeout_argument(limits.TRANSFER_TIMEOUT_S),
            )
        stored = await asyncio.to_thread(
            reservation.publish, ttl=ttl, durability=durability, etag=digest.hexdigest()
        )
        return stored._replace(etag=digest.hexdigest())
    finally:
        if spooled is not None:
            spooled.close()
        if reservation is not None:
            reservation.abandon()  # does nothing to what was published


async def _fill(body: StreamedBody, buffer: memoryview, digest: hashlib._Hash) -> None:
    nbytes, at = len(buffer), 0

    def sink(part: bytes) -> None:
        nonlocal at
        if at + len(part) > nbytes:
            raise bad_request(f"The body is longer than its Content-Length, {nbytes}.")
        buffer[at : at + len(part)] = part
        digest.update(part)
        at += len(part)

    await body.write_to(sink)
    if at != nbytes:
        raise bad_request(f"The body ended after {at} of {nbytes} bytes.")


async def _spool(body: StreamedBody, endpoint: Endpoint) -> io.BufferedIOBase:
    """Keep a body of unknown length until it is all here."""
    limit = endpoint.storage.object_limit
    spooled = tempfile.SpooledTemporaryFile(max_size=limits.SPOOLED_BYTES)  # noqa: SIM115 - returned
    arrived = 0

    def sink(part: bytes) -> None:
        nonlocal arrived
        arrived += len(part)
        if limit is not None and arrived > limit:
            raise ApiError(413, "too_large", f"An object may have {limit} bytes and no more.")
        spooled.write(part)

    try:
        await body.write_to(sink)
    except BaseException:
        spooled.close()
        raise
    return cast("io.BufferedIOBase", spooled)


def _copy(spooled: io.BufferedIOBase, buffer: memoryview, digest: hashlib._Hash) -> None:
    spooled.seek(0)
    at = 0
    while at < len(buffer):
        part = spooled.read(limits.SEND_BYTES)
        buffer[at : at + len(part)] = part
        digest.update(part)
        at += len(part)
