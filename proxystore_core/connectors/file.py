"""A channel through a directory of a (shared) file system."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Self
from uuid import uuid4

from proxystore_core.connectors._parts import byte_views, write_all
from proxystore_core.connectors.protocols import Usage
from proxystore_core.exceptions import ConnectorUnavailableError, InvalidKeyError, StorageFullError

if TYPE_CHECKING:
    from proxystore_core.serialize import BytesLike

_NAME = re.compile(r"[0-9a-f]{32}")
_FULL = frozenset({28, 122, 69})  # ENOSPC, EDQUOT (Linux, macOS)


class FileKey(NamedTuple):
    """Key of an object in a `FileConnector`.

    Attributes:
        filename: Name of the object's file inside the directory.
    """

    filename: str


class FileConnector:
    """A connector that keeps every object in a file of one directory."""

    def __init__(self, store_dir: str, *, clear: bool = True, buffering: int = -1) -> None:
        self.store_dir = os.path.abspath(store_dir)  # noqa: PTH100 - a plain string, as upstream
        self.clear = clear
        self.buffering = buffering
        self._owner = False
        try:
            os.makedirs(self.store_dir, mode=0o700)  # noqa: PTH103
            self._owner = True
        except FileExistsError:
            pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.store_dir!r})"

    def close(self, clear: bool | None = None) -> None:
        clear = self.clear if clear is None else clear
        if clear and self._owner:
            for name in self._names():
                self._unlink(name)
            try:
                os.rmdir(self.store_dir)
            except OSError:
                pass

    def config(self) -> dict[str, Any]:
        return {"store_dir": self.store_dir, "clear": False}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return cls(**config)

    def new_key(self, obj: BytesLike | None = None) -> FileKey:
        return FileKey(uuid4().hex)

    def put(self, obj: BytesLike) -> FileKey:
        return self.put_parts((obj,))

    def put_parts(self, parts: Sequence[BytesLike]) -> FileKey:
        key = self.new_key()
        self.set_parts(key, parts)
        return key

    def put_batch(self, objs: Sequence[BytesLike]) -> list[FileKey]:
        keys: list[FileKey] = []
        try:
            for obj in objs:
                keys.append(self.put(obj))
        except BaseException:
            for key in keys:
                self.evict(key)
            raise
        return keys

    def set(self, key: FileKey, obj: BytesLike) -> None:
        self.set_parts(key, (obj,))

    def set_parts(self, key: FileKey, parts: Sequence[BytesLike]) -> None:
        path = self._path(key)
        views, nbytes = byte_views(parts)
        partial = f"{self.store_dir}/.tmp-{uuid4().hex}"
        try:
            fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileNotFoundError as error:
            raise ConnectorUnavailableError(f"The directory {self.store_dir} is gone.") from error
        try:
            try:
                write_all(fd, views)
            finally:
                os.close(fd)
            os.rename(partial, path)
        except BaseException as error:
            self._unlink(partial)
            if isinstance(error, OSError) and error.errno in _FULL:
                raise StorageFullError(f"{self.store_dir} is full.", nbytes=nbytes) from error
            raise

    def get(self, key: FileKey) -> BytesLike | None:
        try:
            with open(self._path(key), "rb") as file:
                return file.read()
        except FileNotFoundError:
            return None

    def get_batch(self, keys: Sequence[FileKey]) -> list[BytesLike | None]:
        return [self.get(key) for key in keys]

    def exists(self, key: FileKey) -> bool:
        return os.path.exists(self._path(key))

    def evict(self, key: FileKey) -> None:
        self._unlink(self._path(key))

    def keys(self) -> Iterator[FileKey]:
        for name in self._names():
            yield FileKey(name)

    def usage(self) -> Usage:
        sizes = [os.stat(f"{self.store_dir}/{name}").st_size for name in self._names()]
        return Usage(objects=len(sizes), nbytes=sum(sizes))

    def _names(self) -> list[str]:
        try:
            return [name for name in os.listdir(self.store_dir) if _NAME.fullmatch(name)]
        except FileNotFoundError:
            return []

    def _path(self, key: FileKey) -> str:
        if not isinstance(key, FileKey) or not _NAME.fullmatch(key.filename):
            raise InvalidKeyError(f"{key!r} is not a key that put or new_key returned.")
        return f"{self.store_dir}/{key.filename}"

    def _unlink(self, path: str) -> None:
        try:
            os.unlink(os.path.join(self.store_dir, path))
        except FileNotFoundError:
            pass
