"""Client of an endpoint's REST API, for processes that cannot share its memory.

Objects are sent part by part and received into memory of their size: nothing is joined and
nothing is copied. Proxies of the environment are ignored.
"""

from __future__ import annotations

import http.client
import json
import ssl
import threading
import time
import uuid as uuids
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, Self
from urllib.parse import urlencode, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from proxystore_core.exceptions import (
    CorruptObjectError,
    InvalidKeyError,
    ObjectTooLargeError,
    ProxyStoreError,
    StorageFullError,
)
from proxystore_endpoint.exceptions import (
    AccessDeniedError,
    AuthenticationError,
    EndpointConfigError,
    EndpointError,
    EndpointTimeoutError,
    EndpointUnreachableError,
    PeerLostError,
    PeerRefusedError,
    PeerResponseError,
    PeerTimeoutError,
    PeerUnreachableError,
)
from proxystore_endpoint.identity import uuid_of
from proxystore_endpoint.storage.names import check_key
from proxystore_endpoint.storage.types import Durability, Stored

if TYPE_CHECKING:
    from proxystore_core.serialize import BytesLike

CONNECT_TIMEOUT_S = 10.0
ANSWER_TIMEOUT_S = 90.0
"""Silence after which an endpoint counts as gone, beyond what it may wait for a peer."""
_REUSE_S = 10.0  # the server closes connections after 15 s without a request
_SEND_BYTES = 1 << 20
_ERROR_BYTES = 64 * 1024
_IDLE = 8
_STALE = (ConnectionError, http.client.RemoteDisconnected, http.client.CannotSendRequest)


class ObjectInfo(NamedTuple):
    """What an endpoint says of an object.

    Attributes:
        nbytes: Its length in bytes.
        etag: SHA-256 of its bytes, in hex.
        durability: Where it lies.
        expires_in: Seconds until it expires, or `None` for never.
    """

    nbytes: int
    etag: str
    durability: str
    expires_in: float | None


class _Idle(NamedTuple):
    connection: http.client.HTTPConnection
    since: float


class EndpointClient:
    """A client of one endpoint. Thread-safe: every call has a connection to itself.

    Args:
        address: `http://host:port`, or `https://host:port`.
        token: The endpoint's token.
        uuid: The endpoint's UUID; needed for `https`, where its key is compared with it.
        timeout: Seconds of silence after which the endpoint counts as gone.

    Raises:
        EndpointConfigError: The address is none, or there is no UUID to check.
    """

    def __init__(
        self,
        address: str,
        token: str = "",
        *,
        uuid: uuids.UUID | str | None = None,
        timeout: float = ANSWER_TIMEOUT_S,
    ) -> None:
        parts = urlsplit(address)
        try:
            port = parts.port
        except ValueError:
            port = None
        if parts.scheme not in ("http", "https") or not parts.hostname or port is None:
            raise EndpointConfigError(
                f"The address of an endpoint is http://host:port, not {address!r}."
            )
        if parts.scheme == "https" and uuid is None:
            raise EndpointConfigError(
                f"{address} can only be trusted if its UUID is known: give uuid=."
            )
        self.address = address.rstrip("/")
        self._host, self._port = parts.hostname, port
        self._uuid = uuids.UUID(str(uuid)) if uuid is not None else None
        self._tls = _tls_context() if parts.scheme == "https" else None
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._timeout = timeout
        self._idle: list[_Idle] = []
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; a later call opens new ones."""
        with self._lock:
            idle, self._idle = self._idle, []
        for kept in idle:
            kept.connection.close()

    def get(
        self,
        key: str,
        endpoint: uuids.UUID | str | None = None,
        *,
        timeout: float | None = None,
    ) -> memoryview | None:
        """Return the bytes of an object, or `None` where there is none.

        Args:
            key: Its key.
            endpoint: Endpoint that it belongs to; by default the one asked.
            timeout: Seconds that the endpoint may wait for a peer.

        Raises:
            EndpointUnreachableError: The endpoint does not answer.
            EndpointError: It refuses, or a peer does, or fails.
        """
        path = _path(f"/objects/{check_key(key)}", endpoint=endpoint, timeout=timeout)
        with self._exchange("GET", path, timeout=timeout) as answer:
            if answer.status == 404:
                _drop_missing(answer, self.address)
                return None
            if answer.status != 200:
                raise _error(answer, self.address)
            return _read_all(answer)

    def get_part(
        self, key: str, start: int, stop: int, endpoint: uuids.UUID | str | None = None
    ) -> memoryview | None:
        """Return the bytes of an object from `start` to `stop`; raises as `get`."""
        path = _path(f"/objects/{check_key(key)}", endpoint=endpoint)
        headers = {"Range": f"bytes={start}-{stop - 1}"}
        with self._exchange("GET", path, headers) as answer:
            if answer.status == 404:
                _drop_missing(answer, self.address)
                return None
            if answer.status != 206:
                raise _error(answer, self.address)
            return _read_all(answer)

    def put(
        self,
        key: str,
        data: BytesLike | Sequence[BytesLike],
        endpoint: uuids.UUID | str | None = None,
        *,
        ttl: float | None = None,
        durability: Durability | None = None,
        timeout: float | None = None,
    ) -> Stored:
        """Store an object; raises as `get`, and what is below.

        Args:
            key: Its key.
            data: Its bytes, or parts of them in a list or tuple.
            endpoint: Endpoint that it is for; by default the one asked.
            ttl: Seconds until it expires; `None` for never.
            durability: Where it has to lie.
            timeout: Seconds that the endpoint may wait for a peer.

        Raises:
            ObjectTooLargeError: It is over the endpoint's limit.
            StorageFullError: There is no room.
        """
        parts = data if isinstance(data, (list, tuple)) else (data,)
        views = [memoryview(part).cast("B") for part in parts if len(memoryview(part))]
        path = _path(
            f"/objects/{check_key(key)}",
            endpoint=endpoint,
            ttl=ttl,
            durability=durability,
            timeout=timeout,
        )
        with self._exchange("PUT", path, body=views, timeout=timeout) as answer:
            if answer.status != 201:
                raise _error(answer, self.address, nbytes=sum(map(len, views)))
            told = _read_json(answer, self.address)
            return Stored(told["nbytes"], told["durability"], told["etag"])

    def exists(self, key: str, endpoint: uuids.UUID | str | None = None) -> bool:
        """Tell whether there is an object; raises as `get`."""
        return bool(
            self._json("GET", _path("/exists", key=check_key(key), endpoint=endpoint))["exists"]
        )

    def evict(self, key: str, endpoint: uuids.UUID | str | None = None) -> bool:
        """Remove an object; tell whether there was one. Raises as `get`."""
        return bool(
            self._json("POST", _path("/evict", key=check_key(key), endpoint=endpoint))["evicted"]
        )

    def stat(self, key: str, endpoint: uuids.UUID | str | None = None) -> ObjectInfo | None:
        """Return what is known of an object, or `None` where there is none; raises as `get`."""
        path = _path(f"/objects/{check_key(key)}", endpoint=endpoint)
        with self._exchange("HEAD", path) as answer:
            answer.read()
            if answer.status == 404 and answer.getheader("X-Error") == "missing":
                return None
            if answer.status != 200:
                raise _error(answer, self.address)
            expires = answer.getheader("X-Expires-In")
            return ObjectInfo(
                int(answer.getheader("Content-Length", "0")),
                answer.getheader("ETag", "").strip('"'),
                answer.getheader("X-Durability", ""),
                None if expires is None else float(expires),
            )

    def objects(self, limit: int = 10_000) -> list[dict[str, Any]]:
        """Return what is known of each object, newest first; raises as `get`.

        Args:
            limit: How many at most.
        """
        found: list[dict[str, Any]] = self._json("GET", _path("/objects", limit=limit))["objects"]
        return found

    def endpoint(self) -> dict[str, Any]:
        """Return UUID, name and version of the endpoint; raises as `get`."""
        return self._json("GET", "/endpoint")

    def status(self) -> dict[str, Any]:
        """Return all there is to know about the endpoint; raises as `get`."""
        return self._json("GET", "/status")

    def health(self) -> bool:
        """Tell whether the endpoint answers at all."""
        try:
            return bool(self._json("GET", "/health")["status"] == "ok")
        except EndpointError:
            return False

    def _json(self, method: str, path: str) -> dict[str, Any]:
        with self._exchange(method, path) as answer:
            if answer.status != 200:
                raise _error(answer, self.address)
            return _read_json(answer, self.address)

    @contextmanager
    def _exchange(
        self,
        method: str,
        path: str,
        headers: dict[str, str] | None = None,
        body: Sequence[memoryview] | None = None,
        timeout: float | None = None,
    ) -> Iterator[http.client.HTTPResponse]:
        """Send a request; keep the connection if all of the answer was read."""
        patience = self._timeout + (timeout or 0.0)
        sent = {**self._headers, **(headers or {})}
        if body is not None:
            sent["Content-Length"] = str(sum(map(len, body)))
        connection, answer = self._send(method, path, sent, body or (), patience)
        keep = False
        try:
            yield answer
            keep = answer.isclosed() and not answer.will_close
        except ProxyStoreError:  # what it answered; some of them are OSErrors, too
            keep = answer.isclosed() and not answer.will_close
            raise
        except TimeoutError as error:
            raise self._silent(patience) from error
        except (OSError, http.client.HTTPException) as error:
            raise self._gone(error) from error
        finally:
            if keep:
                self._keep(connection)
            else:
                connection.close()

    def _send(
        self,
        method: str,
        path: str,
        headers: dict[str, str],
        body: Sequence[memoryview],
        patience: float,
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        while True:
            connection, reused = self._connection(patience)
            try:
                return connection, _request(connection, method, path, headers, body)
            except TimeoutError as error:
                connection.close()
                raise self._silent(patience) from error
            except _STALE as error:
                connection.close()
                if not reused:
                    raise self._gone(error) from error
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                raise self._gone(error) from error
            except BaseException:
                connection.close()
                raise

    def _connection(self, patience: float) -> tuple[http.client.HTTPConnection, bool]:
        with self._lock:
            while self._idle:
                kept = self._idle.pop()
                fresh = time.monotonic() - kept.since < _REUSE_S
                if fresh and kept.connection.sock is not None:
                    kept.connection.sock.settimeout(patience)
                    return kept.connection, True
                kept.connection.close()
        return self._connect(patience), False

    def _connect(self, patience: float) -> http.client.HTTPConnection:
        if self._tls is None:
            plain = http.client.HTTPConnection(self._host, self._port, timeout=CONNECT_TIMEOUT_S)
        else:
            plain = http.client.HTTPSConnection(
                self._host, self._port, timeout=CONNECT_TIMEOUT_S, context=self._tls
            )
        try:
            plain.connect()
            if isinstance(plain.sock, ssl.SSLSocket):
                self._check_key(plain.sock)
        except OSError as error:
            plain.close()
            if isinstance(error, EndpointError):
                raise
            raise self._gone(error) from error
        plain.sock.settimeout(patience)
        return plain

    def _check_key(self, channel: ssl.SSLSocket) -> None:
        raw = channel.getpeercert(binary_form=True)
        key = x509.load_der_x509_certificate(raw or b"").public_key()
        if not isinstance(key, Ed25519PublicKey) or uuid_of(key.public_bytes_raw()) != self._uuid:
            raise AuthenticationError(f"{self.address} is not the endpoint {self._uuid}.")

    def _keep(self, connection: http.client.HTTPConnection) -> None:
        with self._lock:
            if len(self._idle) < _IDLE:
                self._idle.append(_Idle(connection, time.monotonic()))
                return
        connection.close()

    def _gone(self, error: Exception) -> EndpointUnreachableError:
        return EndpointUnreachableError(
            f"The endpoint at {self.address} does not answer ({error}). Start it with: "
            "proxystore-endpoint start NAME",
            address=self.address,
        )

    def _silent(self, patience: float) -> EndpointTimeoutError:
        return EndpointTimeoutError(f"{self.address} did not answer within {patience:g} s.")


def _tls_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # the key is compared with the UUID instead
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


def _path(route: str, **arguments: object) -> str:
    given = {name: str(value) for name, value in arguments.items() if value is not None}
    return f"{route}?{urlencode(given)}" if given else route


def _request(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    headers: dict[str, str],
    body: Sequence[memoryview],
) -> http.client.HTTPResponse:
    connection.putrequest(method, path, skip_accept_encoding=True)
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    try:
        for view in body:
            for start in range(0, len(view), _SEND_BYTES):
                connection.send(view[start : start + _SEND_BYTES])
    except (BrokenPipeError, ConnectionResetError):
        # It has answered already, and wants no more of the body: what it says comes first.
        return connection.getresponse()
    return connection.getresponse()


def _read_all(answer: http.client.HTTPResponse) -> memoryview:
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


def _read_json(answer: http.client.HTTPResponse, address: str) -> dict[str, Any]:
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


def _drop_missing(answer: http.client.HTTPResponse, address: str) -> None:
    """Read an answer 404, which may also come from something that is no endpoint."""
    told = _read_json(answer, address)
    if told.get("error") != "missing":
        raise EndpointUnreachableError(f"{address} is no endpoint.", address=address)


def _error(answer: http.client.HTTPResponse, address: str, nbytes: int = 0) -> Exception:
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


def evict(
    address: str,
    key: str,
    endpoint: uuids.UUID | str | None = None,
    *,
    token: str = "",
) -> None:
    """Remove an object, as ProxyStore's function of this name.

    Args:
        address: Address of the endpoint.
        key: Key of the object.
        endpoint: Endpoint that it belongs to; by default the one asked.
        token: The endpoint's token.
    """
    with EndpointClient(address, token) as client:
        client.evict(key, endpoint)


def exists(
    address: str,
    key: str,
    endpoint: uuids.UUID | str | None = None,
    *,
    token: str = "",
) -> bool:
    """Tell whether there is an object; arguments as of `evict`."""
    with EndpointClient(address, token) as client:
        return client.exists(key, endpoint)


def get(
    address: str,
    key: str,
    endpoint: uuids.UUID | str | None = None,
    *,
    token: str = "",
) -> bytes | None:
    """Return the bytes of an object, or `None`; arguments as of `evict`."""
    with EndpointClient(address, token) as client:
        found = client.get(key, endpoint)
        return None if found is None else bytes(found)


def put(
    address: str,
    key: str,
    data: BytesLike,
    endpoint: uuids.UUID | str | None = None,
    *,
    token: str = "",
) -> None:
    """Store an object; arguments as of `evict`."""
    with EndpointClient(address, token) as client:
        client.put(key, data, endpoint)
