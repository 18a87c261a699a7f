"""The errors of `proxystore_core`, one tree under one root.

Every error is a `ProxyStoreError`, carries what it is about as attributes, and
also derives from the builtin that a caller would naturally catch.

* `ProxyStoreError`
    * `MissingExtraError` (`ImportError`)
    * `SerializationError`
        * `CorruptObjectError` (`ValueError`)
        * `MissingLibraryError` (`ImportError`)
    * `ProxyResolveError`
    * `ConnectorError`
        * `ConnectorConfigError` (`ValueError`)
        * `InvalidKeyError` (`ValueError`)
        * `ObjectTooLargeError` (`ValueError`)
        * `StorageFullError` (`OSError`)
        * `ConnectorUnavailableError` (`ConnectionError`)
        * `ConnectorClosedError`
        * `ReservationError` (`RuntimeError`)
    * `StoreError`
        * `StoreExistsError` (`ValueError`)
        * `StoreNotFoundError` (`KeyError`)
        * `StoreConfigError` (`ValueError`)
        * `StoreArgumentError` (`ValueError`)
        * `StoreUnsupportedError` (`NotImplementedError`, `TypeError`)
        * `ProxyStoreFactoryError` (`TypeError`)
        * `NonProxiableTypeError` (`TypeError`)
        * `ProxyResolveMissingKeyError` (`KeyError`)
        * `LifetimeError`
            * `LifetimeClosedError` (`RuntimeError`)
        * `FutureError`
            * `FutureTimeoutError` (`TimeoutError`)
            * `FutureCancelledError`
            * `FutureAlreadySetError`
    * `BaseRefProxyError`
        * `MutableBorrowError`
        * `ReferenceNotOwnedError`
        * `ReferenceInvalidError`
    * `AutoProxyError`
        * `ArgumentSerializationError` (`TypeError`)
        * `ResultSerializationError` (`TypeError`)
        * `ReferenceUnreachableError` (`ConnectionError`)
        * `ExecutorConfigError` (`ValueError`)
        * `WorkerSetupError` (`ImportError`)
"""

from __future__ import annotations

from enum import Enum
from typing import Any


class MissingReason(Enum):
    """Why a key has no object."""

    EVICTED = "evicted"
    EXPIRED = "expired"
    NEVER_STORED = "never stored"
    STORE_CLOSED = "its store was closed"
    UNREACHABLE = "not reachable from this host"
    UNKNOWN = "not in the store"


class ProxyStoreError(Exception):
    """Root of every error that this package raises."""


class MissingExtraError(ProxyStoreError, ImportError):
    """An optional dependency is not installed.

    Attributes:
        extra: Name of the extra that brings it.
    """

    def __init__(self, extra: str, *, needed_for: str) -> None:
        self.extra = extra
        self.needed_for = needed_for
        super().__init__(
            f"{needed_for} needs packages that are not installed. "
            f"Install them with: pip install 'proxystore-core[{extra}]'"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), (self.extra,), {"needed_for": self.needed_for})


class SerializationError(ProxyStoreError):
    """An object cannot be turned into bytes, or bytes into an object."""


class CorruptObjectError(SerializationError, ValueError):
    """Stored bytes are torn, truncated, altered or not ours."""


class MissingLibraryError(SerializationError, ImportError):
    """Loading an object needs a module that cannot be imported here.

    Attributes:
        library: Name of the module.
    """

    def __init__(self, library: str, *, what: str) -> None:
        self.library = library
        self.what = what
        super().__init__(
            f"{what} needs the module {library!r}, which is not installed here: "
            "install it where the object is read."
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), (self.library,), {"what": self.what})


class ProxyResolveError(ProxyStoreError):
    """The factory of a proxy failed.

    Attributes:
        message: What went wrong.
        cause: The error that the factory raised.
    """

    def __init__(self, message: str, cause: BaseException | None = None) -> None:
        self.message = message
        self.cause = cause
        super().__init__(message)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), (self.message, self.cause), {})


class ConnectorError(ProxyStoreError):
    """A channel failed."""


class ConnectorConfigError(ConnectorError, ValueError):
    """The arguments of a connector cannot be used as they are."""


class InvalidKeyError(ConnectorError, ValueError):
    """A key is malformed, or names something outside the store."""


class ObjectTooLargeError(ConnectorError, ValueError):
    """An object is over the channel's limit for one object.

    Attributes:
        nbytes: Size of the object in bytes.
        limit: Largest size that the channel takes, in bytes.
    """

    def __init__(self, message: str, *, nbytes: int, limit: int) -> None:
        self.nbytes = nbytes
        self.limit = limit
        super().__init__(message)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args, {"nbytes": self.nbytes, "limit": self.limit})


class StorageFullError(ConnectorError, OSError):
    """A quota or the device is full; nothing was stored and evicting still works.

    Attributes:
        nbytes: Size of the object that did not fit, in bytes.
        used: Bytes in use, where known.
        limit: Bytes allowed, where known.
    """

    def __init__(
        self, message: str, *, nbytes: int, used: int | None = None, limit: int | None = None
    ) -> None:
        self.nbytes = nbytes
        self.used = used
        self.limit = limit
        super().__init__(message)

    def __reduce__(self) -> tuple[Any, ...]:
        fields = {"nbytes": self.nbytes, "used": self.used, "limit": self.limit}
        return _rebuild, (type(self), self.args, fields)


class ConnectorUnavailableError(ConnectorError, ConnectionError):
    """The server, directory or host behind a channel cannot be reached."""


class ConnectorClosedError(ConnectorError):
    """The connector was closed in this process."""


class ReservationError(ConnectorError, RuntimeError):
    """A reservation was published or abandoned before."""


class StoreError(ProxyStoreError):
    """A store cannot do what was asked."""


class StoreExistsError(StoreError, ValueError):
    """Another store is registered under this name."""


class StoreNotFoundError(StoreError, KeyError):
    """No store is registered under this name."""

    __str__ = Exception.__str__


class StoreConfigError(StoreError, ValueError):
    """A store's configuration is incomplete or contradicts itself."""


class StoreArgumentError(StoreError, ValueError):
    """Arguments of a call contradict each other, or one has no meaning."""


class StoreUnsupportedError(StoreError, NotImplementedError, TypeError):
    """A store cannot do this at all, mostly because its connector cannot."""


class ProxyStoreFactoryError(StoreError, TypeError):
    """A proxy was expected to come from a store, and does not."""


class NonProxiableTypeError(StoreError, TypeError):
    """A proxy of this type would not behave like its target (`bool`, `None`)."""


class ProxyResolveMissingKeyError(StoreError, KeyError):
    """A key has no object in its store.

    Attributes:
        key: The key.
        store_type: Class of the store.
        store_name: Name of the store.
        reason: Why there is no object, as far as it is known.
    """

    __str__ = Exception.__str__

    def __init__(
        self,
        key: Any,
        store_type: type[Any],
        store_name: str,
        reason: MissingReason = MissingReason.UNKNOWN,
    ) -> None:
        self.key = key
        self.store_type = store_type
        self.store_name = store_name
        self.reason = reason
        super().__init__(
            f"The object of key {key!r} in {store_type.__name__} {store_name!r} is gone: "
            f"{reason.value}."
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (
            type(self),
            (self.key, self.store_type, self.store_name, self.reason),
            {},
        )


class LifetimeError(StoreError):
    """A lifetime cannot do what was asked."""


class LifetimeClosedError(LifetimeError, RuntimeError):
    """The lifetime ended before."""


class FutureError(StoreError):
    """A store future cannot do what was asked."""


class FutureTimeoutError(FutureError, TimeoutError):
    """The result of a future did not arrive in time."""


class FutureCancelledError(FutureError):
    """The future was cancelled."""


class FutureAlreadySetError(FutureError):
    """The future already has a result or an exception."""


class BaseRefProxyError(ProxyStoreError):
    """Ownership rules of a reference were broken."""


class MutableBorrowError(BaseRefProxyError):
    """A mutable borrow would alias another borrow."""


class ReferenceNotOwnedError(BaseRefProxyError):
    """The operation needs an owned reference."""


class ReferenceInvalidError(BaseRefProxyError):
    """The reference was moved away, or its owner is gone."""


class AutoProxyError(ProxyStoreError):
    """The auto-proxy engine cannot carry an argument or a result."""


class ArgumentSerializationError(AutoProxyError, TypeError):
    """An argument of a task cannot be serialized.

    Attributes:
        task: Name of the task.
        argument: Which argument, as `x`, `args[0]` or `kwargs['data'][3]`.
    """

    def __init__(self, message: str, *, task: str, argument: str) -> None:
        self.task = task
        self.argument = argument
        super().__init__(message)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args, {"task": self.task, "argument": self.argument})


class ResultSerializationError(AutoProxyError, TypeError):
    """The result of a task cannot be serialized.

    Attributes:
        task: Name of the task.
    """

    def __init__(self, message: str, *, task: str) -> None:
        self.task = task
        super().__init__(message)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args, {"task": self.task})


class ReferenceUnreachableError(AutoProxyError, ConnectionError):
    """A reference points to a channel that this host cannot reach.

    Attributes:
        host: The host that holds the object.
    """

    def __init__(self, message: str, *, host: str) -> None:
        self.host = host
        super().__init__(message)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args, {"host": self.host})


class ExecutorConfigError(AutoProxyError, ValueError):
    """An executor cannot be set up as asked."""


class WorkerSetupError(AutoProxyError, ImportError):
    """Workers lack a package that tasks need to get their arguments.

    Attributes:
        module: The module that they cannot import.
        executor: Name of the executor that they work for.
    """

    def __init__(self, message: str, *, module: str, executor: str) -> None:
        self.module = module
        self.executor = executor
        super().__init__(message)

    def __reduce__(self) -> tuple[Any, ...]:
        fields = {"module": self.module, "executor": self.executor}
        return _rebuild, (type(self), self.args, fields)


def _rebuild(
    cls: type[ProxyStoreError], args: tuple[Any, ...], fields: dict[str, Any]
) -> ProxyStoreError:
    return cls(*args, **fields)
