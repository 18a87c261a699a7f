"""The local stack: broker, stand-in and endpoints, from start to end."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from globus_compute_sdk import Client, Executor

from examples.compute_stack.broker import Broker
from examples.compute_stack.clients import executor_of, make_client
from examples.compute_stack.endpoints import ROOT, CoreEndpoint, UserEndpoint, environment_of
from examples.compute_stack.engines import engine as engine_of
from examples.compute_stack.faults import Fault
from examples.compute_stack.processes import Process, StackError
from examples.compute_stack.routes import CONTROL
from examples.compute_stack.service import LIMIT, Traffic

E = TypeVar("E", bound=Executor)
C = TypeVar("C", bound=Client)


class Stack:
    """Globus Compute on this machine: all parts are real but the cloud's REST service.

    Use it as a context. What it started is gone afterwards.

    Args:
        environment: Variables for endpoints and their workers.

    Attributes:
        url: Where the stand-in of the service listens.

    Raises:
        StackError: If a part is missing or does not start.
    """

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self._environment = dict(environment or {})
        self._directory = Path(tempfile.mkdtemp(prefix="compute-stack-"))
        self._close = contextlib.ExitStack()
        self._close.callback(shutil.rmtree, self._directory, ignore_errors=True)
        self._endpoints = 0
        try:
            self._broker = Broker(self._directory / "broker")
            self._close.callback(self._broker.close)
            self.url = self._start_service()
            for process in self._broker.processes:
                self._entrust(process)
        except BaseException:
            self.close()
            raise

    def _start_service(self) -> str:
        port, log = self._directory / "service.port", self._directory / "service.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "examples.compute_stack.server",
                    self._broker.url,
                    str(port),
                ],
                cwd=ROOT,
                env=environment_of(self._directory, {}),
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._service = process

        def end() -> None:
            if process.stdin is not None:
                process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5)
            process.kill()
            process.wait()

        self._close.callback(end)
        deadline = time.monotonic() + 60
        while not port.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise StackError(f"the stand-in did not start:\n{log.read_text()[-3000:]}")
            time.sleep(0.02)
        return f"http://127.0.0.1:{port.read_text()}"

    def _entrust(self, process: Process) -> None:
        """Let the stand-in end a process should this one be killed."""
        pipe = self._service.stdin
        if pipe is not None:
            pipe.write(json.dumps([process.pid, process.mark]).encode() + b"\n")
            pipe.flush()

    def __enter__(self) -> Stack:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all that it started, last things first, and remove their files."""
        self._close.close()

    def client(self, kind: type[C] | None = None, **options: Any) -> C:
        """Make a client, see `make_client`."""
        return make_client(self.url, kind, **options)

    def executor(
        self,
        endpoint_id: str,
        kind: type[E] | None = None,
        client: Client | None = None,
        **options: Any,
    ) -> AbstractContextManager[E]:
        """Make an executor, see `executor_of`."""
        return executor_of(client or self.client(), endpoint_id, kind, **options)

    def user_endpoint(
        self,
        engine: str | Mapping[str, Any] = "htex",
        workers: int = 2,
        environment: Mapping[str, str] | None = None,
        config: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> UserEndpoint:
        """Start a user endpoint alone, and wait until it takes tasks.

        Args:
            engine: Its engine: "threads", "processes", "htex", or a configuration.
            workers: How many tasks run at a time.
            environment: More variables for it.
            config: More of its configuration.
            **options: More of the engine's.
        """
        made = UserEndpoint(
            self._new_directory(),
            self._engine(engine, workers, options),
            lambda name: dict(self._control("PUT", f"/endpoints/{name}")),
            {**self._environment, **(environment or {})},
            **(config or {}),
        )
        self._close.callback(made.close)
        self._entrust(made.process)
        made.wait_for(self._beats(made.id))
        return made

    def core_endpoint(
        self,
        engine: str | Mapping[str, Any] = "htex",
        workers: int = 2,
        environment: Mapping[str, str] | None = None,
        config: Mapping[str, Any] | None = None,
        template: str | None = None,
        **options: Any,
    ) -> CoreEndpoint:
        """Configure and start a core endpoint, which starts user endpoints when tasks come.

        Args:
            engine: Engine of user endpoints, as in `user_endpoint`.
            workers: How many tasks run at a time.
            environment: More variables for user endpoints.
            config: More of its own configuration.
            template: The whole template of user endpoints, instead of the engine.
            **options: More of the engine's.
        """
        made = CoreEndpoint(
            self._new_directory(),
            template if template is not None else self._engine(engine, workers, options),
            self.url,
            {**self._environment, **(environment or {})},
            **(config or {}),
        )
        self._close.callback(made.close)
        self._entrust(made.process)
        return made

    @staticmethod
    def _engine(
        engine: str | Mapping[str, Any], workers: int, options: dict[str, Any]
    ) -> Mapping[str, Any]:
        return engine_of(engine, workers, **options) if isinstance(engine, str) else engine

    def _new_directory(self) -> Path:
        self._endpoints += 1
        return self._directory / f"endpoint-{self._endpoints}"

    def _beats(self, endpoint_id: str) -> Callable[[], bool]:
        return lambda: self._control("GET", f"/endpoints/{endpoint_id}")["beats"] > 0

    def pids(self) -> list[int]:
        """Return the processes of the broker and of the stand-in."""
        return [*(process.pid for process in self._broker.processes), self._service.pid]

    def traffic(self) -> Traffic:
        """Return what has passed so far."""
        return Traffic(**self._control("GET", "/traffic"))

    def fault(self, path: str, status: int = 0, **options: Any) -> None:
        """Let the stand-in answer something else, see `Fault`."""
        self._control("POST", "/faults", asdict(Fault(path, status, **options)))

    def clear_faults(self) -> None:
        """Forget the faults that did not happen."""
        self._control("DELETE", "/faults")

    def set_limit(self, size: int = LIMIT) -> None:
        """Say how many bytes a submission may have."""
        self._control("PUT", "/limit", {"bytes": size})

    def _control(self, method: str, path: str, data: Any = None) -> Any:
        body = None if data is None else json.dumps(data).encode()
        request = urllib.request.Request(self.url + CONTROL + path, body, method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=60) as response:
            return json.loads(response.read())
