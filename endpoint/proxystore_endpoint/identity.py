"""Who an endpoint is: an Ed25519 key, and an id that anyone can check against it.

Ed25519 is RFC 8032; the key file is PKCS #8 in PEM, as `openssl genpkey` writes it.
"""

from __future__ import annotations

import hashlib
import os
import stat
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Final, NoReturn
from uuid import UUID

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.x509.oid import NameOID

from proxystore_endpoint.exceptions import IdentityFileError

_UUID_LABEL: Final = b"proxystore endpoint id 1\0"
_NOT_BEFORE: Final = datetime(2000, 1, 1, tzinfo=UTC)
_NOT_AFTER: Final = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)  # RFC 5280: no end


def uuid_of(public_key: bytes) -> UUID:
    """Id of the endpoint with this key.

    The first 128 bits of SHA-256 over a label and the key, with the bits of a version 4
    UUID set: 122 bits tie the id to the key.

    Args:
        public_key: Raw Ed25519 key, 32 bytes.
    """
    return UUID(bytes=hashlib.sha256(_UUID_LABEL + public_key).digest()[:16], version=4)


def verify(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Tell whether `signature` over `message` was made with the key behind `public_key`."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


class Identity:
    """An endpoint's private key and what follows from it."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public_key: Final = key.public_key().public_bytes_raw()
        """Raw Ed25519 key, 32 bytes."""
        self.uuid: Final = uuid_of(self.public_key)
        """Id of the endpoint."""

    @classmethod
    def generate(cls) -> Identity:
        """Make a new identity."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Identity:
        """Read an identity that `save` wrote.

        Raises:
            IdentityFileError: The file is missing, no key, another user's, or others may read it.
        """
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError as error:
            raise _file_error(path, f"cannot be opened ({error.strerror}).") from error
        with open(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise _file_error(path, "is no regular file.")
            if status.st_uid != os.geteuid():
                raise _file_error(path, "belongs to another user: it cannot be trusted.")
            if status.st_mode & 0o077:
                mode = stat.S_IMODE(status.st_mode)
                raise _file_error(
                    path,
                    f"has mode {mode:04o}, so that others may have it. Run `chmod 600` on it, or "
                    "make a new identity if others could read it.",
                )
            raw = file.read(4096)
        try:
            key = serialization.load_pem_private_key(raw, password=None)
        except (ValueError, TypeError) as error:
            raise _file_error(path, "holds no private key.") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise _file_error(path, "holds a key of another kind than Ed25519.")
        return cls(key)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the key to a new file that only its owner can read.

        Raises:
            IdentityFileError: The file exists already, or cannot be written.
        """
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            descriptor = os.open(path, flags, 0o600)
        except OSError as error:
            raise _file_error(path, f"cannot be made ({error.strerror}).") from error
        try:
            with open(descriptor, "wb") as file:
                os.fchmod(descriptor, 0o600)  # whatever the umask took away
                file.write(self._pem())
                file.flush()
                os.fsync(descriptor)
        except OSError as error:
            Path(path).unlink(missing_ok=True)
            raise _file_error(path, f"cannot be written ({error.strerror}).") from error

    def sign(self, message: bytes) -> bytes:
        """Sign a message: 64 bytes. The message must start with a label of its purpose."""
        return self._key.sign(message)

    def certificate(self) -> tuple[bytes, bytes]:
        """A self-signed X.509 certificate and its private key, both as PEM.

        It says nothing but the key: peers compare that, and no date or name.
        """
        return self._certificate, self._pem()

    @cached_property
    def _certificate(self) -> bytes:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, str(self.uuid))])
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(_NOT_BEFORE)
            .not_valid_after(_NOT_AFTER)
            .sign(self._key, None)
        )
        return certificate.public_bytes(serialization.Encoding.PEM)

    def _pem(self) -> bytes:
        return self._key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )

    def __repr__(self) -> str:
        return f"Identity({self.uuid})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("An identity holds a private key and cannot be pickled.")


def _file_error(path: str | os.PathLike[str], what: str) -> IdentityFileError:
    path = os.fspath(path)
    return IdentityFileError(f"The identity file {path!r} {what}", path=path)
