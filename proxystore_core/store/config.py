"""What a store is: a configuration, which travels and names the store everywhere."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from proxystore_core.connectors.protocols import Connector
from proxystore_core.exceptions import MissingExtraError, StoreConfigError
from proxystore_core.store.types import ConnectorKeyT, DeserializerT, SerializerT
from proxystore_core.utils.data import readable_to_bytes
from proxystore_core.utils.imports import get_object_path, import_from_path

if TYPE_CHECKING:
    from pathlib import Path


class _Known(NamedTuple):
    module: str
    connector: str
    key: str


# Short name -> where the connector lives. The first name of a module is the one that is written.
_KNOWN = {
    "local": _Known("proxystore_core.connectors.local", "LocalConnector", "LocalKey"),
    "file": _Known("proxystore_core.connectors.file", "FileConnector", "FileKey"),
    "shm": _Known(
        "proxystore_core.connectors.shared_memory", "SharedMemoryConnector", "SharedMemoryKey"
    ),
    "endpoint": _Known("proxystore_endpoint.connector", "EndpointConnector", "EndpointKey"),
}
_NAMES = {
    "shared_memory": "shm",
    "sharedmemory": "shm",
    **{name: name for name in _KNOWN},
    **{known.connector.lower(): name for name, known in _KNOWN.items()},
    **{f"{known.module}.{known.connector}": name for name, known in _KNOWN.items()},
    # A configuration written for ProxyStore means our connector of that name.
    "proxystore.connectors.local.LocalConnector": "local",
    "proxystore.connectors.file.FileConnector": "file",
    "proxystore.connectors.endpoint.EndpointConnector": "endpoint",
}


@functools.cache
def _key_type(kind: str) -> type[ConnectorKeyT]:
    known = _KNOWN[kind]
    found: type[ConnectorKeyT] = import_from_path(f"{known.module}.{known.key}")
    return found


@dataclasses.dataclass(frozen=True)
class ConnectorConfig:
    """Which connector, and its options.

    Attributes:
        kind: `local`, `file`, `shm`, `endpoint` or the path of a class, `package.module.Class`.
        options: What the `from_config` of the connector takes: its own `config()`,
            or its constructor's keyword arguments.
    """

    kind: str
    options: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.kind, str) or not self.kind:
            raise StoreConfigError(f"The kind of a connector is a name, not {self.kind!r}.")
        if not isinstance(self.options, dict) or not all(isinstance(k, str) for k in self.options):
            raise StoreConfigError(
                f"The options of a connector are keyword arguments, not {self.options!r}."
            )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ConnectorConfig):
            return NotImplemented
        return self.short_kind() == other.short_kind() and self.options == other.options

    def __hash__(self) -> int:
        # Only of what cannot change: `LocalConnector` may have its objects in here.
        fixed = [item for item in self.options.items() if isinstance(item[1], (str, int))]
        return hash((self.short_kind(), *sorted(fixed)))

    def short_kind(self) -> str:
        """Return the short name of a connector of this package, else the path of its class."""
        return _NAMES.get(self.kind) or _NAMES.get(self.kind.lower(), self.kind)

    def get_connector_type(self) -> type[Connector[Any]]:
        """Import the connector's class.

        Raises:
            StoreConfigError: If `kind` names none.
            MissingExtraError: If the connector needs packages that are not installed.
        """
        known = _KNOWN.get(self.short_kind())
        path = f"{known.module}.{known.connector}" if known is not None else self.kind
        try:
            found: type[Connector[Any]] = import_from_path(path)
        except MissingExtraError:
            raise
        except ImportError as error:
            raise StoreConfigError(
                f"Unknown connector {self.kind!r} ({error}). Use one of {', '.join(_KNOWN)}, or "
                "the path of a class that this process can import: 'package.module.Class'."
            ) from error
        return found

    def get_connector(self) -> Connector[Any]:
        """Make the connector.

        Raises:
            StoreConfigError: If `kind` names none, or does not take these options.
        """
        connector_type = self.get_connector_type()
        try:
            return connector_type.from_config(dict(self.options))
        except TypeError as error:
            raise StoreConfigError(
                f"{connector_type.__name__} does not take the options {self.options!r}: {error}"
            ) from error

    def make_key(self, key: ConnectorKeyT) -> ConnectorKeyT:
        """Give a key that travelled as a plain tuple its type back."""
        kind = self.short_kind()
        if type(key) is not tuple or kind not in _KNOWN:
            return key
        made: ConnectorKeyT = _key_type(kind)(*key)
        return made


@dataclasses.dataclass(frozen=True)
class StoreConfig:
    """Everything that makes a store; two stores of equal configurations are the same store.

    Attributes:
        name: Name of the store.
        connector: Its connector.
        serializer: Serializer of all objects; `None` for the default.
        deserializer: Deserializer of all objects; `None` for the default.
        cache_size: Most objects in the cache.
        metrics: Record metrics.
        populate_target: Whether new proxies hold their target.
        auto_register: Register the store when it is made; no part of its identity.
        cache_bytes: Most bytes in the cache, a number or `'256 MB'`.
        verify: `True`: digests are written and must be right; `False`: none; `None`:
            digests where the connector's bytes leave this user and node.
    """

    name: str
    connector: ConnectorConfig
    serializer: SerializerT | None = None
    deserializer: DeserializerT | None = None
    cache_size: int = 16
    metrics: bool = False
    populate_target: bool = True
    auto_register: bool = dataclasses.field(default=False, compare=False)
    cache_bytes: int | str = 256_000_000
    verify: bool | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.connector, ConnectorConfig):
            raise StoreConfigError(f"The connector is no ConnectorConfig: {self.connector!r}.")
        if not isinstance(self.name, str) or not self.name:
            raise StoreConfigError(f"The name of a store is a string, not {self.name!r}.")
        if type(self.cache_size) is not int or self.cache_size < 0:
            raise StoreConfigError(f"cache_size is a number from 0, not {self.cache_size!r}.")
        for name in ("metrics", "populate_target", "auto_register"):
            if type(getattr(self, name)) is not bool:
                raise StoreConfigError(f"{name} is true or false, not {getattr(self, name)!r}.")
        if self.verify not in (None, True, False):
            raise StoreConfigError(f"verify is None, true or false, not {self.verify!r}.")
        for name in ("serializer", "deserializer"):
            if getattr(self, name) is not None and not callable(getattr(self, name)):
                raise StoreConfigError(f"{name} is no function: {getattr(self, name)!r}.")
        object.__setattr__(self, "cache_bytes", to_bytes(self.cache_bytes))

    def __hash__(self) -> int:
        return hash((self.name, self.connector, self.cache_size, self.metrics, self.verify))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Make a configuration from a mapping, with a mapping for the connector.

        Raises:
            StoreConfigError: If a field is missing, unknown or of a wrong type.
        """
        fields = dict(data)
        try:
            if isinstance(fields.get("connector"), Mapping):
                fields["connector"] = ConnectorConfig(**fields["connector"])
            for name in ("serializer", "deserializer"):
                if isinstance(fields.get(name), str):
                    fields[name] = import_from_path(fields[name])
            return cls(**fields)
        except TypeError as error:
            raise StoreConfigError(
                f"Not a store's configuration: {error}. It needs a name and a connector "
                f"with a kind; the fields are {', '.join(f.name for f in dataclasses.fields(cls))}."
            ) from None
        except ImportError as error:
            raise StoreConfigError(f"Cannot import the store's serializer: {error}") from error

    @classmethod
    def from_toml(cls, filepath: str | Path) -> Self:
        """Read a configuration.

        Raises:
            StoreConfigError: If the file is no TOML, or no configuration of a store.
            OSError: If the file cannot be read.
        """
        import tomllib
        from pathlib import Path

        try:
            data = tomllib.loads(Path(filepath).read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise StoreConfigError(f"{filepath} is not TOML: {error}") from error
        return cls.from_dict(data)

    def write_toml(self, filepath: str | Path) -> None:
        """Write the configuration, with all its defaults, and make the folder it lies in.

        Raises:
            StoreConfigError: If an option, or a function that cannot be imported by
                name, has no form in TOML.
        """
        from pathlib import Path

        from proxystore_core.store._toml import dumps

        data: dict[str, Any] = {
            field.name: getattr(self, field.name) for field in dataclasses.fields(self)
        }
        data["connector"] = {"kind": self.connector.kind, "options": self.connector.options}
        for name in ("serializer", "deserializer"):
            if data[name] is not None:
                data[name] = _function_path(data[name])
        filepath = Path(filepath)
        filepath.parent.mkdir(parents=True, exist_ok=True)
        filepath.write_text(dumps(data), encoding="utf-8")


def to_bytes(size: int | str) -> int:
    """Read a size such as `'256 MB'` or a number of bytes.

    Raises:
        StoreConfigError: If it is neither.
    """
    try:
        nbytes = int(readable_to_bytes(size))
    except (TypeError, ValueError) as error:
        raise StoreConfigError(f"{size!r} is no size; write 1000000 or '1 MB'.") from error
    if nbytes < 0:
        raise StoreConfigError(f"A size cannot be negative: {size!r}.")
    return nbytes


def _function_path(function: Any) -> str:
    try:
        path = get_object_path(function)
        if import_from_path(path) is function:
            return path
    except (AttributeError, ImportError):
        pass  # the error below says it
    raise StoreConfigError(
        f"{function!r} cannot be imported by name, so it cannot be written down. "
        "Use a function at the top of a module."
    )
