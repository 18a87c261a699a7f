"""A channel through memory that the processes of one node share."""

from __future__ import annotations

import mmap
import os
import re
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self
from uuid import uuid4

from proxystore_core.connectors._parts import byte_views, write_all
from proxystore_core.connectors.protocols import Usage
from proxystore_core.exceptions import ConnectorClosedError, InvalidKeyError, MissingReason

if TYPE_CHECKING:
    from proxystore_core.serialize import BytesLike

_ID = re.compile(r"[0-9a-z]{1,16}-[0-9a-z]{1,13}")


class SharedMemoryKey(NamedTuple):
    """Key of an object in a `SharedMemoryConnector`.

    Attributes:
        object_id: Id of the object, unique for all time.
    """

    object_id: str


def _root() -> str:
    root = os.environ.get("PROXYSTORE_SHM_ROOT")
    if not root:
        base = "/dev/shm" if os.path.isdir("/dev/shm") else tempfile.gettempdir()
        root = f"{base}/proxystore-{os.getuid()}"
    os.makedirs(root, mode=0o700, exist_ok=True)
    return root


def _remove(directory: str, pid: int) -> None:
    if pid == os.getpid():
        shutil.rmtree(directory, ignore_errors=True)


class SharedMemoryConnector:
    """A connector that keeps every object in a mapped file of a memory file system."""

    trusted: ClassVar[bool] = True

    def __init__(
        self,
        directory: str | None = None,
        *,
        quota: int | str | None = None,
        spill_dir: str | None = None,
        spill: bool = True,
        recycle: int | str | None = None,
    ) -> None:
        self._owner = directory is None or not os.path.isdir(directory)
        self.directory = directory or f"{_root()}/{uuid4().hex[:10]}"
        self._setup()
        if self._owner:
            os.makedirs(self.directory, mode=0o700)
            self._finalizer = weakref.finalize(self, _remove, self.directory, os.getpid())

    def _setup(self) -> None:
        self._closed = False
        self._writer = uuid4().hex[:12]
        self._pid = os.getpid()
        self._count = 0
        self._deferred: set[str] = set()
        self._expired: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.directory!r})"

    def close(self) -> None:
        self._closed = True
        if self._owner:
            self._finalizer()

    def config(self) -> dict[str, Any]:
        return {"directory": self.directory, "host": os.uname().nodename}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        if "host" not in config:
            return cls(**config)
        self = cls.__new__(cls)
        self._owner = False
        self.directory = config["directory"]
        self._setup()
        return self

    def new_key(self, obj: BytesLike | None = None) -> SharedMemoryKey:
        key = self._issue()
        self._deferred.add(key.object_id)
        return key

    def _issue(self) -> SharedMemoryKey:
        if self._pid != os.getpid():
            self._writer, self._pid = uuid4().hex[:12], os.getpid()
        self._count += 1
        return SharedMemoryKey(f"{self._writer}-{self._count:x}")

    def put(self, obj: BytesLike) -> SharedMemoryKey:
        return self.put_parts((obj,))

    def put_parts(self, parts: Sequence[BytesLike]) -> SharedMemoryKey:
        key = self._issue()
        self.set_parts(key, parts)
        return key

    def put_batch(self, objs: Sequence[BytesLike]) -> list[SharedMemoryKey]:
        return [self.put(obj) for obj in objs]

    def set(self, key: SharedMemoryKey, obj: BytesLike) -> None:
        self.set_parts(key, (obj,))

    def set_parts(self, key: SharedMemoryKey, parts: Sequence[BytesLike]) -> None:
        path = self._path(key)
        if self._closed or not os.path.isdir(self.directory):
            raise ConnectorClosedError(f"The store in {self.directory} was closed.")
        views, _ = byte_views(parts)
        partial = f"{self.directory}/.tmp-{uuid4().hex}"
        fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            write_all(fd, views)
        finally:
            os.close(fd)
        os.rename(partial, path)
        self._deferred.discard(key.object_id)

    def get_view(self, key: SharedMemoryKey) -> memoryview | None:
        try:
            fd = os.open(self._path(key), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            if os.fstat(fd).st_size == 0:
                return memoryview(bytearray())
            return memoryview(mmap.mmap(fd, 0, access=mmap.ACCESS_COPY))
        finally:
            os.close(fd)

    def get(self, key: SharedMemoryKey) -> BytesLike | None:
        view = self.get_view(key)
        return None if view is None else view.toreadonly()

    def get_batch(self, keys: Sequence[SharedMemoryKey]) -> list[BytesLike | None]:
        return [self.get(key) for key in keys]

    def exists(self, key: SharedMemoryKey) -> bool:
        return os.path.exists(self._path(key))

    def evict(self, key: SharedMemoryKey) -> None:
        try:
            os.unlink(self._path(key))
        except FileNotFoundError:
            pass

    def expire(self, key: SharedMemoryKey) -> None:
        self.evict(key)
        self._expired.add(key.object_id)

    def missing_reason(self, key: SharedMemoryKey) -> MissingReason:
        if not os.path.isdir(self.directory):
            return MissingReason.STORE_CLOSED
        if key.object_id in self._expired:
            return MissingReason.EXPIRED
        if key.object_id in self._deferred:
            return MissingReason.NEVER_STORED
        return MissingReason.EVICTED

    def keys(self) -> Iterator[SharedMemoryKey]:
        for name in self._names():
            yield SharedMemoryKey(name)

    def usage(self) -> Usage:
        sizes = [os.stat(f"{self.directory}/{name}").st_size for name in self._names()]
        return Usage(objects=len(sizes), nbytes=sum(sizes))

    def _names(self) -> list[str]:
        try:
            return [name for name in os.listdir(self.directory) if _ID.fullmatch(name)]
        except FileNotFoundError:
            return []

    def _path(self, key: SharedMemoryKey) -> str:
        if not isinstance(key, SharedMemoryKey) or not _ID.fullmatch(key.object_id):
            raise InvalidKeyError(f"{key!r} is not a key that put or new_key returned.")
        return f"{self.directory}/{key.object_id}"


