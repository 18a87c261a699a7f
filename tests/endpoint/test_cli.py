"""The command `proxystore-endpoint`."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from proxystore_endpoint.cli import main
from proxystore_endpoint.cli._parser import duration, make_parser, rights
from proxystore_endpoint.config import read_config, read_token
from proxystore_endpoint.grants import Grants
from proxystore_endpoint.identity import Identity
from proxystore_endpoint.tickets import Ticket

from proxystore_core import __version__
from tests.endpoint.homes import homes

Output = pytest.CaptureFixture[str]


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="ps-") as base:
        monkeypatch.setenv("PROXYSTORE_HOME", f"{base}/h")
        monkeypatch.setenv("PROXYSTORE_RUNTIME_DIR", f"{base}/r")
        yield Path(base, "h")


def said(capsys: Output, *args: str, code: int = 0) -> str:
    assert main(list(args)) == code, capsys.readouterr()
    told = capsys.readouterr()
    return told.out if code == 0 else told.err


class TestConfigure:
    def test_plain(self, home: Path, capsys: Output) -> None:
        text = said(capsys, "configure", "my-endpoint")
        config = read_config(home / "my-endpoint")
        assert f"Configured endpoint: my-endpoint <{config.uuid}>" in text
        assert "proxystore-endpoint start my-endpoint" in text
        assert config.host == "127.0.0.1"
        assert config.relay.address is None
        assert config.storage.persist_dir is None
        assert str(Identity.load(home / "my-endpoint" / "identity.key").uuid) == config.uuid
        assert read_token(home / "my-endpoint")

    def test_all_options(self, home: Path, capsys: Output) -> None:
        options = (
            "--host fqdn --port 5555 --relay-address wss://r.example --relay-auth "
            "--peer-channels 2 --persist --peer-port 0 --advertise h:1 --advertise g:2 "
            "--ice-server stun:s.example --memory 1GB --max-object-size 1000 --relay-ca-file /c"
        )
        said(capsys, "configure", "e", *options.split())
        config = read_config(home / "e")
        assert (config.host_type, config.port) == ("fqdn", 5555)
        assert config.relay.address == "wss://r.example"
        assert config.relay.auth.method == "globus"
        assert config.relay.peer_channels == 2
        assert config.relay.ca_file == "/c"
        assert config.relay.ice_servers is not None
        assert config.relay.ice_servers[0].urls == "stun:s.example"
        assert config.peering.advertise == ["h:1", "g:2"]
        assert config.peering.port == 0
        assert config.storage.persist_dir == "blobs"
        assert config.storage.memory_quota == "1GB"
        assert config.storage.max_object_size == "1000"

    @pytest.mark.parametrize(
        ("options", "address"),
        [
            ("e --relay-server ws://r:1", "ws://r:1"),
            ("--relay-server ws://r:1 e", "ws://r:1"),
            ("e --relay-address ws://r:1 --relay-server", "ws://r:1"),
            ("--relay-address ws://r:1 --relay-server e", "ws://r:1"),
            ("e --relay-address ws://r:1 --no-relay-server", None),
            ("e --relay-server", None),
            ("e --no-relay-server --no-relay-auth --no-persist", None),
        ],
    )
    def test_relay(self, home: Path, capsys: Output, options: str, address: str | None) -> None:
        said(capsys, "configure", *options.split())
        assert read_config(home / "e").relay.address == address

    def test_solo(self, home: Path, capsys: Output) -> None:
        said(capsys, "configure", "e", "--solo", "--ice-server", "none")
        config = read_config(home / "e")
        assert not config.peering.enabled
        assert config.relay.ice_servers == []
        assert "has no peers" in said(capsys, "share", code=1)

    @pytest.mark.parametrize(
        ("options", "reason"),
        [
            ("a/b", "no name"),
            ("..", "no name"),
            ("", "Say how to call it"),
            ("e --port 0", "1 to 65535"),
            ("e --relay-address http://r", "wss://"),
            ("e --memory lots", "not a size"),
            ("e --advertise nowhere", "host:port"),
        ],
    )
    def test_wrong(self, home: Path, capsys: Output, options: str, reason: str) -> None:
        assert reason in said(capsys, "configure", *options.split(), code=1)
        assert not home.exists() or not list(home.iterdir())

    def test_twice(self, home: Path, capsys: Output) -> None:
        said(capsys, "configure", "e")
        before = read_config(home / "e")
        assert "already exists" in said(capsys, "configure", "e", code=1)
        assert read_config(home / "e") == before
        said(capsys, "configure", "e", "--force")
        assert read_config(home / "e").uuid != before.uuid


class TestList:
    def test_nothing(self, home: Path, capsys: Output) -> None:
        assert str(home) in said(capsys, "list")
        assert json.loads(said(capsys, "list", "--json")) == []

    def test_some(self, home: Path, capsys: Output) -> None:
        for name in ("b", "a"):
            said(capsys, "configure", name)
        lines = said(capsys, "list").splitlines()
        assert lines[0].split() == ["NAME", "STATUS", "UUID"]
        assert lines[1].split() == ["a", "STOPPED", read_config(home / "a").uuid]
        told = json.loads(said(capsys, "list", "--json"))
        assert [each["name"] for each in told] == ["a", "b"]


class TestRemove:
    def test_removed(self, home: Path, capsys: Output) -> None:
        said(capsys, "configure", "e")
        assert said(capsys, "remove", "e") == "Removed endpoint named e.\n"
        assert not (home / "e").exists()

    def test_absent(self, home: Path, capsys: Output) -> None:
        assert "does not exist" in said(capsys, "remove", "e", code=1)

    def test_not_somebody_elses_directory(self, home: Path, capsys: Output) -> None:
        (home / "thesis").mkdir(parents=True)
        (home / "thesis" / "chapter").touch()
        assert "does not exist" in said(capsys, "remove", "thesis", code=1)
        assert "no name" in said(capsys, "remove", "..", code=1)
        assert (home / "thesis" / "chapter").exists()

    def test_broken_configuration(self, home: Path, capsys: Output) -> None:
        said(capsys, "configure", "e")
        (home / "e" / "config.toml").write_text("nonsense")
        said(capsys, "remove", "e")
        assert not (home / "e").exists()

    def test_running(self) -> None:
        with homes(1) as (only,):
            only.make("a")
            assert "must be stopped" in only.run("remove", "a", code=1)
            assert "must be stopped" in only.run("configure", "a", "--force", code=1)
            assert only.directory("a").exists()
            only.run("stop", "a")
            only.run("remove", "a")


class TestStatus:
    def test_stopped(self, home: Path, capsys: Output) -> None:
        said(capsys, "configure", "e")
        assert main(["status", "e"]) == 1
        assert "STOPPED" in capsys.readouterr().out
        assert main(["status", "--json"]) == 1
        assert json.loads(capsys.readouterr().out)["status"] == "STOPPED"

    def test_which(self, home: Path, capsys: Output) -> None:
        assert "configure NAME" in said(capsys, "status", code=1)
        said(capsys, "configure", "a")
        said(capsys, "configure", "b")
        assert "Say which endpoint: a, b." in said(capsys, "status", code=1)
        assert "does not exist" in said(capsys, "status", "c", code=1)

    def test_running(self) -> None:
        with homes(1) as (only,):
            uuid = only.make("a", "--memory", "50MB")
            told = only.json("status")
            assert told["status"] == "RUNNING"
            assert (told["name"], told["uuid"], told["version"]) == ("a", uuid, __version__)
            assert told["storage"]["memory_limit"] == 50_000_000
            assert told["peers"] == []
            assert told["relay"] is None
            text = only.run("status", "a")
            for part in (uuid, told["url"], "50 MB", str(only.directory("a")), "peers      none"):
                assert part in text
            token = read_token(only.directory("a"))
            assert token not in text
            assert only.run("status", "--page") == f"{told['url']}/#token={token}\n"


class TestObjects:
    def test_all(self) -> None:
        with homes(1) as (only,):
            only.make("a")
            key = only.run("test", "a", "put", "some text").split()[-2]
            assert only.run("test", "a", "exists", key) == "Object exists: True\n"
            assert only.run("test", "a", "get", key) == "Result: some text\n"
            only.run("test", "a", "evict", key)
            assert only.run("test", "a", "exists", key) == "Object exists: False\n"
            assert "does not exist" in only.run("test", "a", "get", key, code=1)
            assert "no key" in only.run("test", "a", "get", "../x", code=1)
            unknown = "00000000-0000-4000-8000-000000000000"
            assert unknown in only.run("test", "--remote", unknown, "a", "get", key, code=1)
            only.run("stop", "a")
            assert "does not run" in only.run("test", "a", "get", key, code=1)


class TestGrants:
    def test_share(self, home: Path, capsys: Output) -> None:
        said(capsys, "configure", "e", "--relay-address", "wss://r.example")
        assert main(["share", "--rights", "read,list", "--lifetime", "2h", "--address", "h:7"]) == 0
        told = capsys.readouterr()
        ticket = Ticket.decode(told.out.strip())
        assert str(ticket.uuid) == read_config(home / "e").uuid
        assert ticket.addresses == ("h:7",)
        assert ticket.relay == "wss://r.example"
        assert {right.value for right in ticket.rights} == {"read", "list"}
        assert "list, read" in told.err
        kept = (home / "e" / "grants.json").read_bytes()
        assert ticket.secret not in kept
        assert ticket.secret.hex().encode() not in kept

    def test_accept(self, home: Path, capsys: Output) -> None:
        said(capsys, "configure", "a")
        said(capsys, "configure", "b")
        ticket = said(capsys, "share", "a").strip()
        assert "of this very endpoint" in said(capsys, "accept", "a", ticket, code=1)
        text = said(capsys, "accept", "b", ticket, "--label", "them", "--rights", "none")
        assert "may nothing here" in text
        (peer,) = Grants(home / "b" / "grants.json").peers().values()
        assert (peer.name, set(peer.rights)) == ("them", set())
        assert "no ticket" in said(capsys, "accept", "b", "nonsense", code=1)
        assert "damaged" in said(capsys, "accept", "b", ticket[:-3], code=1)

    def test_nobody_could_find_it(self, home: Path, capsys: Output) -> None:
        said(capsys, "configure", "e", "--peer-port", "0")
        assert "--address" in said(capsys, "share", code=1)
        assert "host:port" in said(capsys, "share", "--address", "x", code=1)

    def test_by_hand(self, home: Path, capsys: Output) -> None:
        said(capsys, "configure", "e")
        peer, group = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"
        assert "Nobody" in said(capsys, "grants")
        said(capsys, "grant", "e", peer, "--rights", "read,write", "--label", "them")
        said(capsys, "grant", "e", group, "--group")
        rows = json.loads(said(capsys, "grants", "--json"))
        assert rows == [
            {"uuid": peer, "kind": "peer", "rights": "read, write", "label": "them"},
            {"uuid": group, "kind": "group", "rights": "read", "label": ""},
        ]
        assert "them" in said(capsys, "grants")
        said(capsys, "revoke", "e", peer)
        said(capsys, "revoke", "e", group, "--group")
        assert json.loads(said(capsys, "grants", "--json")) == []
        assert "no grant" in said(capsys, "revoke", "e", peer, code=1)
        assert "no UUID" in said(capsys, "grant", "e", "x", code=1)

    def test_membership(self, home: Path, capsys: Output) -> None:
        said(capsys, "configure", "owner")
        said(capsys, "configure", "member")
        uuid = read_config(home / "member").uuid
        signed = said(capsys, "membership", "issue", "owner", uuid, "--lifetime", "1d").strip()
        text = said(capsys, "membership", "add", "member", signed)
        assert read_config(home / "owner").uuid in text
        assert "member" in said(capsys, "membership", "add", "owner", signed, code=1)
        assert main(["membership", "add", "member", "nonsense!"]) == 1
        issue = ("membership", "issue", "owner", uuid)
        assert "30 days" in said(capsys, *issue, "--lifetime", "31d", code=1)


class TestDoctor:
    def test_stopped(self, home: Path, capsys: Output) -> None:
        said(capsys, "configure", "e", "--ice-server", "none")
        checks = {c["name"]: c for c in json.loads(said(capsys, "doctor", "--json"))}
        assert checks["files"]["verdict"] == "ok"
        assert "start e" in checks["daemon"]["advice"]
        assert "would listen on" in checks["direct TCP"]["found"]
        assert checks["relay"]["found"] == "none is configured"
        assert checks["paths"]["found"].startswith("tcp (webrtc: needs a relay")

    def test_open_files(self, home: Path, capsys: Output) -> None:
        said(capsys, "configure", "e", "--solo")
        (home / "e" / "token").chmod(0o644)
        assert main(["doctor"]) == 1
        assert "chmod 600" in capsys.readouterr().out
        (home / "e" / "token").chmod(0o600)
        (home / "e" / "config.toml").chmod(0o666)
        assert main(["doctor"]) == 1
        assert "chmod go-w" in capsys.readouterr().out

    def test_relay_that_is_not_there(self, home: Path, capsys: Output) -> None:
        relay = ("--relay-address", "ws://127.0.0.1:9")
        said(capsys, "configure", "e", "--ice-server", "none", *relay)
        assert main(["doctor"]) == 1
        text = capsys.readouterr().out
        assert "failed   relay: The relay ws://127.0.0.1:9 cannot be reached" in text
        assert "direct paths work without it" in text

    def test_nat_without_servers(self, capsys: Output) -> None:
        assert main(["check-nat", "--server", "stun:127.0.0.1:9", "--host", "127.0.0.1"]) == 1
        assert "0 of 1 answered" in capsys.readouterr().out
        assert main(["check-nat", "--server", "nonsense"]) == 1


class TestLine:
    def test_help(self, capsys: Output) -> None:
        text = said(capsys, "help")
        listed = "configure list remove start stop status test check-nat share accept doctor"
        for command in (*listed.split(), "help", "version"):
            assert f"\n    {command} " in text

    def test_version(self, capsys: Output) -> None:
        assert said(capsys, "version") == f"proxystore-core {__version__}\n"

    @pytest.mark.parametrize(
        "line", ["", "nonsense", "test", "test a", "start --idle-exit soon a", "share --rights all"]
    )
    def test_no_sense(self, line: str, capsys: Output) -> None:
        with pytest.raises(SystemExit) as caught:
            main(line.split())
        assert caught.value.code == 2

    def test_every_command_can_be_run(self) -> None:
        from proxystore_core.utils.imports import import_from_path

        def runs(parser: object) -> Iterator[str]:
            for action in getattr(parser, "_actions", ()):
                for sub in (
                    (getattr(action, "choices", None) or {}).values()
                    if isinstance(getattr(action, "choices", None), dict)
                    else ()
                ):
                    run = sub.get_default("run")
                    if run is not None:
                        yield run
                    yield from runs(sub)

        found = set(runs(make_parser()))
        assert len(found) > 15
        for run in found - {"help"}:
            assert callable(import_from_path(f"proxystore_endpoint.cli.{run}"))

    def test_without_the_extra(self) -> None:
        code = (
            "import sys; sys.modules['msgspec'] = None; "
            "from proxystore_endpoint.cli import main; sys.exit(main(['list']))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False
        )
        assert done.returncode == 1
        assert "pip install 'proxystore-core[endpoint]'" in done.stderr

    def test_times(self) -> None:
        assert [duration(text) for text in ("90", "1.5h", "2 d", "10min")] == [
            90.0,
            5400.0,
            172800.0,
            600.0,
        ]
        assert rights(" read , list") == "read,list"
        assert rights("none") == ""
