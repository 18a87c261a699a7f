"""Connections to an endpoint's REST API: kept for the next request, and checked by their key."""

from __future__ import annotations

import http.client
import ssl
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple
from urllib.parse import urlsplit
from uuid import UUID

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from proxystore_core.exceptions import ProxyStoreError
from proxystore_endpoint.exceptions import (
    AuthenticationError,
    EndpointConfigError,
    EndpointError,
    EndpointTimeoutError,
    EndpointUnreachableError,
)
from proxystore_endpoint.identity import uuid_of

CONNECT_TIMEOUT_S = 10.0
_REUSE_S = 10.0  # the server closes connections after 15 s without a request
_SEND_BYTES = 1 << 20
_IDLE = 8
_STALE = (ConnectionError, http.client.RemoteDisconnected, http.client.CannotSendRequest)


class _Idle(NamedTuple):
    connection: http.client.HTTPConnection
    since: float


class Connections:
    """Connections to one endpoint. Thread-safe: every request has one to itself.

    Args:
        address: `http://host:port`, or `https://host:port`.
        headers: Sent with each request.
        uuid: UUID of the endpoint, whose key is compared with it; needed for `https`.
        timeout: Seconds of silence after which the endpoint counts as gone.

    Raises:
        EndpointConfigError: The address is none, or there is no UUID to check.
    """

    def __init__(
        self, address: str, headers: Mapping[str, str], uuid: UUID | None, timeout: float
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
        self._uuid = uuid
        self._tls = _tls_context() if parts.scheme == "https" else None
        self._headers = dict(headers)
        self._timeout = timeout
        self._idle: list[_Idle] = []
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close them; a later request opens new ones."""
        with self._lock:
            idle, self._idle = self._idle, []
        for kept in idle:
            kept.connection.close()

    @contextmanager
    def exchange(
        self,
        method: str,
        path: str,
        headers: dict[str, str] | None = None,
        body: Sequence[memoryview] | None = None,
        timeout: float | None = None,
    ) -> Iterator[http.client.HTTPResponse]:
        """Send a request; keep the connection if all of the answer was read.

        Args:
            method: Its method.
            path: Its path, with the query.
            headers: Further headers.
            body: Parts of its body, views of bytes.
            timeout: Seconds that the endpoint may take for it, beside the usual.

        Raises:
            EndpointUnreachableError: The endpoint does not answer.
            EndpointTimeoutError: It does not in time.
        """
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
