"""What the cloud's service knows and decides, without HTTP and without AMQP.

Inferred from what the SDK and the endpoint ask of it: a stand-in for tests, benchmarks and
examples, and for nothing else. It trusts everybody.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
import uuid
from collections import OrderedDict
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from globus_compute_common import messagepack
from globus_compute_common.messagepack.message_types import (
    EPStatusReport,
    Result,
    ResultErrorDetails,
    Task,
)
from globus_compute_sdk.serialize import ComputeSerializer

LIMIT = 10 * 1024 * 1024  # bytes of a submission, as the SDK's documentation gives it
KEPT = 256 * 1024 * 1024  # bytes of results that are kept for who asks by HTTP
OWNER = "00000000-0000-4000-8000-00000000000a"  # the one user there is


class Refusal(Exception):  # noqa: N818 - an answer of the service, not a fault of ours
    """An answer other than 200.

    Attributes:
        status: Status of the HTTP response.
        code: Short name of what is wrong.
        message: The same for people.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


@dataclass(frozen=True)
class Delivery:
    """A task on its way to an endpoint.

    Attributes:
        headers: What the endpoint reads beside the body.
        body: Messagepack of a `Task`.
    """

    headers: dict[str, Any]
    body: bytes


class Carrier(Protocol):
    """Takes tasks to endpoints, and results to those who wait for them."""

    def open_endpoint(self, endpoint_id: str) -> dict[str, Any]:
        """Make what an endpoint needs; return its credentials."""

    def open_core(self, endpoint_id: str) -> dict[str, Any]:
        """Make what a core endpoint needs; return its credentials."""

    def open_group(self, group_id: str) -> None:
        """Make the queue of a task group's results."""

    def deliver(self, endpoint_id: str, delivery: Delivery) -> None:
        """Send a task to an endpoint."""

    def command(self, endpoint_id: str, message: dict[str, Any]) -> None:
        """Send a command to a core endpoint."""

    def forward(self, group_id: str, body: bytes) -> None:
        """Send a result to those who wait for a task group."""


@dataclass
class Traffic:
    """Bytes that passed, each counted once.

    Attributes:
        tasks: Tasks that were sent to endpoints.
        task_bytes: Their bodies, function included.
        results: Results that endpoints sent.
        result_bytes: Their bodies.
        requests: Requests of any kind.
        submissions: Requests that submitted tasks, refused ones included.
        submitted_bytes: Their bodies.
    """

    tasks: int = 0
    task_bytes: int = 0
    results: int = 0
    result_bytes: int = 0
    requests: int = 0
    submissions: int = 0
    submitted_bytes: int = 0

    @property
    def broker_bytes(self) -> int:
        """Bytes of tasks and results."""
        return self.task_bytes + self.result_bytes


@dataclass
class Record:
    """What is known of a task."""

    endpoint_id: str
    group_id: str
    queued: bool
    status: str = "waiting-for-ep"
    completed: str = ""
    result: Result | None = None


@dataclass
class Endpoint:
    """What is known of an endpoint.

    Attributes:
        core: Whether it starts a user endpoint for each configuration.
        beats: Heartbeats so far.
    """

    core: bool = False
    metadata: dict[str, Any] = field(default_factory=dict)
    beats: int = 0


class Service:
    """The service's state. All methods may be called from any thread.

    Args:
        carrier: Takes tasks and results.

    Attributes:
        limit: Most bytes of a submission.
    """

    def __init__(self, carrier: Carrier) -> None:
        self.limit = LIMIT
        self.traffic = Traffic()
        self._carrier = carrier
        self._lock = threading.RLock()
        self._functions: dict[str, dict[str, Any]] = {}
        self._endpoints: dict[str, Endpoint] = {}
        self._tasks: dict[str, Record] = {}
        self._kept: OrderedDict[str, int] = OrderedDict()

    # Functions

    def register_function(self, data: dict[str, Any]) -> str:
        """Keep a function; return its id."""
        function_id = str(uuid.uuid4())
        with self._lock:
            self._functions[function_id] = data
        return function_id

    def function(self, function_id: str) -> dict[str, Any]:
        """Return what was registered."""
        found = self._functions.get(function_id)
        if found is None:
            raise Refusal(404, "FUNCTION_NOT_FOUND", f"Function {function_id} could not be found")
        return found

    def delete_function(self, function_id: str) -> None:
        """Forget a function."""
        self.function(function_id)
        with self._lock:
            del self._functions[function_id]

    # Endpoints

    def register_user_endpoint(self, endpoint_id: str) -> dict[str, Any]:
        """Let an endpoint in that no core endpoint started; return its credentials."""
        self._endpoints[endpoint_id] = Endpoint()
        return self._carrier.open_endpoint(endpoint_id)

    def register_core(self, data: dict[str, Any], endpoint_id: str = "") -> dict[str, Any]:
        """Let a core endpoint in; return its credentials."""
        endpoint_id = endpoint_id or str(uuid.uuid4())
        metadata = data.get("metadata") or {}
        self._endpoints[endpoint_id] = Endpoint(core=True, metadata=metadata)
        return self._carrier.open_core(endpoint_id)

    def endpoint(self, endpoint_id: str) -> Endpoint:
        """Return what is known of an endpoint."""
        found = self._endpoints.get(endpoint_id)
        if found is None:
            raise Refusal(404, "ENDPOINT_NOT_FOUND", f"Endpoint {endpoint_id} could not be found")
        return found

    def beat(self, body: bytes) -> None:
        """Take the heartbeat of an endpoint; one that tells of an error ends its open tasks."""
        report = messagepack.unpack(body)
        if not isinstance(report, EPStatusReport):
            return
        endpoint_id = str(report.endpoint_id)
        known = self._endpoints.get(endpoint_id)
        error = report.global_state.get("error")
        if error:
            with self._lock:
                names = [n for n, t in self._tasks.items() if t.endpoint_id == endpoint_id]
            for name in names:
                details = ResultErrorDetails(code="ENDPOINT_FAILED", user_message=error)
                result = Result(task_id=uuid.UUID(name), data=error, error_details=details)
                self.finish(messagepack.pack(result))
        elif known is not None:
            known.beats += 1

    # Tasks

    def submit(self, endpoint_id: str, data: dict[str, Any], size: int) -> dict[str, Any]:
        """Send tasks on their way.

        Args:
            endpoint_id: Where to.
            data: The submission.
            size: Its bytes.

        Raises:
            Refusal: If it is too large, or a function or the endpoint is not known.
        """
        with self._lock:
            self.traffic.submissions += 1
            self.traffic.submitted_bytes += size
        if size > self.limit:
            raise Refusal(
                413, "PAYLOAD_TOO_LARGE", f"Submission of {size} bytes exceeds {self.limit} bytes"
            )
        group_id = str(data.get("task_group_id") or uuid.uuid4())
        codes = {name: self._code(self.function(name)) for name in data["tasks"]}
        target = self._target(endpoint_id, data)
        if data.get("create_queue"):
            self._carrier.open_group(group_id)
        headers = {
            "resource_specification": json.dumps(data.get("resource_specification")),
            "result_serializers": data.get("result_serializers") or [],
        }
        answer: dict[str, list[str]] = {}
        for function_id, payloads in data["tasks"].items():
            answer[function_id] = []
            for payload in payloads:
                task_id = uuid.uuid4()
                body = messagepack.pack(
                    Task(task_id=task_id, task_buffer=codes[function_id] + payload)
                )
                queued = bool(data.get("create_queue"))
                with self._lock:
                    self._tasks[str(task_id)] = Record(target, group_id, queued)
                    self.traffic.tasks += 1
                    self.traffic.task_bytes += len(body)
                its = {"function_uuid": function_id, "task_uuid": str(task_id), **headers}
                self._carrier.deliver(target, Delivery(its, body))
                answer[function_id].append(str(task_id))
        return {
            "tasks": answer,
            "task_group_id": group_id,
            "request_id": str(uuid.uuid4()),
            "endpoint_id": endpoint_id,
        }

    @staticmethod
    def _code(function: dict[str, Any]) -> str:
        code: str = function["function_code"]
        if function.get("serialized", True):
            return code
        # Source that was registered as such reaches the worker as this strategy frames it.
        source = f"st\n{function['function_name']}:{code}"
        packed: str = ComputeSerializer.pack_buffers([source])
        return packed

    def _target(self, endpoint_id: str, data: dict[str, Any]) -> str:
        """Return the endpoint that runs tasks; let a core endpoint start it where need be."""
        known = self.endpoint(endpoint_id)
        if not known.core:
            return endpoint_id
        options = data.get("user_endpoint_config") or {}
        digest = hashlib.sha256(json.dumps([endpoint_id, options], sort_keys=True).encode())
        child = str(uuid.UUID(bytes=digest.digest()[:16], version=4))
        with self._lock:
            self._endpoints.setdefault(child, Endpoint())
        message = {
            "globus_effective_identity": OWNER,
            "globus_identity_set": [{"sub": OWNER}],
            "globus_username": "owner@example.org",
            "command": "cmd_start_endpoint",
            "args": [],
            "kwargs": {
                "name": f"user.{child[:8]}",
                "user_opts": options,
                "user_runtime": data.get("user_runtime") or {},
                "amqp_creds": self._carrier.open_endpoint(child),
            },
        }
        self._carrier.command(endpoint_id, message)  # one that runs already takes it as a greeting
        return child

    def finish(self, body: bytes) -> None:
        """Take a result from an endpoint, and pass it on."""
        result = messagepack.unpack(body)
        if not isinstance(result, Result):
            return
        task_id = str(result.task_id)
        with self._lock:
            self.traffic.results += 1
            self.traffic.result_bytes += len(body)
            record = self._tasks.get(task_id)
            if record is None or record.result is not None:
                return
            record.result = result
            record.status = "failed" if result.is_error else "success"
            record.completed = str(time.time())
            self._kept[task_id] = len(body)
            while len(self._kept) > 1 and sum(self._kept.values()) > KEPT:
                self._tasks.pop(self._kept.popitem(last=False)[0], None)
        if record.queued:
            self._carrier.forward(record.group_id, body)

    def status(self, task_id: str) -> dict[str, Any]:
        """Return what is known of a task."""
        record = self._tasks.get(task_id)
        if record is None:
            raise Refusal(404, "TASK_NOT_FOUND", f"Task {task_id} could not be found")
        answer: dict[str, Any] = {"task_id": task_id, "status": record.status}
        if record.result is not None:
            name = "exception" if record.result.is_error else "result"
            answer |= {name: record.result.data, "completion_t": record.completed}
            answer["details"] = json.loads(json.dumps(record.result.details, default=str))
        return answer

    def batch_status(self, task_ids: list[str]) -> dict[str, Any]:
        """Return what is known of tasks."""
        return {"results": {name: self.status(name) for name in task_ids if name in self._tasks}}

    def group(self, group_id: str) -> dict[str, Any]:
        """Return the tasks of a group."""
        with self._lock:
            names = [name for name, task in self._tasks.items() if task.group_id == group_id]
        return {"taskgroup_id": group_id, "tasks": [{"id": name} for name in names]}

    def figures(self) -> dict[str, int]:
        """Return the traffic so far."""
        with self._lock:
            return asdict(self.traffic)
