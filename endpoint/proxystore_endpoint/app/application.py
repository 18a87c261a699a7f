"""The application: its routes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from quart import Quart, Response, jsonify, request, send_from_directory

from proxystore_core import __version__
from proxystore_endpoint.app import limits
from proxystore_endpoint.app.arguments import endpoint_argument, key_argument, timeout_argument
from proxystore_endpoint.app.body import stream_bodies
from proxystore_endpoint.app.errors import answer_errors, bad_request
from proxystore_endpoint.app.guard import Access, guard
from proxystore_endpoint.app.metrics import render
from proxystore_endpoint.app.objects import missing, receive_object, send_object
from proxystore_endpoint.app.openapi import description
from proxystore_endpoint.endpoint import Endpoint

_PAGE = Path(__file__).parent / "page"
_MAX_LISTED = 10_000
Status = Callable[[], dict[str, Any]]


def create_app(endpoint: Endpoint, access: Access, *, status: Status | None = None) -> Quart:
    """Make the application of an endpoint.

    Args:
        endpoint: The endpoint.
        access: Who may use it.
        status: Says all about the daemon; by default what the endpoint knows.
    """
    app = Quart("proxystore_endpoint.app", static_folder=None)
    stream_bodies(app)
    answer_errors(app)
    guard(app, access)
    _add_objects(app, endpoint)
    _add_upstream(app, endpoint)
    _add_information(app, endpoint, status or endpoint.status)
    return app


def _add_objects(app: Quart, endpoint: Endpoint) -> None:
    @app.get("/objects/<key>")
    async def get_object(key: str) -> Response:  # HEAD, too
        return await send_object(endpoint, key, endpoint_argument())

    @app.put("/objects/<key>")
    async def put_object(key: str) -> Response:
        stored = await receive_object(endpoint, key, endpoint_argument(), may_be_empty=True)
        response = jsonify({"key": key, **stored._asdict()})
        response.status_code = 201
        response.headers["ETag"] = f'"{stored.etag}"'
        response.headers["X-Durability"] = stored.durability
        return response

    @app.delete("/objects/<key>")
    async def delete_object(key: str) -> Response:
        timeout = timeout_argument(limits.REQUEST_TIMEOUT_S)
        owner = endpoint_argument()
        if not await endpoint.evict(key, owner, timeout=timeout):
            raise missing(endpoint.missing_reason(key, owner))
        return Response(b"", 204)

    @app.get("/objects")
    async def list_objects() -> Response:
        try:
            limit = int(request.args.get("limit", "100"))
        except ValueError:
            raise bad_request("limit= is no number.") from None
        stats = endpoint.objects()
        listed = [stat._asdict() for stat in stats[: max(0, min(limit, _MAX_LISTED))]]
        return jsonify({"total": len(stats), "objects": listed})


def _add_upstream(app: Quart, endpoint: Endpoint) -> None:
    """Add the routes of ProxyStore's endpoint, which answer as its own do."""

    @app.get("/endpoint")
    async def identify() -> Response:
        return jsonify({"uuid": str(endpoint.uuid), "name": endpoint.name, "version": __version__})

    @app.get("/get")
    async def get() -> Response:
        return await send_object(endpoint, key_argument(), endpoint_argument())

    @app.post("/set")
    async def put() -> Response:
        key, owner = key_argument(), endpoint_argument()
        stored = await receive_object(endpoint, key, owner, may_be_empty=False)
        response = jsonify({"key": key, **stored._asdict()})
        response.headers["ETag"] = f'"{stored.etag}"'
        return response

    @app.get("/exists")
    async def exists() -> Response:
        timeout = timeout_argument(limits.REQUEST_TIMEOUT_S)
        found = await endpoint.exists(key_argument(), endpoint_argument(), timeout=timeout)
        return jsonify({"exists": found})

    @app.post("/evict")
    async def evict() -> Response:
        timeout = timeout_argument(limits.REQUEST_TIMEOUT_S)
        found = await endpoint.evict(key_argument(), endpoint_argument(), timeout=timeout)
        return jsonify({"evicted": found})


def _add_information(app: Quart, endpoint: Endpoint, status: Status) -> None:
    @app.get("/")
    async def home() -> Response:
        return await send_from_directory(_PAGE, "index.html")

    @app.get("/page/<name>")
    async def page(name: str) -> Response:
        return await send_from_directory(_PAGE, name)

    @app.get("/health")
    async def health() -> Response:
        return jsonify({"status": "ok"})

    @app.get("/status")
    async def all_there_is() -> Response:
        return jsonify(status())

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(render(endpoint, status()), content_type="text/plain; version=0.0.4")

    @app.get("/openapi.json")
    async def openapi() -> Response:
        return jsonify(description())
