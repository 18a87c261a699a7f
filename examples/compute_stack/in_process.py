"""The stack without processes of its own: SDK and engine are real, HTTP and AMQP are left out."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import tempfile
import threading
import uuid
import weakref
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar
from urllib.parse import urlsplit

import pika
import requests
from globus_compute_common import messagepack
from globus_compute_endpoint.engines.base import GCFuture, GlobusComputeEngineBase
from globus_compute_sdk import Client, Executor
from globus_compute_sdk.sdk import executor as sdk

from examples.compute_stack.clients import executor_of, make_client
from examples.compute_stack.faults import Fault
from examples.compute_stack.routes import Routes
from examples.compute_stack.service import LIMIT, Delivery, Service, Traffic

E = TypeVar("E", bound=Executor)
C = TypeVar("C", bound=Client)
URL = "http://in-process"


class InProcess:
    """An engine in this process, and a service that hands it tasks.

    Use it as a context.

    Args:
        engine: Runs the tasks. A `ThreadPoolEngine` changes this process's directory, as any
            worker does; it is set back at the end.

    Attributes:
        id: The endpoint's.
    """

    def __init__(self, engine: GlobusComputeEngineBase) -> None:
        self.id = str(uuid.uuid4())
        self._engine = engine
        self._directory = Path(tempfile.mkdtemp(prefix="compute-stack-"))
        # Also where it is never closed.
        self._remove = weakref.finalize(self, _remove, self._directory, os.getpid())
        self._usual = Path.cwd()
        self._inboxes: dict[str, queue.SimpleQueue[bytes]] = {}
        self._open = threading.Lock()
        self._service = Service(self)
        self._service.register_user_endpoint(self.id)
        self._routes = Routes(self._service)
        engine.start(endpoint_id=uuid.UUID(self.id), run_dir=str(self._directory))

    def __enter__(self) -> InProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the engine."""
        self._engine.shutdown(block=True)
        os.chdir(self._usual)
        self._remove()

    def client(self, kind: type[C] | None = None, **options: Any) -> C:
        """Make a client, see `make_client`."""
        made = make_client(URL, kind, **options)
        web = made._compute_web_client
        for part in (web.v2, web.v3):
            part.transport.session.mount(URL, _Adapter(self._routes))
        return made

    def executor(
        self, kind: type[E] | None = None, client: Client | None = None, **options: Any
    ) -> AbstractContextManager[E]:
        """Make an executor, see `executor_of`."""
        return self._executor(kind, client or self.client(), **options)

    @contextlib.contextmanager
    def _executor(self, kind: type[E] | None, client: Client, **options: Any) -> Iterator[E]:
        group = options.setdefault("task_group_id", uuid.uuid4())
        watcher = _Watcher(uuid.UUID(str(group)), client, self._inbox(str(group)))
        watcher.start()
        with executor_of(client, self.id, kind, **options) as made:
            yield made

    def traffic(self) -> Traffic:
        """Return what has passed so far."""
        return Traffic(**self._service.figures())

    def fault(self, path: str, status: int = 0, **options: Any) -> None:
        """Let the service answer something else, see `Fault`."""
        self._routes.faults.add(Fault(path, status, **options))

    def clear_faults(self) -> None:
        """Forget the faults that did not happen."""
        self._routes.faults.clear()

    def set_limit(self, size: int = LIMIT) -> None:
        """Say how many bytes a submission may have."""
        self._service.limit = size

    # What the service has carried

    def open_endpoint(self, endpoint_id: str) -> dict[str, Any]:
        """Do nothing: the engine is there."""
        return {}

    def open_core(self, endpoint_id: str) -> dict[str, Any]:
        """Do nothing: there is none."""
        return {}

    def open_group(self, group_id: str) -> None:
        """Make the inbox of a group's results."""
        self._inbox(group_id)

    def command(self, endpoint_id: str, message: dict[str, Any]) -> None:
        """Do nothing: nobody takes commands."""

    def deliver(self, endpoint_id: str, delivery: Delivery) -> None:
        """Hand a task to the engine, as the endpoint's interchange does."""
        headers = delivery.headers
        future = GCFuture(headers["task_uuid"], function_id=headers["function_uuid"])
        future.add_done_callback(lambda done: self._service.finish(done.result()))
        self._engine.submit(
            task_f=future,
            packed_task=delivery.body,
            resource_specification=json.loads(headers["resource_specification"]) or {},
            result_serializers=headers["result_serializers"],
        )

    def forward(self, group_id: str, body: bytes) -> None:
        """Put a result into the inbox of its group."""
        self._inbox(group_id).put(body)

    def _inbox(self, group_id: str) -> queue.SimpleQueue[bytes]:
        with self._open:
            return self._inboxes.setdefault(group_id, queue.SimpleQueue())


def _remove(directory: Path, owner: int) -> None:
    if os.getpid() == owner:  # and not a process that it forked
        shutil.rmtree(directory, ignore_errors=True)


class _Adapter(requests.adapters.BaseAdapter):
    """Answers HTTP requests from the routes, without a connection."""

    def __init__(self, routes: Routes) -> None:
        super().__init__()
        self._routes = routes

    def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:
        body: Any = request.body or b""  # the SDK's is a text or bytes, never a stream
        status, answer = self._routes.answer(
            request.method or "GET",
            urlsplit(request.url or "").path,
            body.encode() if isinstance(body, str) else body,
        )
        response = requests.Response()
        response.status_code = status
        response.url = request.url or URL
        response.request = request
        response.headers["Content-Type"] = "application/json"
        response._content = answer
        return response

    def close(self) -> None:
        """Do nothing: there is no connection."""


class _Watcher(sdk._ResultWatcher):
    """The SDK's thread that takes results, reading an inbox instead of a queue of AMQP."""

    def __init__(self, group: uuid.UUID, client: Client, inbox: queue.SimpleQueue[bytes]) -> None:
        super().__init__(group, client)  # it enters itself where executors look for theirs
        self._inbox = inbox

    def run(self) -> None:
        self._thread_id = threading.get_ident()
        while not self._time_to_stop:
            with contextlib.suppress(queue.Empty):
                result: Any = messagepack.unpack(self._inbox.get(timeout=0.02))
                self._received_results[str(result.task_id)] = (pika.BasicProperties(), result)
            match: Any = self._match_results_to_futures  # it has no types
            match()
