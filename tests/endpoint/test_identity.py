from __future__ import annotations

import os
import pickle
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st
from proxystore_endpoint.exceptions import IdentityFileError
from proxystore_endpoint.identity import Identity, uuid_of, verify

IDENTITY = Identity.generate()
OTHER = Identity.generate()


def test_an_id_follows_from_the_key_alone() -> None:
    identity = Identity.generate()
    assert identity.uuid == uuid_of(identity.public_key)
    assert identity.uuid.version == 4
    assert len(identity.public_key) == 32
    assert Identity.generate().uuid != identity.uuid
    # Fixed for ever: ids that people have written down depend on it.
    assert str(uuid_of(bytes(32))) == "6243a0b4-f0b2-4c9f-a937-248d89e6f572"


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "identity.key"
    identity = Identity.generate()
    old = os.umask(0o077)
    try:
        identity.save(path)
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    loaded = Identity.load(path)
    assert loaded.uuid == identity.uuid
    assert verify(identity.public_key, b"message", loaded.sign(b"message"))


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "identity.key"
    identity = Identity.generate()
    identity.save(path)
    with pytest.raises(IdentityFileError, match="exists"):
        Identity.generate().save(path)
    assert Identity.load(path).uuid == identity.uuid
    with pytest.raises(IdentityFileError):
        identity.save(tmp_path / "no" / "directory")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o622])
def test_a_key_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "identity.key"
    Identity.generate().save(path)
    path.chmod(mode)
    with pytest.raises(IdentityFileError, match="chmod 600") as caught:
        Identity.load(path)
    assert caught.value.path == str(path)


def test_what_is_no_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IdentityFileError, match="No such file"):
        Identity.load(tmp_path / "missing")
    link = tmp_path / "link"
    target = tmp_path / "target"
    Identity.generate().save(target)
    link.symlink_to(target)
    with pytest.raises(IdentityFileError):
        Identity.load(link)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo, 0o600)
    with pytest.raises(IdentityFileError, match="regular"):
        Identity.load(fifo)
    rsa_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    other = rsa_key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    for content, text in ((b"", "no private key"), (b"nonsense", "no private"), (other, "another")):
        path = tmp_path / f"key{len(content)}"
        path.write_bytes(content)
        path.chmod(0o600)
        with pytest.raises(IdentityFileError, match=text):
            Identity.load(path)


@given(message=st.binary(max_size=100), bit=st.integers(0, 511))
def test_a_signature_holds_for_one_message_and_one_key(message: bytes, bit: int) -> None:
    signature = IDENTITY.sign(message)
    assert verify(IDENTITY.public_key, message, signature)
    assert not verify(IDENTITY.public_key, message + b"x", signature)
    assert not verify(OTHER.public_key, message, signature)
    flipped = bytearray(signature)
    flipped[bit // 8] ^= 1 << (bit % 8)
    assert not verify(IDENTITY.public_key, message, bytes(flipped))


@pytest.mark.parametrize("key", [b"", bytes(31), bytes(33), b"\xff" * 32])
@pytest.mark.parametrize("signature", [b"", bytes(64), bytes(63)])
def test_nonsense_verifies_nothing(key: bytes, signature: bytes) -> None:
    assert not verify(key, b"message", signature)


def test_the_certificate_is_of_the_key_and_says_no_more() -> None:
    identity = Identity.generate()
    certificate, key = identity.certificate()
    parsed = x509.load_pem_x509_certificate(certificate)
    assert parsed.public_key().public_bytes_raw() == identity.public_key  # type: ignore[union-attr]
    assert not list(parsed.extensions)
    assert parsed.not_valid_after_utc.year == 9999
    assert b"PRIVATE KEY" in key
    assert identity.certificate()[0] == certificate


def test_a_key_does_not_leak_by_accident() -> None:
    identity = Identity.generate()
    assert repr(identity) == f"Identity({identity.uuid})"
    with pytest.raises(TypeError, match="private key"):
        pickle.dumps(identity)
