"""What an endpoint is: a directory with a configuration, made by `proxystore-endpoint configure`.

```
$PROXYSTORE_HOME/<name>/        0700
  config.toml    0600  this module; keys of ProxyStore where it has them
  identity.key   0600  the Ed25519 key that the UUID is derived from
  token          0600  what REST clients show
  grants.json    0600  who may do what (`share`, `accept`)
  daemon.pid           the running daemon (see `running`)
  log.txt              its log
  blobs/               durable objects
```
"""

from __future__ import annotations

import os
import re
import socket
import tomllib
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec

from proxystore_core.utils.data import readable_to_bytes
from proxystore_endpoint.exceptions import EndpointConfigError
from proxystore_endpoint.private_files import ENDPOINT_TOKEN_FILE as ENDPOINT_TOKEN_FILE
from proxystore_endpoint.private_files import make_token as make_token
from proxystore_endpoint.private_files import read_token as read_token
from proxystore_endpoint.private_files import write_private as write_private

ENDPOINT_CONFIG_FILE = "config.toml"
ENDPOINT_OBJECTS_DIR = "blobs"
ENDPOINT_GRANTS_FILE = "grants.json"
ENDPOINT_IDENTITY_FILE = "identity.key"
ENDPOINT_LOG_FILE = "log.txt"
ENDPOINT_PID_FILE = "daemon.pid"

LOCAL_HOST = "127.0.0.1"
MAX_NAME_CHARS = 64

_NAME = re.compile(r"[A-Za-z0-9_-]+\Z")
_SCHEMES = ("ws", "wss")

Size = int | str
_SIZES = ("max_object_size", "memory_quota", "copies_quota", "in_flight_limit", "disk_quota")


class _Part(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """A table of the configuration file."""


class EndpointRelayAuthConfig(_Part):
    """How the endpoint proves to the relay who its user is.

    Attributes:
        method: `secret` (a shared secret), `globus` (Globus Auth), or none.
        kwargs: What the method needs, such as `secret_file` for `secret`.
    """

    method: Literal["globus", "secret"] | None = None
    kwargs: dict[str, Any] = {}


class EndpointRelayICEServerConfig(_Part):
    """A STUN or TURN server.

    Attributes:
        urls: One or more URLs, such as `stun:stun.example.org:3478`.
        username: For a TURN server that wants one.
        credential: Password of the TURN server.
    """

    urls: str | list[str]
    username: str | None = None
    credential: str | None = None


class EndpointRelayConfig(_Part):
    """The relay, which peers meet at that cannot reach each other directly.

    Attributes:
        address: `wss://host[:port]`, or `ws://` on a network that is trusted; none for no relay.
        auth: How to authenticate.
        ice_servers: STUN and TURN servers for hole punching; none for public STUN servers,
            an empty list for no servers.
        peer_channels: Taken for ProxyStore's sake; streams are multiplexed as needed.
        verify_certificate: Whether the relay's certificate has to be valid.
        ca_file: Certificates to trust beside the system's, for a relay with one of its own.
    """

    address: str | None = None
    auth: EndpointRelayAuthConfig = msgspec.field(default_factory=EndpointRelayAuthConfig)
    ice_servers: list[EndpointRelayICEServerConfig] | None = None
    peer_channels: int = 1
    verify_certificate: bool = True
    ca_file: str | None = None

    def __post_init__(self) -> None:
        if self.address is not None:
            parts = urlsplit(self.address)
            if parts.scheme not in _SCHEMES or not parts.hostname:
                raise ValueError(
                    f"A relay's address is wss://host[:port] or ws://host[:port], not "
                    f"{self.address!r}."
                )
        if self.peer_channels < 1:
            raise ValueError(f"peer_channels has to be 1 or more, not {self.peer_channels}.")


class EndpointStorageConfig(_Part):
    """How much the endpoint may hold, and where. Sizes are bytes or text like `'4 GB'`.

    Attributes:
        persist_dir: Directory for durable objects; none for no durable objects (`configure
            --persist` sets it). Where there is one, puts are durable unless they say otherwise.
        max_object_size: Largest object; by default what the quotas allow.
        memory_quota: Memory for objects; by default half of what there is.
        copies_quota: Memory for copies of other endpoints' objects; by default half of it.
        keep_copies: Whether a copy of a peer's object is a replica: handed out without asking
            the peer, also when that is gone. Only for keys whose objects never change.
        in_flight_limit: Bytes of objects that are arriving; by default the memory quota.
        disk_quota: Disk for objects that do not fit into memory, and for durable ones; by
            default half of the free space.
        spill_dir: Where objects go that do not fit into memory; by default the temporary
            directory.
        spill: Whether they go there at all.
    """

    persist_dir: str | None = None
    max_object_size: Size | None = None
    memory_quota: Size | None = None
    copies_quota: Size | None = None
    keep_copies: bool = False
    in_flight_limit: Size | None = None
    disk_quota: Size | None = None
    spill_dir: str | None = None
    spill: bool = True

    def __post_init__(self) -> None:
        for name in _SIZES:
            value = getattr(self, name)
            if value is not None and to_bytes(name, value) < 1:
                raise ValueError(f"{name} has to be above zero, not {value!r}.")


class EndpointPeeringConfig(_Part):
    """How other endpoints reach this one directly.

    Attributes:
        enabled: Whether to have peers at all.
        host: Address to listen on; by default all. Strangers get no further than the handshake.
        port: Port to listen on; 0 for any.
        advertise: Addresses `host:port` to tell peers of instead of those of the interfaces.
        webrtc: Whether to try hole punching where there is no direct way.
    """

    enabled: bool = True
    host: str = "0.0.0.0"  # noqa: S104 - peers prove their identity before anything else
    port: int = 0
    advertise: list[str] = []
    webrtc: bool = True

    def __post_init__(self) -> None:
        check_port(self.port, lowest=0)
        for address in self.advertise:
            split_address(address)


class EndpointPeerConfig(_Part):
    """A peer that is known by its address, without a relay.

    Attributes:
        addresses: `host:port`, tried side by side.
        name: For people.
    """

    addresses: list[str] = []
    name: str = ""

    def __post_init__(self) -> None:
        for address in self.addresses:
            split_address(address)


class EndpointConfig(_Part):
    """Configuration of an endpoint.

    Attributes:
        name: Its name on this machine: letters, digits, dashes and underscores.
        uuid: Its UUID, derived from its identity key.
        port: Port of the REST API.
        host: Address that the REST API listens on, if `host_type` is `static`; by default
            127.0.0.1, which only this machine reaches.
        host_type: `static`, or the `ip` or `fqdn` of the machine that it is started on.
        allowed_hosts: Further names that clients may use for it, beside its address.
        allowed_origins: Web origins whose pages may use the API; by default its own alone.
        relay: The relay.
        peering: Direct ways to this endpoint.
        peers: Peers that are known by address, by their UUID.
        storage: Limits and places.
    """

    name: str
    uuid: str
    port: int
    host: str | None = None
    host_type: Literal["fqdn", "ip", "static"] = "static"
    allowed_hosts: list[str] = []
    allowed_origins: list[str] = []
    relay: EndpointRelayConfig = msgspec.field(default_factory=EndpointRelayConfig)
    peering: EndpointPeeringConfig = msgspec.field(default_factory=EndpointPeeringConfig)
    peers: dict[str, EndpointPeerConfig] = {}
    storage: EndpointStorageConfig = msgspec.field(default_factory=EndpointStorageConfig)

    def __post_init__(self) -> None:
        if not validate_name(self.name):
            raise ValueError(
                f"A name is made of at most {MAX_NAME_CHARS} letters, digits, dashes and "
                f"underscores; {self.name!r} is not."
            )
        for text in (self.uuid, *self.peers):
            _check_uuid(text)
        check_port(self.port, lowest=1)
        if self.host == "":
            raise ValueError("host is empty: leave it out, or name an address.")

    def bind_host(self) -> str:
        """Return the address that the REST API listens on, on this machine.

        Raises:
            EndpointConfigError: The name of this machine has no address.
        """
        if self.host_type == "fqdn":
            return socket.getfqdn()
        if self.host_type == "ip":
            try:
                return socket.gethostbyname(socket.gethostname())
            except OSError as error:
                raise EndpointConfigError(
                    f"The name of this machine, {socket.gethostname()!r}, has no address "
                    f"({error}). Write the address into the configuration: host = '...', "
                    "host_type = 'static'."
                ) from error
        return self.host or LOCAL_HOST


def to_bytes(name: str, value: Size) -> int:
    """Read a size.

    Raises:
        ValueError: It is none.
    """
    try:
        return readable_to_bytes(value)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{name} = {value!r} is not a size like 1000000 or '4 GB'.") from error


def check_port(port: int, *, lowest: int) -> None:
    """Refuse what is no port.

    Raises:
        ValueError: It is none.
    """
    if not lowest <= port <= 65535:
        raise ValueError(f"A port is a number from {lowest} to 65535, not {port}.")


def split_address(address: str) -> tuple[str, int]:
    """Take `host:port` or `[ipv6]:port` apart.

    Raises:
        ValueError: It is neither.
    """
    host, colon, port = address.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        colon = ""
    if not colon or not host or not port.isascii() or not port.isdigit():
        raise ValueError(f"An address is host:port or [ipv6]:port, not {address!r}.")
    check_port(int(port), lowest=1)
    return host, int(port)


def validate_name(name: str) -> bool:
    """Tell whether a name is made of letters, digits, dashes and underscores."""
    return bool(_NAME.match(name)) and len(name) <= MAX_NAME_CHARS


def _check_uuid(text: str) -> None:
    try:
        good = str(uuid.UUID(text)) == text and uuid.UUID(text).version == 4
    except ValueError:
        good = False
    if not good:
        raise ValueError(f"{text!r} is not a version 4 UUID like {uuid.UUID(int=0, version=4)}.")


def read_config(endpoint_dir: str | os.PathLike[str]) -> EndpointConfig:
    """Read the configuration of an endpoint.

    Args:
        endpoint_dir: Its directory.

    Raises:
        FileNotFoundError: There is none in this directory.
        EndpointConfigError: It cannot be read, has a key that means nothing, or a wrong value.
    """
    path = Path(endpoint_dir) / ENDPOINT_CONFIG_FILE
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        return msgspec.convert(table, EndpointConfig)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"There is no endpoint in {endpoint_dir}: it has no {ENDPOINT_CONFIG_FILE}. "
            "Make one with: proxystore-endpoint configure NAME"
        ) from None
    except (OSError, ValueError) as error:  # all that tomllib and msgspec raise is a ValueError
        text = f"{path} cannot be used: {_plain(error)}"
        raise EndpointConfigError(text, path=str(path)) from error


def _plain(error: Exception) -> str:
    text = str(error)
    return text.replace("Object contains", "it contains").replace("Object missing", "it lacks")


def write_config(cfg: EndpointConfig, endpoint_dir: str | os.PathLike[str]) -> None:
    """Write a configuration into the directory of its endpoint, which is made if need be."""
    import tomli_w

    directory = Path(endpoint_dir)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    table = _without_none(msgspec.to_builtins(cfg))
    text = "# All keys: docs/endpoint.md. Restart the endpoint after a change.\n"
    write_private(directory / ENDPOINT_CONFIG_FILE, (text + tomli_w.dumps(table)).encode())


def _without_none(value: Any) -> Any:
    """Leave out what is `None`: TOML has no such thing, and it is the default."""
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    return value


def get_configs(proxystore_dir: str | os.PathLike[str]) -> list[EndpointConfig]:
    """Return the valid configurations under a home directory, by name."""
    return list(find_configs(proxystore_dir).values())


def find_configs(proxystore_dir: str | os.PathLike[str]) -> Mapping[Path, EndpointConfig]:
    """Find the valid configurations under a home directory.

    Returns:
        Directories and what they configure, by name.
    """
    found: dict[Path, EndpointConfig] = {}
    try:
        directories = sorted(path for path in Path(proxystore_dir).iterdir() if path.is_dir())
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return found
    for directory in directories:
        try:
            found[directory] = read_config(directory)
        except (FileNotFoundError, EndpointConfigError):
            continue  # something else's directory; the commands on it say what is wrong
    return found


def get_log_filepath(endpoint_dir: str | os.PathLike[str]) -> str:
    """Return the path of the log of an endpoint."""
    return str(Path(endpoint_dir) / ENDPOINT_LOG_FILE)


def get_pid_filepath(endpoint_dir: str | os.PathLike[str]) -> str:
    """Return the path of the file that names the running daemon of an endpoint."""
    return str(Path(endpoint_dir) / ENDPOINT_PID_FILE)
