"""The service's HTTP interface, as far as the SDK and the endpoint use it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

from globus_compute_sdk import __version__

from examples.compute_stack.faults import Fault, Faults
from examples.compute_stack.service import OWNER, Refusal, Service

Handler = Callable[[dict[str, str], bytes], Any]
CONTROL = "/stand-in"  # requests of tests, beside the service's own


class Routes:
    """Answers requests.

    Args:
        service: What it answers from.
        amqp_url: Where results are consumed.
        prefix: How the names of the queues of results begin.
    """

    def __init__(self, service: Service, amqp_url: str = "", prefix: str = "") -> None:
        self.faults = Faults()
        self._service = service
        queue = {"connection_url": amqp_url, "queue_prefix": prefix}
        s = service
        table: dict[str, Handler] = {
            "GET /v2/version": lambda _, __: _version(),
            "GET /v2/get_amqp_result_connection_url": lambda _, __: queue,
            "POST /v3/functions": lambda _, b: {
                "function_uuid": s.register_function(json.loads(b))
            },
            "GET /v2/functions/{id}": lambda p, _: s.function(p["id"]),
            "DELETE /v2/functions/{id}": lambda p, _: s.delete_function(p["id"]),
            "POST /v3/endpoints": lambda _, b: s.register_core(json.loads(b)),
            "PUT /v3/endpoints/{id}": lambda p, b: s.register_core(json.loads(b), p["id"]),
            "GET /v2/endpoints": lambda _, __: [],
            "GET /v2/endpoints/{id}": lambda p, _: self._metadata(p["id"]),
            "GET /v2/endpoints/{id}/status": lambda p, _: self._status(p["id"]),
            "POST /v3/endpoints/{id}/submit": lambda p, b: self._submit(p["id"], b),
            "GET /v2/tasks/{id}": lambda p, _: s.status(p["id"]),
            "POST /v2/batch_status": lambda _, b: s.batch_status(json.loads(b)["task_ids"]),
            "GET /v2/taskgroup/{id}": lambda p, _: s.group(p["id"]),
            "POST /v2/oauth2/token": lambda _, b: _token(b),
            "POST /v2/oauth2/token/revoke": lambda _, __: {"active": False},
            "GET /v2/oauth2/userinfo": lambda _, __: _userinfo(),
            f"PUT {CONTROL}/endpoints/{{id}}": lambda p, _: s.register_user_endpoint(p["id"]),
            f"GET {CONTROL}/endpoints/{{id}}": lambda p, _: {"beats": s.endpoint(p["id"]).beats},
            f"GET {CONTROL}/traffic": lambda _, __: s.figures(),
            f"POST {CONTROL}/faults": lambda _, b: self.faults.add(Fault(**json.loads(b))),
            f"DELETE {CONTROL}/faults": lambda _, __: self._reset(),
            f"PUT {CONTROL}/limit": lambda _, b: self._set_limit(json.loads(b)["bytes"]),
        }
        self._table = [
            (re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", key) + "$"), handler)
            for key, handler in table.items()
        ]

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        """Answer a request.

        Returns:
            The status and the body, which is JSON.
        """
        try:
            if not path.startswith(CONTROL):
                self._service.traffic.requests += 1
                self.faults.apply(path, body)
            for pattern, handler in self._table:
                if match := pattern.match(f"{method} {path}"):
                    return 200, json.dumps(handler(match.groupdict(), body)).encode()
            raise Refusal(404, "NOT_FOUND", f"{method} {path}: not known to the stand-in")
        except Refusal as refusal:
            text = {"code": refusal.code, "message": refusal.message, "status": "Failed"}
            return refusal.status, json.dumps(text).encode()

    def _submit(self, endpoint_id: str, body: bytes) -> dict[str, Any]:
        return self._service.submit(endpoint_id, json.loads(body), len(body))

    def _metadata(self, endpoint_id: str) -> dict[str, Any]:
        known = self._service.endpoint(endpoint_id)
        return {"uuid": endpoint_id, "owner_id": OWNER, **known.metadata}

    def _status(self, endpoint_id: str) -> dict[str, Any]:
        online = self._service.endpoint(endpoint_id).beats > 0
        return {"status": "online" if online else "offline", "details": {}}

    def _set_limit(self, size: int) -> None:
        self._service.limit = size

    def _reset(self) -> None:
        self.faults.clear()


def _version() -> dict[str, str]:
    return {"api": __version__, "min_sdk_version": "4.0.0", "min_ep_version": "4.0.0"}


def _userinfo() -> dict[str, Any]:
    owner = {"sub": OWNER, "username": "owner@example.org", "name": "Owner"}
    return {**owner, "preferred_username": owner["username"], "identity_set": [owner]}


def _token(body: bytes) -> dict[str, Any]:
    """Grant what is asked for: for each resource server the tokens of its own scopes alone."""
    scopes = parse_qs(body.decode()).get("scope", [""])[0].split()
    compute = [scope for scope in scopes if "/scopes/" in scope]
    groups = {"funcx_service": compute, "auth.globus.org": [s for s in scopes if s not in compute]}
    tokens = [
        {
            "access_token": f"stand-in-{server}",
            "resource_server": server,
            "scope": " ".join(names),
            "token_type": "Bearer",
            "expires_in": 172800,
        }
        for server, names in groups.items()
        if names
    ]
    first, *others = tokens
    return {**first, "other_tokens": others}
