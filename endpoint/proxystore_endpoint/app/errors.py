"""Errors of the REST API: a status, and JSON that says what happened and what to do."""

from __future__ import annotations

import logging
from typing import Any

from quart import Quart, Response, jsonify
from werkzeug.exceptions import HTTPException

from proxystore_core.exceptions import (
    ConnectorClosedError,
    CorruptObjectError,
    InvalidKeyError,
    ObjectTooLargeError,
    ProxyStoreError,
    StorageFullError,
)
from proxystore_endpoint.exceptions import (
    AccessDeniedError,
    AuthenticationError,
    DurabilityUnavailableError,
    EndpointConfigError,
    EndpointTimeoutError,
    GrantError,
    PeerLostError,
    PeerRefusedError,
    PeerResponseError,
    PeerTimeoutError,
    PeerUnreachableError,
)

_LOG = logging.getLogger(__name__)

# The first that fits.
_KNOWN: tuple[tuple[type[Exception], int, str, str], ...] = (
    (InvalidKeyError, 400, "bad_key", ""),
    (ObjectTooLargeError, 413, "too_large", "Raise storage.max_object_size in config.toml."),
    (StorageFullError, 507, "full", ""),
    (DurabilityUnavailableError, 400, "bad_request", "proxystore-endpoint configure --persist"),
    (CorruptObjectError, 500, "corrupt", "Put the object again."),
    (PeerRefusedError, 403, "refused", "Ask its owner for a grant: proxystore-endpoint share."),
    (AuthenticationError, 403, "refused", "The peer is not who it should be."),
    (AccessDeniedError, 403, "refused", ""),
    (PeerTimeoutError, 504, "timeout", "Try again, or give it more time with timeout=."),
    (EndpointTimeoutError, 504, "timeout", "Try again, or give it more time with timeout=."),
    (PeerLostError, 504, "lost", "Try again; proxystore-endpoint status shows the peers."),
    (PeerUnreachableError, 504, "unreachable", "proxystore-endpoint doctor says what works."),
    (PeerResponseError, 502, "peer_failed", "See the log of the peer."),
    (GrantError, 400, "bad_ticket", ""),
    (EndpointConfigError, 400, "bad_request", ""),
    (ConnectorClosedError, 503, "stopping", "Start the endpoint again."),
)
_CODES = {
    400: ("bad_request", ""),
    404: ("not_found", "The routes are in /openapi.json."),
    405: ("bad_method", "The routes are in /openapi.json."),
    413: ("too_large", ""),
    416: ("bad_range", ""),
}
_PEER_STATUS = {
    "missing": 404,
    "refused": 403,
    "too_large": 413,
    "full": 507,
    "timeout": 504,
    "bad_request": 400,
}


class ApiError(Exception):
    """An answer other than success.

    Attributes:
        status: HTTP status.
        code: What happened, in one word for programs.
        reason: What happened, for people.
        hint: What to do about it.
        headers: Further headers of the answer.
    """

    def __init__(
        self,
        status: int,
        code: str,
        reason: str,
        hint: str = "",
        headers: dict[str, str] | None = None,
    ) -> None:
        self.status = status
        self.code = code
        self.reason = reason
        self.hint = hint
        self.headers = headers or {}
        super().__init__(reason)

    def response(self) -> Response:
        """Make the answer."""
        body = {"error": self.code, "reason": self.reason, "hint": self.hint}
        response = jsonify(body)
        response.status_code = self.status
        response.headers["X-Error"] = self.code  # an answer to HEAD has no body to say it
        response.headers.update(self.headers)
        return response


def bad_request(reason: str, hint: str = "") -> ApiError:
    """Return the error of a request that makes no sense."""
    return ApiError(400, "bad_request", reason, hint)


def of_exception(error: Exception) -> ApiError:
    """Return the answer for an error of an endpoint."""
    if isinstance(error, PeerResponseError) and error.status in _PEER_STATUS:
        return ApiError(_PEER_STATUS[error.status], error.status, str(error))
    for kind, status, code, hint in _KNOWN:
        if isinstance(error, kind):
            return ApiError(status, code, str(error), hint)
    return ApiError(500, "failed", str(error), "See the log of the endpoint.")


def answer_errors(app: Quart) -> None:
    """Make an application answer every error in JSON."""

    @app.errorhandler(ApiError)
    async def own(error: ApiError) -> Response:
        return error.response()

    @app.errorhandler(ProxyStoreError)
    async def known(error: ProxyStoreError) -> Response:
        answer = of_exception(error)
        if answer.status == 500:
            _LOG.error("A request failed.", exc_info=error)
        return answer.response()

    @app.errorhandler(HTTPException)
    async def http(error: HTTPException) -> Response:
        status = error.code or 500
        code, hint = _CODES.get(status, ("failed", ""))
        headers: dict[str, str] = {}
        response: Any = error.get_response()
        if "Allow" in response.headers:
            headers["Allow"] = response.headers["Allow"]
        return ApiError(status, code, error.description or error.name, hint, headers).response()

    @app.errorhandler(Exception)
    async def unknown(error: Exception) -> Response:
        _LOG.error("A request failed.", exc_info=error)
        reason = f"The endpoint failed: {type(error).__name__}."
        return ApiError(500, "failed", reason, "See the log of the endpoint.").response()
