"""Configurations of endpoints, and the file that names a running one."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from proxystore_endpoint.config import (
    EndpointConfig,
    EndpointPeerConfig,
    EndpointPeeringConfig,
    EndpointRelayAuthConfig,
    EndpointRelayConfig,
    EndpointRelayICEServerConfig,
    EndpointStorageConfig,
    find_configs,
    get_configs,
    get_log_filepath,
    get_pid_filepath,
    make_token,
    read_config,
    read_token,
    split_address,
    validate_name,
    write_config,
    write_private,
)
from proxystore_endpoint.exceptions import EndpointConfigError
from proxystore_endpoint.running import (
    EndpointStatus,
    Running,
    clear_running,
    get_status,
    make_runtime_dir,
    node_name,
    process_started,
    read_running,
    stop_process,
    write_running,
)

from tests.conftest import wait_until

UUID, PEER = str(uuid.uuid4()), str(uuid.uuid4())
LEAST = f'name = "a"\nuuid = "{UUID}"\nport = 1234\n'


def write(directory: Path, text: str) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.toml").write_text(text)
    return directory


def full() -> EndpointConfig:
    return EndpointConfig(
        name="my_site-1",
        uuid=UUID,
        port=4321,
        host="192.0.2.7",
        allowed_hosts=["gateway"],
        allowed_origins=["https://lab.example"],
        relay=EndpointRelayConfig(
            address="wss://relay.example:443/path",
            auth=EndpointRelayAuthConfig(method="secret", kwargs={"secret_file": "/x"}),
            ice_servers=[
                EndpointRelayICEServerConfig(urls="stun:stun.example:3478"),
                EndpointRelayICEServerConfig(urls=["turn:t"], username="u", credential="c"),
            ],
            verify_certificate=False,
        ),
        peering=EndpointPeeringConfig(port=5000, advertise=["[2001:db8::1]:5000", "h:1"]),
        peers={PEER: EndpointPeerConfig(addresses=["b:1"], name="b")},
        storage=EndpointStorageConfig(
            memory_quota="4 GB", max_object_size=10, spill=False, keep_copies=True
        ),
    )


class TestFile:
    def test_round_trip(self, tmp_path: Path) -> None:
        write_config(full(), tmp_path / "home" / "x")
        assert read_config(tmp_path / "home" / "x") == full()
        assert (tmp_path / "home" / "x" / "config.toml").stat().st_mode & 0o777 == 0o600
        assert (tmp_path / "home" / "x").stat().st_mode & 0o777 == 0o700
        assert [p.name for p in (tmp_path / "home" / "x").iterdir()] == ["config.toml"]
        fqdn = EndpointConfig(name="a", uuid=UUID, port=1, host_type="fqdn")
        write_config(fqdn, tmp_path)
        assert read_config(tmp_path) == fqdn

    def test_least(self, tmp_path: Path) -> None:
        config = read_config(write(tmp_path, LEAST))
        assert config.bind_host() == "127.0.0.1"
        assert config.relay.address is None
        assert config.relay.ice_servers is None
        assert config.peering.enabled

    def test_absent(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match="proxystore-endpoint configure"):
            read_config(tmp_path)

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("name = ", "config.toml cannot be used"),
            (LEAST + "prot = 1", "unknown field `prot`"),
            (LEAST + "[relay]\nadress = 'x'", r"unknown field `adress` - at `\$.relay`"),
            (LEAST + "[storage]\nmemory_quota = 'much'", "memory_quota = 'much' is not a size"),
            (LEAST + "[storage]\nmemory_quota = 0", "above zero"),
            (LEAST + "[relay]\naddress = 'http://x'", "wss://host"),
            (LEAST + "[relay.auth]\nmethod = 'magic'", "magic"),
            (LEAST + "[peering]\nport = 70000", "0 to 65535"),
            (LEAST + "[peering]\nadvertise = ['nowhere']", "host:port"),
            (LEAST + "[peers.nobody]\naddresses = []", "version 4 UUID"),
            (f'name = "a/b"\nuuid = "{UUID}"\nport = 1', "letters, digits"),
            ('name = "a"\nuuid = "1"\nport = 1', "version 4 UUID"),
            (f'name = "a"\nuuid = "{UUID}"\nport = 0', "1 to 65535"),
            (f'name = "a"\nuuid = "{UUID}"', "lacks required field `port`"),
            (LEAST + "host_type = 'static'\nhost = ''", "host is empty"),
            ("\0", "cannot be used"),
        ],
    )
    def test_wrong(self, tmp_path: Path, text: str, said: str) -> None:
        with pytest.raises(EndpointConfigError, match=said) as caught:
            read_config(write(tmp_path, text))
        assert caught.value.path == str(tmp_path / "config.toml")

    def test_not_text(self, tmp_path: Path) -> None:
        (tmp_path / "config.toml").write_bytes(b"\xff\xfe")
        with pytest.raises(EndpointConfigError, match="cannot be used"):
            read_config(tmp_path)

    def test_found(self, tmp_path: Path) -> None:
        assert get_configs(tmp_path / "nothing") == []
        for name in ("b", "a"):
            write(tmp_path / name, LEAST.replace('"a"', f'"{name}"'))
        write(tmp_path / "broken", "name = 1")
        (tmp_path / "empty").mkdir()
        (tmp_path / "file").touch()
        assert [config.name for config in get_configs(tmp_path)] == ["a", "b"]
        assert list(find_configs(tmp_path)) == [tmp_path / "a", tmp_path / "b"]

    def test_paths(self) -> None:
        assert get_log_filepath("/x") == "/x/log.txt"
        assert get_pid_filepath("/x") == "/x/daemon.pid"

    def test_failed_write_leaves_the_old(self, tmp_path: Path) -> None:
        path = tmp_path / "kept"
        write_private(path, b"old")
        with pytest.raises(TypeError):
            write_private(path, "text")  # type: ignore[arg-type]  # what is tested
        assert path.read_bytes() == b"old"
        assert list(tmp_path.iterdir()) == [path]


class TestHost:
    def test_kinds(self) -> None:
        config = full()
        assert config.bind_host() == "192.0.2.7"
        config.host_type = "fqdn"
        assert config.bind_host()

    def test_machine_without_address(self, monkeypatch: pytest.MonkeyPatch) -> None:
        config = EndpointConfig(name="a", uuid=UUID, port=1, host=None, host_type="ip")
        monkeypatch.setattr("socket.gethostname", lambda: "no-such-host.invalid")
        with pytest.raises(EndpointConfigError, match="static"):
            config.bind_host()


@given(st.text())
def test_names_are_file_names(name: str) -> None:
    if validate_name(name):
        assert Path(name).name == name
        assert name not in (".", "..", "")


@given(st.text() | st.from_regex(r"[\[a-z:.\]]{0,8}:[0-9]{1,6}", fullmatch=True))
def test_addresses(text: str) -> None:
    try:
        host, port = split_address(text)
    except ValueError:
        return
    assert host
    assert 1 <= port <= 65535


class TestToken:
    def test_made(self, tmp_path: Path) -> None:
        token = make_token(tmp_path)
        assert read_token(tmp_path) == token
        assert len(token) >= 43  # 32 bytes
        assert (tmp_path / "token").stat().st_mode & 0o777 == 0o600
        assert make_token(tmp_path) != token

    def test_absent(self, tmp_path: Path) -> None:
        with pytest.raises(EndpointConfigError, match="cannot be read"):
            read_token(tmp_path)

    def test_open_to_others(self, tmp_path: Path) -> None:
        make_token(tmp_path)
        (tmp_path / "token").chmod(0o640)
        with pytest.raises(EndpointConfigError, match="chmod 600"):
            read_token(tmp_path)

    @pytest.mark.parametrize("text", ["", "\n", "x" * 1000])
    def test_none(self, tmp_path: Path, text: str) -> None:
        write_private(tmp_path / "token", text.encode())
        with pytest.raises(EndpointConfigError, match="holds no token"):
            read_token(tmp_path)


def this_process(**changes: object) -> Running:
    fields: dict[str, object] = {
        "pid": os.getpid(),
        "started": process_started(os.getpid()),
        "node": node_name(),
        "hostname": "h",
        "url": "http://127.0.0.1:1",
        "control": "/x",
    }
    return Running(**{**fields, **changes})  # type: ignore[arg-type]  # as above


class TestRunning:
    def test_file(self, tmp_path: Path) -> None:
        assert read_running(tmp_path) is None
        write_running(tmp_path, this_process())
        assert read_running(tmp_path) == this_process()
        assert (tmp_path / "daemon.pid").read_text().splitlines()[0] == str(os.getpid())
        clear_running(tmp_path, this_process(url="another"))
        assert read_running(tmp_path) is not None
        clear_running(tmp_path, this_process())
        assert read_running(tmp_path) is None

    @pytest.mark.parametrize("text", ["", "12\n", "12\n{}\n", "12\nnonsense"])
    def test_foreign_file(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "daemon.pid").write_text(text)
        assert read_running(tmp_path) is None

    def test_alive(self) -> None:
        assert this_process().is_alive()
        assert not this_process(started="1").is_alive()
        assert not this_process(node="elsewhere/0").is_alive()

    def test_status(self, tmp_path: Path) -> None:
        assert get_status("a", tmp_path) is EndpointStatus.UNKNOWN
        write(tmp_path / "a", LEAST)
        assert get_status("a", tmp_path) is EndpointStatus.STOPPED
        write_running(tmp_path / "a", this_process())
        assert get_status("a", tmp_path) is EndpointStatus.RUNNING
        write_running(tmp_path / "a", this_process(started="1"))
        assert get_status("a", tmp_path) is EndpointStatus.HANGING

    def test_a_stranger_with_the_same_id_is_not_stopped(self) -> None:
        sleeper = subprocess.Popen(["sleep", "60"])
        try:
            stale = this_process(pid=sleeper.pid, started="1")
            assert stop_process(stale, patience=0.1)
            assert sleeper.poll() is None
        finally:
            sleeper.kill()
            sleeper.wait()

    def test_stop(self) -> None:
        sleeper = subprocess.Popen(["sleep", "60"])
        running = this_process(pid=sleeper.pid, started=process_started(sleeper.pid))
        assert running.is_alive()
        assert stop_process(running, patience=5)  # a zombie does not count as alive
        assert sleeper.wait() == -15

    def test_stop_by_force(self) -> None:
        code = (
            "import signal, time; signal.signal(15, signal.SIG_IGN); "
            "print(flush=True); time.sleep(60)"
        )
        deaf = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert deaf.stdout is not None
        deaf.stdout.readline()
        running = this_process(pid=deaf.pid, started=process_started(deaf.pid))
        assert not stop_process(running, patience=0.05)
        assert deaf.wait() == -9
        deaf.stdout.close()
        assert wait_until(lambda: process_started(deaf.pid) is None)

    def test_start_times_differ(self) -> None:
        first = process_started(os.getpid())
        ticks = os.sysconf("SC_CLK_TCK")
        pause = time.monotonic() + 2 / ticks
        assert wait_until(lambda: time.monotonic() > pause)
        later = subprocess.Popen(["sleep", "60"])
        try:
            assert process_started(later.pid) != first
        finally:
            later.kill()
            later.wait()


class TestRuntimeDir:
    def test_made(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PROXYSTORE_RUNTIME_DIR", str(tmp_path / "r"))
        directory = make_runtime_dir(UUID)
        assert directory == tmp_path / "r" / UUID
        assert directory.stat().st_mode & 0o777 == 0o700
        assert directory.parent.stat().st_mode & 0o777 == 0o700
        assert make_runtime_dir(UUID) == directory

    def test_open_to_others(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PROXYSTORE_RUNTIME_DIR", str(tmp_path))
        tmp_path.chmod(0o755)
        with pytest.raises(EndpointConfigError, match="PROXYSTORE_RUNTIME_DIR"):
            make_runtime_dir(UUID)

    def test_link(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "target").mkdir(mode=0o700)
        (tmp_path / "link").symlink_to(tmp_path / "target")
        monkeypatch.setenv("PROXYSTORE_RUNTIME_DIR", str(tmp_path / "link"))
        with pytest.raises(EndpointConfigError, match="not a directory of this user"):
            make_runtime_dir(UUID)

    def test_file_in_the_way(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "file").touch()
        monkeypatch.setenv("PROXYSTORE_RUNTIME_DIR", str(tmp_path / "file"))
        with pytest.raises(EndpointConfigError):
            make_runtime_dir(UUID)
