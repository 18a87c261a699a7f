"""docs/wire.md says what the code does: names, numbers, fields, defaults and limits."""

from __future__ import annotations

import re
from enum import Enum
from pathlib import Path

import msgspec
import pytest
from proxystore_endpoint import limits, membership, secure
from proxystore_endpoint.limits import DEFAULT, KIB, MIB
from proxystore_endpoint.wire import frames, messages
from proxystore_endpoint.wire.machine import GRACEFUL

TEXT = (Path(__file__).parents[3] / "docs" / "wire.md").read_text()
PEER = TEXT[TEXT.index("# The peer protocol") : TEXT.index("\n# Signalling")]


def section(title: str) -> str:
    match = re.search(rf"^#+ {title}\n(.*?)(?=^#+ |\Z)", PEER, re.M | re.S)
    assert match, title
    return match[1]


def tables(text: str) -> list[str]:
    return re.findall(r"(?:^\|.*\n)+", text, re.M)


def rows(text: str) -> dict[str, list[str]]:
    found = [line.strip("|").split("|") for line in text.splitlines()[1:] if line.startswith("| `")]
    return {cells[0].strip(" `"): [cell.strip() for cell in cells[1:]] for cells in found}


@pytest.mark.parametrize(
    "kind",
    [
        messages.Hello,
        messages.Auth,
        messages.Ready,
        messages.Request,
        messages.Response,
        messages.End,
        messages.Cancel,
        messages.GoAway,
    ],
)
def test_every_field_is_described_with_its_default(kind: type[messages.Body]) -> None:
    described = rows(tables(section(kind.__name__.upper()))[0])
    for field in msgspec.structs.fields(kind):
        cells = described[field.name]
        if field.required:
            assert cells[1] == "", field.name
            continue
        default = field.default
        if default is msgspec.NODEFAULT:
            default = field.default_factory()
        written = cells[1].strip("`").strip('"')
        if isinstance(default, bytes):
            assert written == "empty"
        elif isinstance(default, bool):
            assert written == str(default).lower()
        else:
            assert written == str(default.value if isinstance(default, Enum) else default)


def test_every_frame_has_its_number() -> None:
    table = section("Frames")
    for number, name in frames.NAMES.items():
        row = next(line for line in table.splitlines() if line.startswith(f"| {number} | {name} "))
        assert (row.split("|")[3].strip() == "0") is (number not in frames.OF_STREAM)
    assert f"`{frames.IGNORABLE:x}`" in table


def test_every_word_is_described() -> None:
    assert set(messages.Op) == set(rows(tables(section("REQUEST"))[1]))
    assert set(messages.Status) == set(rows(tables(section("RESPONSE"))[1]))
    reasons = rows(tables(section("GOAWAY"))[1])
    for reason in messages.GoAwayReason:
        assert (reasons[reason][1] == "is finished") is (reason in GRACEFUL)
    for right in membership.Right:
        assert f"`{right}`" in section("READY")


def test_numbers_are_those_of_the_code() -> None:
    assert f"Version {messages.VERSION}." in PEER
    assert (limits.MAX_DATA, limits.MAX_BODY) == (MIB, 64 * KIB)
    assert limits.MAX_HANDSHAKE_BODY == 32 * KIB
    for text in (
        f"| key | {limits.MAX_KEY} characters |",
        f"{limits.MAX_TEXT} characters",
        f"| memberships shown | {limits.MAX_MEMBERSHIPS}, of 1024 bytes each |",
        f"| keys in one answer to `list` | {limits.MAX_LIST} |",
        f"2^{limits.MAX_OBJECT.bit_length() - 1}",
        f"2^{limits.MAX_WINDOW.bit_length() - 1} bytes",
        f"{limits.INITIAL_WINDOW:,} bytes",
        f"within {DEFAULT.handshake_timeout:g} seconds",
        f"PING every {DEFAULT.ping_interval:g} seconds",
        f"{DEFAULT.dead_after:g} seconds without",
        f"than {limits.MAX_MEMBERSHIP_AGE // 86400} days",
        f"{limits.CLOCK_SKEW} seconds apart",
        f"secret ({limits.SECRET_BYTES} random bytes)",
        f"`{secure.ALPN}`",
    ):
        assert text in PEER, text


def test_labels_are_those_of_the_code() -> None:
    source = "".join(path.read_text() for path in Path(secure.__file__).parent.glob("*.py"))
    labels = re.findall(r'`"(proxystore [a-z ]+ \d\\0)"`', PEER)
    assert len(labels) == 4
    for label in labels:
        assert f'b"{label}"' in source
