from __future__ import annotations

import multiprocessing
import stat
import threading
import time
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proxystore_endpoint import grant_file, limits
from proxystore_endpoint.exceptions import AccessDeniedError, GrantFileError, MembershipError
from proxystore_endpoint.grants import Grants
from proxystore_endpoint.identity import Identity
from proxystore_endpoint.membership import ALL_RIGHTS, Membership, Right
from proxystore_endpoint.tickets import Ticket

from tests.conftest import wait_until

OURS, PEER, OTHER, OWNER = (Identity.generate() for _ in range(4))
DAY = 86400.0


# Grants.


def test_a_stranger_gets_nothing() -> None:
    grants = Grants()
    assert grants.rights_of(PEER.uuid) == frozenset()
    with pytest.raises(AccessDeniedError, match="not known") as caught:
        grants.admit(PEER.uuid)
    assert caught.value.principal == PEER.uuid
    with pytest.raises(AccessDeniedError):
        grants.admit(PEER.uuid, [b"nonsense"], b"no such secret")


def test_a_grant_gives_what_it_says_and_no_more() -> None:
    grants = Grants()
    grants.grant(PEER.uuid, [Right.READ])
    admission = grants.admit(PEER.uuid)
    assert admission.rights() == {Right.READ}
    admission.require(Right.READ)
    with pytest.raises(AccessDeniedError) as caught:
        admission.require(Right.WRITE)
    assert (caught.value.principal, caught.value.right) == (PEER.uuid, "write")
    with pytest.raises(AccessDeniedError):
        grants.admit(OTHER.uuid)


def test_what_is_revoked_holds_for_those_who_are_connected() -> None:
    grants = Grants()
    grants.grant(PEER.uuid, ALL_RIGHTS)
    admission = grants.admit(PEER.uuid)
    assert admission.rights() == ALL_RIGHTS
    assert grants.revoke(PEER.uuid)
    assert admission.rights() == frozenset()
    assert not grants.revoke(PEER.uuid)


def test_a_grant_can_end() -> None:
    grants = Grants()
    grants.grant(PEER.uuid, [Right.READ], expires=1000.0)
    assert grants.rights_of(PEER.uuid, now=999.0) == {Right.READ}
    assert grants.rights_of(PEER.uuid, now=1000.0) == frozenset()


def test_a_changed_grant_keeps_what_is_known_of_the_peer() -> None:
    grants = Grants()
    grants.grant(PEER.uuid, [Right.READ], name="lab", addresses=["a:1"], relay="wss://r")
    grants.grant(PEER.uuid, [Right.WRITE])
    known = grants.peer(PEER.uuid)
    assert known is not None
    assert (known.name, known.addresses, known.relay) == ("lab", ("a:1",), "wss://r")
    assert known.rights == {Right.WRITE}
    assert list(grants.peers()) == [PEER.uuid]


# Groups.


def test_members_of_a_group_get_the_lesser_of_both_grants() -> None:
    grants = Grants()
    both = Membership.issue(OWNER, PEER.uuid, [Right.READ, Right.LIST])
    with pytest.raises(AccessDeniedError):
        grants.admit(PEER.uuid, [both.raw])
    grants.grant_group(OWNER.uuid, [Right.READ, Right.WRITE], name="us")
    admission = grants.admit(PEER.uuid, [both.raw])
    assert admission.rights() == {Right.READ}
    assert admission.rights(time.time() + 31 * DAY) == frozenset()
    assert grants.groups()[OWNER.uuid].name == "us"
    assert grants.revoke_group(OWNER.uuid)
    assert admission.rights() == frozenset()


def test_another_ones_membership_is_worth_nothing() -> None:
    grants = Grants()
    grants.grant_group(OWNER.uuid, ALL_RIGHTS)
    stolen = Membership.issue(OWNER, OTHER.uuid, ALL_RIGHTS)
    with pytest.raises(AccessDeniedError):
        grants.admit(PEER.uuid, [stolen.raw])
    own = Membership.issue(PEER, PEER.uuid, ALL_RIGHTS)  # of a group nobody trusts
    with pytest.raises(AccessDeniedError):
        grants.admit(PEER.uuid, [own.raw])


def test_a_membership_has_dates() -> None:
    with pytest.raises(MembershipError, match="30 days"):
        Membership.issue(OWNER, PEER.uuid, lifetime=31 * DAY)
    with pytest.raises(MembershipError):
        Membership.issue(OWNER, PEER.uuid, lifetime=0)
    membership = Membership.issue(OWNER, PEER.uuid, lifetime=DAY, now=1e9)
    membership.check(PEER.uuid, now=1e9 + DAY - 1)
    membership.check(PEER.uuid, now=1e9 - limits.CLOCK_SKEW)
    for now in (1e9 + DAY, 1e9 - limits.CLOCK_SKEW - 1):
        with pytest.raises(MembershipError, match="ended"):
            membership.check(PEER.uuid, now=now)
    with pytest.raises(MembershipError, match="is "):
        membership.check(OTHER.uuid, now=1e9)


def test_a_membership_that_was_signed_for_too_long_is_refused() -> None:
    raw = Membership.issue(OWNER, PEER.uuid, now=1e9).raw
    claims, _ = msgspec.msgpack.decode(raw)
    fields = msgspec.msgpack.decode(claims)
    fields[4] = fields[3] + 40 * 86400
    long = msgspec.msgpack.encode(fields)
    signature = OWNER.sign(b"proxystore membership 1\0" + long)
    with pytest.raises(MembershipError, match="longer"):
        Membership.decode(msgspec.msgpack.encode([long, signature]))


@settings(max_examples=300)
@given(data=st.data())
def test_a_changed_membership_is_refused(data: st.DataObject) -> None:
    raw = bytearray(RAW)
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= data.draw(st.integers(1, 255))
    try:
        changed = Membership.decode(bytes(raw))
    except MembershipError:
        return
    # What is signed is untouched: only the frame around it was written differently.
    assert msgspec.structs.replace(changed, raw=RAW) == Membership.decode(RAW)


RAW = Membership.issue(OWNER, PEER.uuid, [Right.READ, Right.WRITE]).raw


@given(raw=st.binary(max_size=300))
def test_noise_is_no_membership(raw: bytes) -> None:
    with pytest.raises(MembershipError):
        Membership.decode(raw)


def test_rights_of_a_later_version_are_left_out() -> None:
    claims = msgspec.msgpack.encode(
        [OWNER.public_key, str(PEER.uuid), ["read", "dance"], 1000, 2000]
    )
    signature = OWNER.sign(b"proxystore membership 1\0" + claims)
    membership = Membership.decode(msgspec.msgpack.encode([claims, signature, "more"]))
    assert membership.rights == {Right.READ}


def test_our_own_memberships_are_shown_while_they_hold(tmp_path: Path) -> None:
    grants = Grants(tmp_path / "grants.json")
    now = time.time()
    first = Membership.issue(OWNER, OURS.uuid, lifetime=DAY, now=now)
    second = Membership.issue(OWNER, OURS.uuid, lifetime=2 * DAY, now=now)
    other = Membership.issue(OTHER, OURS.uuid, lifetime=3 * DAY, now=now)
    for membership in (first, second, other):
        grants.add_membership(membership.raw, OURS.uuid)
    assert Grants(tmp_path / "grants.json").memberships() == [second.raw, other.raw]
    assert grants.memberships(now + 2.5 * DAY) == [other.raw]
    with pytest.raises(MembershipError):
        grants.add_membership(Membership.issue(OWNER, PEER.uuid).raw, OURS.uuid)


# Tickets.


def test_a_ticket_becomes_a_grant_once(tmp_path: Path) -> None:
    issuer, guest = Grants(tmp_path / "issuer.json"), Grants(tmp_path / "guest.json")
    ticket = Ticket.issue(OURS, addresses=["10.0.0.1:1"], relay="wss://r", rights=ALL_RIGHTS)
    issuer.share(ticket, name="for Ada")
    guest.accept(Ticket.decode(ticket.encode()), name="from Bob")
    known = guest.peer(OURS.uuid)
    assert known is not None
    assert known.rights == frozenset()
    assert (known.addresses, known.relay) == (("10.0.0.1:1",), "wss://r")
    assert issuer.admit(PEER.uuid, ticket=known.ticket).rights() == ALL_RIGHTS
    guest.accepted(OURS.uuid)
    after = guest.peer(OURS.uuid)
    assert after is not None
    assert after.ticket == b""
    assert issuer.admit(PEER.uuid, ticket=ticket.secret).rights() == ALL_RIGHTS  # known now
    with pytest.raises(AccessDeniedError):
        issuer.admit(OTHER.uuid, ticket=ticket.secret)
    assert Grants(tmp_path / "issuer.json").peers()[PEER.uuid].name == "for Ada"
    assert ticket.secret.hex() not in (tmp_path / "issuer.json").read_text()
    assert guest.admit(OURS.uuid).rights() == frozenset()  # it may come, and do nothing


def test_a_ticket_ends() -> None:
    grants = Grants()
    ticket = Ticket.issue(OURS, lifetime=10.0, now=1000.0)
    grants.share(ticket, now=1000.0)
    with pytest.raises(AccessDeniedError):
        grants.admit(PEER.uuid, ticket=ticket.secret, now=1010.0)
    with pytest.raises(AccessDeniedError):  # and is not tried again
        grants.admit(PEER.uuid, ticket=ticket.secret, now=1000.0)


def test_a_ticket_lets_in_one_of_many_that_come_at_once(tmp_path: Path) -> None:
    path = tmp_path / "grants.json"
    ticket = Ticket.issue(OURS)
    Grants(path).share(ticket)
    guests = [Identity.generate() for _ in range(16)]
    let_in: list[Identity] = []
    start = threading.Barrier(len(guests))

    def come(guest: Identity) -> None:
        grants = Grants(path)
        start.wait()
        try:
            grants.admit(guest.uuid, ticket=ticket.secret)
        except AccessDeniedError:
            return
        let_in.append(guest)

    threads = [threading.Thread(target=come, args=(guest,)) for guest in guests]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(let_in) == 1
    assert list(Grants(path).peers()) == [let_in[0].uuid]


# The file.


def test_the_file_is_ours_alone(tmp_path: Path) -> None:
    path = tmp_path / "grants.json"
    grants = Grants(path)
    assert not path.exists()
    grants.grant(PEER.uuid, ALL_RIGHTS, name="Ada")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert Grants(path).rights_of(PEER.uuid) == ALL_RIGHTS
    assert sorted(p.name for p in tmp_path.iterdir()) == ["grants.json", "grants.json.lock"]
    path.chmod(0o620)
    with pytest.raises(GrantFileError, match="chmod 600") as caught:
        Grants(path)
    assert caught.value.path == str(path)


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at the file again sooner than after a second."""
    monkeypatch.setattr(grant_file, "_RECHECK", 0.05)


@pytest.mark.usefixtures("soon")
def test_changes_of_another_process_are_seen(tmp_path: Path) -> None:
    path = tmp_path / "grants.json"
    daemon, command = Grants(path), Grants(path)
    command.grant(PEER.uuid, [Right.READ])
    assert wait_until(lambda: daemon.rights_of(PEER.uuid) == {Right.READ}, timeout=5.0)
    admission = daemon.admit(PEER.uuid)
    command.revoke(PEER.uuid)
    assert wait_until(lambda: not admission.rights(), timeout=5.0)
    ticket = Ticket.issue(OURS)
    command.share(ticket)
    assert daemon.admit(OTHER.uuid, ticket=ticket.secret).rights() == {Right.READ}  # at once


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"version": 2}', b'{"peers": {"x": {}}}'])
def test_a_damaged_file_grants_nothing_and_is_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "grants.json"
    grants = Grants(path)
    grants.grant(PEER.uuid, ALL_RIGHTS)
    path.write_bytes(content)
    with pytest.raises(GrantFileError):
        Grants(path)
    assert wait_until(lambda: not grants.rights_of(PEER.uuid), timeout=5.0)
    with pytest.raises(GrantFileError):
        grants.grant(OTHER.uuid)
    assert path.read_bytes() == content


def test_a_failed_write_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "grants.json"
    grants = Grants(path)
    grants.grant(PEER.uuid, [Right.READ])

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(grant_file.os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        grants.grant(PEER.uuid, ALL_RIGHTS)
    monkeypatch.undo()
    assert grants.rights_of(PEER.uuid) == {Right.READ}
    assert Grants(path).rights_of(PEER.uuid) == {Right.READ}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["grants.json", "grants.json.lock"]


def _grant_many(path: Path, seed: int) -> None:
    grants = Grants(path)
    for _ in range(20):
        grants.grant(Identity.generate().uuid, name=str(seed))


def test_processes_do_not_lose_each_others_changes(tmp_path: Path) -> None:
    path = tmp_path / "grants.json"
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_grant_many, args=(path, seed)) for seed in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
        assert process.exitcode == 0
    assert len(Grants(path).peers()) == 80
