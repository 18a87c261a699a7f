"""Real endpoints: a user endpoint alone, or a core endpoint that starts them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from examples.compute_stack.processes import MARK, Process, StackError

PROGRAM = str(Path(sys.executable).parent / "globus-compute-endpoint")
ROOT = Path(__file__).parents[2]
START = 60.0  # seconds
# Configurations are written as JSON, which is YAML, too.


def environment_of(home: Path, more: Mapping[str, str]) -> dict[str, str]:
    """Return what endpoints and their workers get: nothing of the caller's home or logins."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("GLOBUS_", "COMPUTE_"))}
    return {
        **inherited,
        # Endpoints and Parsl start their programs by name.
        "PATH": os.pathsep.join([str(Path(PROGRAM).parent), os.environ.get("PATH", os.defpath)]),
        "PYTHONPATH": str(ROOT),  # functions of this repository are importable on workers
        "HOME": str(home),
        MARK: uuid.uuid4().hex,
        **more,
    }


class UserEndpoint:
    """The process that runs tasks, as a core endpoint would start it.

    Args:
        directory: Where it keeps all that it writes.
        engine: Configuration of its engine.
        register: Lets an endpoint in, by its id; returns its credentials.
        environment: Variables for it and its workers.
        **config: More of its configuration.

    Attributes:
        id: Where to send tasks.
        pid: The process.
        process: The same, to look after.
    """

    def __init__(
        self,
        directory: Path,
        engine: Mapping[str, Any],
        register: Callable[[str], dict[str, Any]],
        environment: Mapping[str, str],
        **config: Any,
    ) -> None:
        self.id = str(uuid.uuid4())
        name = "endpoint"
        self.directory = directory
        (directory / name).mkdir(parents=True)
        settings = {"engine": dict(engine), "heartbeat_period": 5, **config}
        stdin = {"amqp_creds": register(self.id), "config": json.dumps(settings), "ep_info": {}}
        variables = {
            **environment_of(directory, environment),
            "GLOBUS_COMPUTE_USER_DIR": str(directory),
            "GLOBUS_COMPUTE_ENDPOINT_DIR": str(directory / name),
        }
        self.process = Process(
            "user endpoint",
            [PROGRAM, "_start-user-endpoint", name],
            variables,
            directory / "output.log",
            directory,
            json.dumps(stdin).encode(),
        )
        self.pid = self.process.pid

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Wait for something that it does."""
        self.process.wait_for(condition, START)

    def pids(self) -> list[int]:
        """Return its processes, those of its workers among them."""
        return self.process.family()

    def log(self) -> str:
        """Return all that it, and what it started, wrote."""
        return _logs(self.directory)

    def close(self) -> None:
        """End it and its workers."""
        self.process.end()


class CoreEndpoint:
    """What a site runs: configured and started as its guide says, it starts user endpoints.

    Args:
        directory: Where it keeps all that it writes.
        engine: Configuration of the engine of user endpoints, as a mapping, or the whole template
            (Jinja in YAML) as a text.
        service: URL of the service.
        environment: Variables for its user endpoints and their workers.
        **config: More of its configuration.

    Attributes:
        id: Where to send tasks.
        pid: The process.
        process: The same, to look after.
    """

    name = "core"

    def __init__(
        self,
        directory: Path,
        engine: Mapping[str, Any] | str,
        service: str,
        environment: Mapping[str, str],
        **config: Any,
    ) -> None:
        self.directory = directory
        directory.mkdir(parents=True)
        variables = {
            **environment_of(directory, environment),
            "GLOBUS_COMPUTE_USER_DIR": str(directory),
            "GLOBUS_COMPUTE_CLIENT_ID": str(uuid.uuid4()),
            "GLOBUS_COMPUTE_CLIENT_SECRET": "a secret that nobody checks",
            "GLOBUS_SDK_SERVICE_URL_AUTH": service,
            # The endpoint asks for the service on port 5000 of this machine, which may be in use.
            "http_proxy": service,
            "no_proxy": "",
        }
        self._configure(directory, engine, variables, config)
        self.process = Process(
            "core endpoint",
            [PROGRAM, "start", self.name],
            variables,
            directory / "output.log",
            directory,
        )
        self.pid = self.process.pid
        answer = directory / self.name / "endpoint.json"
        self.process.wait_for(answer.exists, START)
        self.process.wait_for(lambda: answer.read_text().endswith("}"), START)
        self.id = str(json.loads(answer.read_text())["endpoint_id"])

    def _configure(
        self,
        directory: Path,
        engine: Mapping[str, Any] | str,
        variables: Mapping[str, str],
        config: Mapping[str, Any],
    ) -> None:
        if not isinstance(engine, str):
            # The usual template installs packages from the internet before it starts a worker.
            engine = json.dumps({"engine": dict(engine), "heartbeat_period": 5})
        settings = {
            "local_compute_services": True,
            "heartbeat_period": 5,
            "email": "nobody@example.org",  # needed where the superuser runs it
            **config,
        }
        # A superuser's user endpoints inherit nothing but this.
        theirs = {k: v for k, v in variables.items() if not k.endswith("_SECRET")}
        theirs["http_proxy"] = ""  # which is no way to the rest of the world
        files = {
            "core-config": ("core.yaml", json.dumps(settings)),
            "template-config": ("template.yaml.j2", engine),
            "user-env-config": ("environment.yaml", json.dumps(theirs)),
        }
        command = [PROGRAM, "configure", "--multi-user", "false"]
        for option, (name, text) in files.items():
            (directory / name).write_text(text)
            command += [f"--{option}", str(directory / name)]
        done = subprocess.run(
            [*command, self.name],
            env=dict(variables),
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode:
            raise StackError(f"core endpoint: it cannot be configured:\n{done.stdout}")

    def pids(self) -> list[int]:
        """Return its processes, those of user endpoints and of workers among them."""
        return self.process.family()

    def log(self) -> str:
        """Return all that it, and what it started, wrote."""
        return _logs(self.directory)

    def close(self) -> None:
        """End it, its user endpoints and their workers."""
        self.process.end()


def _logs(directory: Path) -> str:
    files = [f for f in sorted(directory.rglob("*")) if f.is_file() and f.suffix == ".log"]
    return "\n".join(f"--- {f}\n{f.read_text(errors='replace')}" for f in files)
