"""docs/relay.md says what the code does: options, defaults, messages, reasons."""

from __future__ import annotations

import re
import tomllib
import typing
from pathlib import Path

import msgspec
import pytest
from proxystore_endpoint.limits import DEFAULT
from proxystore_endpoint.relay import messages as m
from proxystore_endpoint.relay import reasons, server, session, switch
from proxystore_endpoint.relay.cli import parser
from proxystore_endpoint.relay.config import RelayServingConfig
from proxystore_endpoint.relay.limits import RelayLimits

TEXT = (Path(__file__).parents[3] / "docs" / "relay.md").read_text()


def test_the_file_shown_has_all_keys_and_the_defaults():
    (block,) = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)
    shown = msgspec.convert(tomllib.loads(block.replace("# nbytes", "nbytes")), RelayServingConfig)
    assert msgspec.structs.replace(shown.limits, nbytes=None) == RelayLimits()
    default = RelayServingConfig()
    assert shown.port == default.port
    assert msgspec.structs.replace(shown.logging, log_dir=None) == default.logging
    data = tomllib.loads(block.replace("# nbytes", "nbytes"))
    assert set(data) == set(RelayServingConfig.__struct_fields__) - {"max_message_bytes"}
    for table in ("auth", "logging", "limits"):
        assert set(data[table]) == set(getattr(default, table).__struct_fields__)


def test_all_options_are_there():
    options = {
        word
        for action in parser()._actions
        for word in action.option_strings
        if word.startswith("--") and word not in {"--help", "--version"}
    }
    assert options == set(re.findall(r"`(--[a-z-]+)`", TEXT))


@pytest.mark.parametrize("union", [m.FromClient, m.FromRelay], ids=["client", "relay"])
def test_all_messages_are_there_with_their_fields(union):
    for message in typing.get_args(union):
        kind = message.__struct_config__.tag
        (row,) = re.findall(rf"^\| `{kind}` \| (.*?) \|", TEXT, re.MULTILINE)
        row = re.sub(r"\{.*?\}", "", row)
        assert re.findall(r"`(\w+)`", row) == list(message.__struct_fields__), kind


def test_errors_and_reasons_are_there():
    errors = {word for name, word in vars(reasons).items() if name.isupper()}
    assert all(f"`{error}`" in TEXT for error in errors - {reasons.CLOSED})
    source = Path(server.__file__).read_text() + Path(switch.__file__).read_text()
    farewells = set(re.findall(r'Goodbye\(\s*"(\w+)"', source)) - {"closed"}  # told to nobody
    assert farewells == set(re.findall(r"`(\w+)`", TEXT.partition("| reasons in `goodbye` | |")[2]))
    known = set(re.findall(r'case "(\w+)"(?: \| "(\w+)")?', Path(session.__file__).read_text()))
    assert {word for pair in known for word in pair if word} <= farewells


def test_numbers_are_those_of_the_code():
    limits = RelayLimits()
    assert f"ping every {DEFAULT.ping_interval:.0f} seconds" in TEXT
    assert f"{limits.silence:.0f} seconds without a byte" in TEXT
    early = 2 * limits.handshake_timeout + limits.register_timeout
    assert f"not registered within {early:.0f} seconds" in TEXT
    assert f"a message of n bytes uses n + {m.OVERHEAD}" in TEXT.lower()
    assert f"at most {m.MAX_CONTROL // 1024} KiB" in TEXT
    assert f"Version {m.VERSION}." in TEXT
    for label in (m._REGISTER_LABEL, m._SECRET_LABEL):
        assert label.decode().replace("\0", "\\0") in TEXT
