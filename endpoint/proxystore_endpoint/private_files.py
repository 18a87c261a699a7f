"""Files of an endpoint that nobody else may read, and its token."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from proxystore_endpoint.exceptions import EndpointConfigError

ENDPOINT_TOKEN_FILE = "token"  # noqa: S105 - the name of a file
TOKEN_BYTES = 32
MAX_TOKEN_CHARS = 256


def write_private(path: Path, data: bytes) -> None:
    """Write a file that only its owner may read, whole or not at all."""
    staged = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    fd = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        staged.replace(path)
    except BaseException:
        staged.unlink(missing_ok=True)
        raise


def make_token(endpoint_dir: str | os.PathLike[str]) -> str:
    """Make a new token for REST clients and keep it in the endpoint's directory."""
    token = secrets.token_urlsafe(TOKEN_BYTES)
    write_private(Path(endpoint_dir) / ENDPOINT_TOKEN_FILE, token.encode() + b"\n")
    return token


def read_token(endpoint_dir: str | os.PathLike[str]) -> str:
    """Read the token that REST clients show.

    Raises:
        EndpointConfigError: There is none, or others may read it.
    """
    path = Path(endpoint_dir) / ENDPOINT_TOKEN_FILE
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            token = file.read(MAX_TOKEN_CHARS + 1).decode("ascii").strip()
    except (OSError, ValueError) as error:
        raise EndpointConfigError(
            f"The token of the endpoint cannot be read from {path}: {error}", path=str(path)
        ) from error
    if status.st_mode & 0o077:
        raise EndpointConfigError(
            f"Others may read {path}. Close it with: chmod 600 {path}; then remove it and "
            "restart the endpoint, which makes a new one.",
            path=str(path),
        )
    if not token or len(token) > MAX_TOKEN_CHARS:
        raise EndpointConfigError(
            f"{path} holds no token. Remove it and restart the endpoint, which makes a new one.",
            path=str(path),
        )
    return token
