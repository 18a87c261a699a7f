"""What the REST API is, for programs (OpenAPI 3.1)."""

from __future__ import annotations

from typing import Any

from proxystore_core import __version__

_ERRORS = {
    400: "The request makes no sense.",
    401: "The token is missing or wrong.",
    403: "The page's origin, or the peer, refuses.",
    404: "There is no such object.",
    408: "The client stalled.",
    413: "The object is over the limit.",
    416: "The object has no such bytes.",
    421: "The endpoint has another name.",
    502: "The peer failed.",
    504: "The peer was not reached, or not in time.",
    507: "There is no room.",
}
_ALWAYS = (400, 401, 403, 421)
_PEER = (502, 504)


def description() -> dict[str, Any]:
    """Return the description of the API."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "proxystore-endpoint",
            "version": __version__,
            "description": "Objects of this endpoint, and through it those of its peers.",
        },
        "security": [{"token": []}],
        "paths": {**_objects(), **_upstream(), **_information()},
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": {"Error": _object("error", "reason", "hint"), "Stored": _STORED},
            "responses": {
                str(status): {"description": said, "content": _json("Error")}
                for status, said in _ERRORS.items()
            },
        },
    }


def _object(*names: str) -> dict[str, Any]:
    properties = {name: {"type": "string"} for name in names}
    return {"type": "object", "properties": properties, "required": list(names)}


_STORED = {
    "type": "object",
    "properties": {
        "key": {"type": "string"},
        "nbytes": {"type": "integer"},
        "durability": {"enum": ["memory", "spill", "durable"]},
        "etag": {"type": "string", "description": "SHA-256 of the object, in hex."},
    },
}


def _json(schema: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}


_BINARY = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}


def _parameter(name: str, said: str, where: str = "query", kind: str = "string") -> dict[str, Any]:
    return {
        "name": name,
        "in": where,
        "required": where == "path" or name == "key",
        "description": said,
        "schema": {"type": kind},
    }


_KEY = _parameter("key", "Key of the object.")
_PATH_KEY = _parameter("key", "Key of the object.", "path")
_OWNER = _parameter("endpoint", "UUID of the endpoint that it belongs to; by default this one.")
_TIMEOUT = _parameter("timeout", "Seconds to wait for a peer.", kind="number")
_TTL = _parameter("ttl", "Seconds until the object expires.", kind="number")
_DURABILITY = _parameter("durability", "memory, spill or durable: where it has to lie.")
_RANGE = _parameter("Range", "bytes=first-last", "header")
_DIGEST = _parameter("Content-Digest", "sha-256=:...: of the body; it is checked.", "header")


def _operation(
    said: str, status: int, content: dict[str, Any] | None, errors: tuple[int, ...], **more: Any
) -> dict[str, Any]:
    answer: dict[str, Any] = {"description": said}
    if content is not None:
        answer["content"] = content
    responses = {str(status): answer}
    always = set(_ALWAYS) - ({401} if more.get("security") == [] else set())
    for error in sorted({*always, *errors}):
        responses[str(error)] = {"$ref": f"#/components/responses/{error}"}
    return {"summary": said, "responses": responses, **more}


def _get(*parameters: dict[str, Any]) -> dict[str, Any]:
    return _operation(
        "The object, or a part of it. ETag is its SHA-256.",
        200,
        _BINARY,
        (404, 416, 507, *_PEER),
        parameters=[*parameters, _OWNER, _TIMEOUT, _RANGE],
    )


def _put(status: int, *parameters: dict[str, Any]) -> dict[str, Any]:
    return _operation(
        "Store the body as an object.",
        status,
        _json("Stored"),
        (408, 413, 507, *_PEER),
        parameters=[*parameters, _OWNER, _TIMEOUT, _TTL, _DURABILITY, _DIGEST],
        requestBody={"content": _BINARY, "required": True},
    )


def _objects() -> dict[str, Any]:
    remove = _operation(
        "Remove the object.", 204, None, (404, *_PEER), parameters=[_PATH_KEY, _OWNER, _TIMEOUT]
    )
    limit = _parameter("limit", "Most to list.", kind="integer")
    listing = _operation("All objects, newest first.", 200, _ANY, (), parameters=[limit])
    return {
        "/objects": {"get": listing},
        "/objects/{key}": {
            "get": _get(_PATH_KEY),
            "head": _get(_PATH_KEY),
            "put": _put(201, _PATH_KEY),
            "delete": remove,
        },
    }


_ANY: dict[str, Any] = {"application/json": {"schema": {"type": "object"}}}


def _upstream() -> dict[str, Any]:
    asked = [_KEY, _OWNER, _TIMEOUT]
    return {
        "/endpoint": {"get": _operation("UUID, name and version.", 200, _ANY, ())},
        "/get": {"get": _get(_KEY)},
        "/set": {"post": _put(200, _KEY)},
        "/exists": {
            "get": _operation("Whether there is an object.", 200, _ANY, _PEER, parameters=asked)
        },
        "/evict": {
            "post": _operation("Remove the object, if any.", 200, _ANY, _PEER, parameters=asked)
        },
    }


def _information() -> dict[str, Any]:
    text = {"text/plain": {"schema": {"type": "string"}}}
    page = {"text/html": {"schema": {"type": "string"}}}
    free: dict[str, Any] = {"security": []}
    return {
        "/": {"get": _operation("The web page.", 200, page, (), **free)},
        "/health": {"get": _operation("Whether it runs.", 200, _ANY, (), **free)},
        "/status": {"get": _operation("All there is to know.", 200, _ANY, ())},
        "/metrics": {"get": _operation("Numbers for Prometheus.", 200, text, ())},
        "/openapi.json": {"get": _operation("This description.", 200, _ANY, ())},
    }
