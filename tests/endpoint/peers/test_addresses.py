from __future__ import annotations

from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from proxystore_endpoint.peers import AddressBook, format_address, parse_address


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("example.org:80", ("example.org", 80)),
        ("10.0.0.1:65535", ("10.0.0.1", 65535)),
        ("[::1]:80", ("::1", 80)),
        ("[fe80::1]:0", ("fe80::1", 0)),
    ],
)
def test_addresses_are_read_and_written(text: str, found: tuple[str, int]) -> None:
    assert parse_address(text) == found
    assert format_address(*found) == text


@pytest.mark.parametrize(
    "text", ["", ":", "host", "host:", ":80", "host:65536", "host:-1", "::1:80", "[x]:80", "a/b:1"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"address|permitted|expected|[Aa]t least"):
        parse_address(text)


@given(st.text(max_size=40))
def test_any_text_is_an_address_or_a_value_error(text: str) -> None:
    try:
        host, port = parse_address(text)
    except ValueError:
        return
    assert parse_address(format_address(host, port)) == (host, port)


def test_what_a_peer_tells_is_kept_apart_from_what_was_added() -> None:
    peer, other = uuid4(), uuid4()
    book = AddressBook({peer: ["a:1"]})
    book.learn(peer, ["b:2", "nonsense", "b:2"])
    book.learn(other, ["c:3"])
    assert book.entry(peer).addresses == ("a:1",)
    assert book.entry(peer).learned == ("b:2",)
    assert peer in book
    assert other not in book
    assert book.peers() == [peer]
    assert book.entry(other).learned == ("c:3",)
    book.learn(peer, [])
    assert book.entry(peer).learned == ()
    book.add(peer, ["d:4"])
    assert book.entry(peer).addresses == ("d:4", "a:1")
    book.remove(peer)
    assert peer not in book
    with pytest.raises(ValueError, match="no address"):
        book.add(peer, ["nonsense"])
