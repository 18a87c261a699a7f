from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from proxystore_endpoint.exceptions import TicketError
from proxystore_endpoint.identity import Identity
from proxystore_endpoint.membership import Right
from proxystore_endpoint.tickets import Ticket, secret_hash

ISSUER = Identity.generate()
TICKET = Ticket.issue(
    ISSUER,
    addresses=["192.0.2.1:5000", "[2001:db8::1]:5000"],
    relay="wss://relay.example.org:443",
    rights=[Right.READ, Right.WRITE],
    now=1e9,
)


def test_a_ticket_is_a_short_line_that_says_all() -> None:
    text = TICKET.encode()
    assert len(text) < 250
    assert text.isprintable()
    assert " " not in text
    assert Ticket.decode(text, now=1e9) == TICKET
    assert TICKET.uuid == ISSUER.uuid
    assert TICKET.secret_hash == secret_hash(TICKET.secret)
    assert TICKET.secret.hex() not in repr(TICKET)
    assert Ticket.issue(ISSUER).secret != Ticket.issue(ISSUER).secret


def test_a_ticket_may_come_wrapped_as_mail_does() -> None:
    text = TICKET.encode()
    wrapped = f"  {text[:40]}\n  {text[40:80]} \r\n{text[80:]}\n"
    assert Ticket.decode(wrapped, now=1e9) == TICKET


@given(data=st.data())
def test_a_ticket_with_any_change_is_told_to_be_damaged(data: st.DataObject) -> None:
    text = TICKET.encode()
    at = data.draw(st.integers(5, len(text) - 2))  # of the last one, some bits mean nothing
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    other = data.draw(st.sampled_from(letters).filter(lambda c: c != text[at]))
    with pytest.raises(TicketError, match="damaged"):
        Ticket.decode(text[:at] + other + text[at + 1 :], now=1e9)


@given(cut=st.integers(0, 150))
def test_half_a_ticket_is_none(cut: int) -> None:
    with pytest.raises(TicketError):
        Ticket.decode(TICKET.encode()[:cut], now=1e9)


@pytest.mark.parametrize(
    "text", ["", "pst1.", "pst2.AAAA", "hello", "pst1.é", "pst1." + "A" * 9999, "\0"]
)
def test_what_is_no_ticket(text: str) -> None:
    with pytest.raises(TicketError):
        Ticket.decode(text)


@given(text=st.text(max_size=100))
def test_noise_is_no_ticket(text: str) -> None:
    with pytest.raises(TicketError):
        Ticket.decode("pst1." + text)


def test_a_ticket_ends() -> None:
    text = Ticket.issue(ISSUER, lifetime=60, now=1000).encode()
    Ticket.decode(text, now=1059)
    with pytest.raises(TicketError, match="ended"):
        Ticket.decode(text, now=1060)
    for lifetime in (0, -1, 31 * 86400):
        with pytest.raises(TicketError, match="at most"):
            Ticket.issue(ISSUER, lifetime=lifetime)


def test_a_ticket_is_not_endless() -> None:
    ticket = Ticket.issue(ISSUER, addresses=[f"host-{i}.example.org:5000" * 8 for i in range(16)])
    with pytest.raises(TicketError, match="fewer"):
        ticket.encode()
