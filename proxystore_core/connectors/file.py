"""A channel through a directory of a (shared) file system."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from proxystore_core.connectors._area import is_full
from proxystore_core.connectors._file_owner import (
    EXPIRED,
    PARTIAL,
    clear_directory,
    has_expired,
    is_deferred,
    is_object_name,
    object_name,
    own,
    remove_stale,
    sweep_sometimes,
)
from proxystore_core.connectors._mapping import is_safe_to_map, map_private
from proxystore_core.connectors._parts import byte_views, put_all, read_all, write_all
from proxystore_core.connectors._process import try_lock, watch_fork
from proxystore_core.connectors.protocols import Usage
from proxystore_core.exceptions import (
    ConnectorClosedError,
    ConnectorConfigError,
    ConnectorUnavailableError,
    InvalidKeyError,
    MissingReason,
    StorageFullError,
)

if TYPE_CHECKING:
    from proxystore_core.serialize import BytesLike

_AGES = 1e11  # seconds
_MAPPED = 1 << 20  # from this size on (bytes) files are mapped instead of read


class FileKey(NamedTuple):
    """Key of an object in a `FileConnector`.

    Attributes:
        filename: Name of the object's file inside the directory.
    """

    filename: str


class FileConnector:
    """A connector that keeps every object in a file of one directory.

    The first connector made for a directory owns it. Closing that one removes the
    objects of all connectors to the directory, but nothing else that lies there;
    closing any other, also in a worker, removes nothing.

    Args:
        store_dir: Path of the directory; it is made, for this user alone, if there
            is none.
        clear: Whether `close` removes the objects, if this connector owns the
            directory.
        buffering: Taken for compatibility; files are read and written whole.
        ttl: Seconds after which what nobody evicted is removed, by whoever opens the directory
            with a `ttl` then, or `proxystore gc` with its path. By default never.

    Raises:
        ConnectorUnavailableError: The directory cannot be made.
        ConnectorConfigError: `ttl` is no positive number.
    """

    def __init__(
        self,
        store_dir: str,
        *,
        clear: bool = True,
        buffering: int = -1,
        ttl: float | None = None,
    ) -> None:
        if ttl is not None and not (type(ttl) in (int, float) and 0 < ttl < _AGES):
            raise ConnectorConfigError(f"ttl is a number of seconds or None, not {ttl!r}.")
        self.store_dir = os.path.abspath(store_dir)
        self.ttl = ttl
        self.clear = clear
        self.buffering = buffering
        self._closed = False
        self._owner: int | None = None
        if clear:
            self._owner = own(self.store_dir, made=self._make())
            remove_stale(self.store_dir)
        if ttl is not None:
            sweep_sometimes(self.store_dir)
        watch_fork(self)

    def _make(self) -> bool:
        try:
            os.makedirs(self.store_dir, mode=0o700)
        except FileExistsError as error:
            if os.path.isdir(self.store_dir):
                return False
            raise ConnectorUnavailableError(f"{self.store_dir} is not a directory.") from error
        except OSError as error:
            raise ConnectorUnavailableError(
                f"The directory {self.store_dir} cannot be made: {error.strerror}."
            ) from error
        return True

    def after_fork(self) -> None:
        """Leave, in a child, the ownership to the parent."""
        owner, self._owner = self._owner, None
        if owner is not None:
            os.close(owner)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_owner", None) is not None:
            self.close(clear=False)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.store_dir!r})"

    def close(self, clear: bool | None = None) -> None:
        """Let go of the directory, and remove the objects if this connector owns it.

        Args:
            clear: In place of the constructor's `clear`.
        """
        self._closed = True
        owner, self._owner = self._owner, None
        if owner is None:
            return
        if self.clear if clear is None else clear:
            clear_directory(self.store_dir, owner)
        else:
            os.close(owner)

    def config(self) -> dict[str, Any]:
        """Return what `from_config` needs to use the directory, but not to clear it."""
        made: dict[str, Any] = {"store_dir": self.store_dir, "clear": False}
        return made if self.ttl is None else {**made, "ttl": self.ttl}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Make a connector from what `config` returned, or from the constructor's arguments."""
        return cls(**config)

    def new_key(self, obj: BytesLike | None = None) -> FileKey:
        """Return a key that `set` takes later.

        Args:
            obj: Ignored.
        """
        return FileKey(object_name(self.ttl, deferred=True))

    def put(self, obj: BytesLike) -> FileKey:
        """Store bytes and return their key.

        Raises:
            StorageFullError: The device is full.
            ConnectorUnavailableError: The directory is gone, or may not be written.
        """
        return self.put_parts((obj,))

    def put_parts(self, parts: Sequence[BytesLike]) -> FileKey:
        """Store the concatenation of the parts, without joining them; raises as `put`."""
        key = FileKey(object_name(self.ttl))
        self.set_parts(key, parts)
        return key

    def put_batch(self, objs: Sequence[BytesLike]) -> list[FileKey]:
        """Store several objects; all are stored, or none. Raises as `put`."""
        return put_all(objs, self.put, self.evict)

    def set(self, key: FileKey, obj: BytesLike) -> None:
        """Store bytes under a key of `new_key`, in place of what is there. Raises as `put`."""
        self.set_parts(key, (obj,))

    def set_parts(self, key: FileKey, parts: Sequence[BytesLike]) -> None:
        """Store the concatenation of the parts under a key of `new_key`; raises as `put`."""
        path = self._path(key)
        views, nbytes = byte_views(parts)
        partial = f"{self.store_dir}/{PARTIAL}{os.urandom(16).hex()}"
        try:
            fd = self._create(partial)
            try:
                with contextlib.suppress(ConnectorUnavailableError):  # without locks age must do
                    try_lock(fd, exclusive=False)
                write_all(fd, views)
                os.rename(partial, path)
            except BaseException:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(partial)
                raise
            finally:
                os.close(fd)
        except OSError as error:
            if is_full(error):
                raise StorageFullError(
                    f"There is no room for {nbytes} bytes in {self.store_dir}. Evict objects, "
                    "or use a directory of a larger file system.",
                    nbytes=nbytes,
                ) from error
            raise ConnectorUnavailableError(
                f"{self.store_dir} cannot be written: {error.strerror}."
            ) from error

    def _create(self, path: str) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            return os.open(path, flags, 0o600)
        except FileNotFoundError:
            os.makedirs(self.store_dir, mode=0o700, exist_ok=True)
            return os.open(path, flags, 0o600)

    def get(self, key: FileKey) -> BytesLike | None:
        """Return the bytes of a key, or `None` where there are none.

        Large files are mapped where the file system keeps them while they are, and
        else read.
        """
        try:
            fd = os.open(self._path(key), os.O_RDONLY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            size = os.fstat(fd).st_size
            if size < _MAPPED:
                return os.read(fd, size)
            with contextlib.suppress(OSError):  # as many mappings as there may be
                if is_safe_to_map(self.store_dir):
                    return memoryview(map_private(fd, size, keep_open=False)).toreadonly()
            data = bytearray(size)
            read_all(fd, data)
            return memoryview(data).toreadonly()
        finally:
            os.close(fd)

    def get_batch(self, keys: Sequence[FileKey]) -> list[BytesLike | None]:
        """Return the bytes of several keys, in their order."""
        return [self.get(key) for key in keys]

    def exists(self, key: FileKey) -> bool:
        """Tell whether the key has an object."""
        return os.path.exists(self._path(key))

    def evict(self, key: FileKey) -> None:
        """Remove the object of a key; removing nothing is no error."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            os.unlink(self._path(key))

    def expire(self, key: FileKey) -> None:
        """Remove the object of a key, and remember it as expired."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            os.unlink(self._path(key))
            os.close(self._create(f"{self.store_dir}/{EXPIRED}{key.filename}"))

    def missing_reason(self, key: FileKey) -> MissingReason:
        """Say why a key has no object, as far as the directory and the key tell."""
        if not is_object_name(key.filename):
            return MissingReason.NEVER_STORED
        if self._closed:
            return MissingReason.STORE_CLOSED
        if not os.path.isdir(self.store_dir):
            return MissingReason.UNREACHABLE
        if os.path.exists(f"{self.store_dir}/{EXPIRED}{key.filename}"):
            return MissingReason.EXPIRED
        if has_expired(key.filename):
            return MissingReason.EXPIRED
        # A key of `put` had an object; one of `new_key` may have waited for it.
        return MissingReason.UNKNOWN if is_deferred(key.filename) else MissingReason.EVICTED

    def version(self, key: FileKey) -> tuple[int, ...] | None:
        """Return what changes when the object of a key is replaced."""
        try:
            found = os.stat(self._path(key))
        except (FileNotFoundError, NotADirectoryError):
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size

    def keys(self) -> Iterator[FileKey]:
        """Iterate over the keys of all objects in the directory."""
        for name in self._names():
            yield FileKey(name)

    def usage(self) -> Usage:
        """Count the objects in the directory and their bytes."""
        sizes = []
        for name in self._names():
            with contextlib.suppress(FileNotFoundError):
                sizes.append(os.stat(f"{self.store_dir}/{name}").st_size)
        return Usage(objects=len(sizes), nbytes=sum(sizes))

    def _names(self) -> list[str]:
        self._check_open()
        try:
            return [name for name in os.listdir(self.store_dir) if is_object_name(name)]
        except (FileNotFoundError, NotADirectoryError):
            return []

    def _path(self, key: FileKey) -> str:
        self._check_open()
        if not isinstance(key, FileKey) or not is_object_name(key.filename):
            raise InvalidKeyError(
                f"{key!r} is no key of a FileConnector; use one that put or new_key returned."
            )
        return f"{self.store_dir}/{key.filename}"

    def _check_open(self) -> None:
        if self._closed:
            raise ConnectorClosedError(f"This connector to {self.store_dir} was closed.")
