"""The configuration of a relay: ProxyStore's keys, and limits."""

from __future__ import annotations

import os
import ssl
import tomllib
from pathlib import Path
from typing import Any, Literal

import msgspec

from proxystore_endpoint.exceptions import EndpointConfigError
from proxystore_endpoint.relay.auth import Authenticator, make_authenticator
from proxystore_endpoint.relay.limits import RelayLimits

DEFAULT_PORT = 8700
LEVELS = ("CRITICAL", "ERROR", "WARNING", "INFO", "DEBUG")


class _Part(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A table of the configuration file."""


class RelayAuthConfig(_Part):
    """Who may use the relay.

    Attributes:
        method: `none`, `secret` or `globus`.
        kwargs: What the method needs: `secret_file` for `secret`; `client_id`, `client_secret`,
            `audience` and `users` for `globus`.
    """

    method: Literal["none", "secret", "globus"] | None = None
    kwargs: dict[str, Any] = {}

    def __repr__(self) -> str:
        return f"RelayAuthConfig(method={self.method!r})"  # kwargs hold secrets


class RelayLoggingConfig(_Part):
    """What the relay writes down.

    Attributes:
        log_dir: Directory for a log file that is rotated every week; none for no file.
        default_level: Level of the relay's messages.
        websockets_level: Level of the websockets library's, most of which strangers cause.
        current_client_interval: Seconds between two lines about how many clients there are; none
            for no such lines.
        current_client_limit: Most clients that such a line names; none for no names.
    """

    log_dir: str | None = None
    default_level: int | str = "INFO"
    websockets_level: int | str = "CRITICAL"
    current_client_interval: int | None = 60
    current_client_limit: int | None = 32

    def __post_init__(self) -> None:
        for level in (self.default_level, self.websockets_level):
            if isinstance(level, str) and level.upper() not in LEVELS:
                raise ValueError(f"A level is one of {', '.join(LEVELS)}, not {level!r}.")


class RelayServingConfig(_Part):
    """How a relay serves.

    Attributes:
        host: Address to listen at; none for all.
        port: Port to listen at.
        names: Host names that the relay is dialled by. With them, it refuses registrations that
            were signed for another relay.
        certfile: Certificate for TLS, with its chain, in PEM.
        keyfile: Its private key; none if it is in the same file.
        auth: Who may use the relay.
        logging: What is written down.
        limits: What clients may do.
        max_message_bytes: ProxyStore's name for `limits.payload`.
    """

    host: str | None = None
    port: int = DEFAULT_PORT
    names: list[str] = []
    certfile: str | None = None
    keyfile: str | None = None
    auth: RelayAuthConfig = msgspec.field(default_factory=RelayAuthConfig)
    logging: RelayLoggingConfig = msgspec.field(default_factory=RelayLoggingConfig)
    limits: RelayLimits = msgspec.field(default_factory=RelayLimits)
    max_message_bytes: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ValueError(f"A port is 0 to 65535, not {self.port}.")
        if self.keyfile is not None and self.certfile is None:
            raise ValueError("There is a keyfile but no certfile.")
        if self.max_message_bytes is not None:
            payload = min(self.max_message_bytes, self.limits.payload)
            self.limits = msgspec.structs.replace(self.limits, payload=payload)

    @classmethod
    def from_toml(cls, path: str | os.PathLike[str]) -> RelayServingConfig:
        """Read a configuration file.

        Raises:
            EndpointConfigError: If it cannot be read, or something in it is unknown or wrong.
        """
        name = os.fspath(path)
        try:
            data = tomllib.loads(Path(path).read_text(encoding="utf-8"))
            return msgspec.convert(data, cls)
        except OSError as error:
            raise EndpointConfigError(
                f"The relay's configuration cannot be read: {error}", path=name
            ) from error
        except (ValueError, msgspec.ValidationError) as error:
            raise EndpointConfigError(f"{name}: {error}", path=name) from error

    def authenticator(self) -> Authenticator:
        """Who decides who may use the relay.

        Raises:
            EndpointConfigError: If the method or its options are wrong.
        """
        return make_authenticator(self.auth.method, self.auth.kwargs)

    def ssl_context(self) -> ssl.SSLContext | None:
        """The TLS context, or `None` without a certificate.

        Raises:
            EndpointConfigError: If the certificate or its key cannot be used.
        """
        if self.certfile is None:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.load_certificate(context)
        return context

    def load_certificate(self, context: ssl.SSLContext) -> None:
        """Load the certificate, for instance again after it was renewed.

        Raises:
            EndpointConfigError: If it, or its key, cannot be used.
        """
        if self.certfile is None:
            return
        try:
            context.load_cert_chain(self.certfile, self.keyfile)
        except OSError as error:  # also what OpenSSL says
            raise EndpointConfigError(
                f"The certificate {self.certfile!r} or its key cannot be used: {error}",
                path=self.certfile,
                field="certfile",
            ) from error
