"""The configuration of endpoints, which the real endpoint software reads."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from globus_compute_endpoint.endpoint.config.config import UserEndpointConfig
from globus_compute_endpoint.endpoint.config.utils import (
    load_config_yaml,
    render_config_user_template,
)
from proxystore_globus_compute import endpoint_config
from proxystore_globus_compute.cli import main
from proxystore_globus_compute.config import peer_start, requirement, worker_init

from proxystore_core import __version__
from proxystore_core.exceptions import ExecutorConfigError
from tests.conftest import wait_until

BIN = Path(sys.executable).parent


def loaded(text: str, path: Path) -> Any:
    """Render and read a template as the endpoint does."""
    identity: Any = type(
        "Mapped",
        (),
        {"local_user_record": None, "matched_identity": None, "globus_identity_candidates": []},
    )()
    target = "globus_compute_endpoint.endpoint.config.utils._parse_mapped_identity"
    with mock.patch(target, return_value={}):  # it wants a user of the system
        rendered = render_config_user_template(
            None,
            text,
            path / "user_config_template.yaml.j2",
            identity,  # type: ignore[arg-type]
        )
    return load_config_yaml(rendered)


def test_the_endpoint_reads_it(tmp_path: Path) -> None:
    text = endpoint_config(
        init="source venv/bin/activate\nexport A='{{ b }}'",
        workers_per_node=3,
        retries=2,
        provider={"type": "LocalProvider", "max_blocks": 4, "worker_init": "module load x"},
        engine={"encrypted": False, "label": 'a "b"'},
    )
    config = loaded(text, tmp_path)
    assert isinstance(config, UserEndpointConfig)
    engine = config.engine
    assert engine.max_retries_on_system_failure == 2
    assert engine.executor.max_workers_per_node == 3
    assert engine.label == 'a "b"'
    assert engine.executor.provider.max_blocks == 4
    lines = engine.executor.provider.worker_init.splitlines()
    assert lines[:3] == ["module load x", "source venv/bin/activate", "export A='{{ b }}'"]
    assert f"proxystore-core=={__version__}" in lines[3]
    assert not config.endpoint_setup


def test_a_peer_is_started_beside(tmp_path: Path) -> None:
    config = loaded(endpoint_config(peer="site", install=False), tmp_path)
    assert config.endpoint_setup.strip() == peer_start("site")
    assert "worker_init" not in endpoint_config(install=False)
    assert "proxystore-core[endpoint]==" in endpoint_config(peer="site")


@pytest.mark.parametrize(
    "options",
    [
        {"peer": "a b; rm"},
        {"workers_per_node": 0},
        {"retries": -1},
        {"provider": {"type": object}},
    ],
)
def test_options_are_checked(options: dict[str, Any]) -> None:
    with pytest.raises(ExecutorConfigError):
        endpoint_config(**options)


def test_requirements() -> None:
    assert requirement() == f"proxystore-core=={__version__}"
    assert requirement("endpoint", "parsl") == f"proxystore-core[endpoint,parsl]=={__version__}"
    assert worker_init("a", "b\nc", install=False) == "a\nb\nc"


def test_workers_that_have_the_package_install_nothing() -> None:
    path = f"{BIN}:{os.environ['PATH']}"
    script = "pip() { exit 3; }; set -e\n" + worker_init()
    done = subprocess.run(["bash", "-c", script], env={**os.environ, "PATH": path}, timeout=60)
    assert done.returncode == 0


# The peer


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
        return port


def test_the_peer_ends_with_the_endpoint(tmp_path: Path) -> None:
    env = {**os.environ, "PROXYSTORE_HOME": str(tmp_path), "PATH": f"{BIN}:{os.environ['PATH']}"}

    def peer(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(BIN / "proxystore-endpoint"), *arguments]
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)

    configured = peer("configure", "site", "--no-relay-server", "--port", str(free_port()))
    assert configured.returncode == 0, configured.stderr
    script = f"""
        import subprocess, sys
        done = subprocess.run({peer_start("site")!r}, shell=True, capture_output=True)
        again = subprocess.run({peer_start("site")!r}, shell=True, capture_output=True)
        print(done.returncode, again.returncode, done.stdout, done.stderr, flush=True)
        sys.stdin.read()
    """
    # As the endpoint does it: in a shell, waiting for whoever holds its output.
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as endpoint:
        try:
            assert endpoint.stdout is not None
            assert endpoint.stdout.readline() == "0 0 b'' b''\n"
            assert peer("status", "site").returncode == 0
            endpoint.kill()
            endpoint.wait()
            assert wait_until(lambda: peer("status", "site").returncode != 0, 30)
        finally:
            endpoint.kill()
            peer("stop", "site")


# The command line


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GLOBUS_COMPUTE_USER_DIR", str(tmp_path))
    return tmp_path


def test_the_command_prints(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--init", "a", "--init", "b", "--workers-per-node", "2", "--retries", "0"]
    assert main(["configure", *options, "--provider", "LocalProvider"]) == 0
    expected = endpoint_config(init="a\nb", workers_per_node=2, retries=0)
    assert capsys.readouterr().out == expected
    assert main(["configure", "--no-install", "--option", "max_blocks=3"]) == 0
    assert "    max_blocks: 3\n" in capsys.readouterr().out
    assert main(["configure", "--peer", "x y"]) == 1
    assert "no name" in capsys.readouterr().err


def test_the_command_writes(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["configure", "mine"]) == 1
    assert "globus-compute-endpoint configure mine" in capsys.readouterr().err
    (home / "mine").mkdir()
    path = home / "mine" / "user_config_template.yaml.j2"
    assert main(["configure", "mine", "--peer", "site"]) == 0
    assert "proxystore-endpoint configure site" in capsys.readouterr().out
    assert path.read_text() == endpoint_config(peer="site")
    assert main(["configure", "mine"]) == 1
    assert "--force" in capsys.readouterr().err
    assert main(["configure", "mine", "--force"]) == 0
    assert path.read_text() == endpoint_config()
    assert path.with_name(path.name + ".bak").read_text() == endpoint_config(peer="site")


@pytest.mark.parametrize("arguments", [[], ["configure", "--option", "x"], ["other"]])
def test_wrong_arguments(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage" in capsys.readouterr().err


def test_the_command_is_installed() -> None:
    command = [sys.executable, "-m", "proxystore_globus_compute.cli", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == __version__
