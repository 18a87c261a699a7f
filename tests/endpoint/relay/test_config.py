"""A relay's configuration file and command line."""

from __future__ import annotations

import json
import logging
import signal
import ssl
import urllib.request
from pathlib import Path

import pytest
from proxystore_endpoint.exceptions import EndpointConfigError
from proxystore_endpoint.relay import cli
from proxystore_endpoint.relay.auth import SharedSecret
from proxystore_endpoint.relay.config import RelayServingConfig

from tests.conftest import wait_until
from tests.endpoint.relay.support import relay_process, self_signed

PROXYSTORES = """
host = "0.0.0.0"
port = 8701
certfile = "/path/to/cert.pem"
keyfile = "/path/to/privkey.pem"
max_message_bytes = 100000

[auth]
method = "globus"

[auth.kwargs]
client_id = "..."
client_secret = "hush"

[logging]
log_dir = "/path/to/log/dir"
default_level = "INFO"
websockets_level = "WARNING"
current_client_interval = 60
current_client_limit = 32
"""


def written(directory: Path, text: str) -> str:
    path = directory / "relay.toml"
    path.write_text(text)
    return str(path)


def test_proxystores_file(tmp_path):
    config = RelayServingConfig.from_toml(written(tmp_path, PROXYSTORES))
    assert (config.host, config.port) == ("0.0.0.0", 8701)
    assert config.limits.payload == 100_000
    assert config.auth.kwargs["client_secret"] == "hush"
    assert "hush" not in repr(config)


def test_an_empty_file_is_the_default(tmp_path):
    config = RelayServingConfig.from_toml(written(tmp_path, ""))
    assert config == RelayServingConfig()
    assert config.port == 8700
    assert config.ssl_context() is None
    assert config.authenticator().method == "none"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("prot = 8700", "prot"),
        ("port = 'x'", "port"),
        ("port = 70000", "70000"),
        ("port = ", "relay.toml"),
        ("[logging]\ndefault_level = 'LOUD'", "LOUD"),
        ("[logging]\nlevel = 'INFO'", "level"),
        ("[auth]\nmethod = 'kerberos'", "kerberos"),
        ("[limits]\nconections = 5", "conections"),
        ("[limits]\npayload = 0", "payload"),
        ("keyfile = 'x'", "certfile"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(tmp_path, text, why):
    with pytest.raises(EndpointConfigError, match=why) as wrong:
        RelayServingConfig.from_toml(written(tmp_path, text))
    assert wrong.value.path == str(tmp_path / "relay.toml")


def test_a_file_that_is_not_there():
    with pytest.raises(EndpointConfigError, match="cannot be read"):
        RelayServingConfig.from_toml("/no/such/relay.toml")


def test_options_override_the_file(tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(b"x" * 32)
    secret.chmod(0o600)
    file = written(tmp_path, 'port = 1\nhost = "::1"\n[limits]\nconnections = 7')
    words = ["--config", file, "--port", "2", "--log-level", "debug", "--name", "a", "--name", "b"]
    words += ["--log-dir", "/logs", "--secret-file", str(secret)]
    config = cli.configure(cli.parser().parse_args(words))
    assert (config.host, config.port, config.names) == ("::1", 2, ["a", "b"])
    assert (config.logging.default_level, config.logging.log_dir) == ("DEBUG", "/logs")
    assert config.limits.connections == 7
    assert isinstance(config.authenticator(), SharedSecret)


@pytest.mark.parametrize(
    "words",
    [
        ["--config", "/no/such/file"],
        ["--auth", "secret"],
        ["--auth", "none", "--secret-file", "x"],
        ["--secret-file", "/no/such/file"],
        ["--certfile", "/no/such/file"],
        ["--port", "99999"],
        ["--keyfile", "x"],
    ],
    ids=" ".join,
)
def test_a_wrong_command_line_says_so(words, capsys, monkeypatch):
    monkeypatch.setattr(logging, "basicConfig", lambda **options: None)
    assert cli.main(words) == 2
    assert capsys.readouterr().err.startswith("proxystore-relay: ")


def test_an_address_that_is_taken(capsys, monkeypatch):
    monkeypatch.setattr(logging, "basicConfig", lambda **options: None)
    with relay_process() as relay:
        assert cli.main(["--host", "127.0.0.1", "--port", str(relay.port)]) == 1
    assert "cannot serve" in capsys.readouterr().err


def test_help_and_version(capsys):
    for word in ("--help", "--version"):
        with pytest.raises(SystemExit) as ended:
            cli.main([word])
        assert ended.value.code == 0
        assert "proxystore-relay" in capsys.readouterr().out


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_process_serves_and_stops(tmp_path, number):
    with relay_process("--log-dir", str(tmp_path)) as relay:
        with urllib.request.urlopen(f"http://127.0.0.1:{relay.port}/health", timeout=10) as answer:
            assert json.load(answer)["status"] == "ok"
        assert relay.kill(number) == 0
    assert "listening on port" in (tmp_path / "server.log").read_text()


def test_a_renewed_certificate_is_loaded_on_sighup(tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    certificate, key = self_signed(tmp_path / "old")
    renewed, new_key = self_signed(tmp_path / "new")

    with relay_process("--certfile", str(certificate), "--keyfile", str(key)) as relay:

        def shown() -> str:
            return ssl.get_server_certificate(("127.0.0.1", relay.port))

        assert shown().split() == certificate.read_text().split()
        certificate.write_text("broken")
        relay.signal(signal.SIGHUP)  # it goes on with what it has
        key.write_bytes(new_key.read_bytes())
        certificate.write_bytes(renewed.read_bytes())
        relay.signal(signal.SIGHUP)
        assert wait_until(lambda: shown().split() == renewed.read_text().split())
