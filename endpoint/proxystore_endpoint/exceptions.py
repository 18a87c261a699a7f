"""The errors of `proxystore_endpoint`, one tree under one root.

Every error carries what it is about as attributes and also derives from the
builtin that a caller would naturally catch. Faults of a channel that
`proxystore_core.exceptions` names already keep that name: `InvalidKeyError`,
`ObjectTooLargeError`, `StorageFullError`, `CorruptObjectError` and
`MissingExtraError`.

* `EndpointError` (`ProxyStoreError`)
    * `EndpointConfigError` (`ValueError`)
    * `EndpointExistsError` (`FileExistsError`)
    * `EndpointNotFoundError` (`LookupError`)
    * `EndpointRunningError` (`RuntimeError`)
    * `EndpointNotRunningError` (`RuntimeError`)
    * `EndpointUnreachableError` (`ConnectorUnavailableError`, a `ConnectionError`)
        * `EndpointConnectorError`
    * `EndpointTimeoutError` (`TimeoutError`)
    * `AccessDeniedError` (`PermissionError`)
    * `IdentityError`
        * `IdentityFileError` (`OSError`)
        * `AuthenticationError` (`PermissionError`)
    * `GrantError`
        * `GrantFileError` (`ValueError`)
        * `MembershipError` (`PermissionError`)
        * `TicketError` (`ValueError`)
    * `EndpointStorageError`
        * `ReservationError` (`RuntimeError`)
        * `DurabilityUnavailableError` (`ValueError`)
        * `ObjectLostError` (`LookupError`)
        * `DatabaseCorruptError` (`OSError`)
    * `WireError`
        * `ProtocolError`
            * `FrameError` (`ValueError`)
            * `MessageError` (`ValueError`)
            * `SequenceError`
            * `FlowError`
            * `VersionError`
        * `ConnectionEndedError` (`ConnectionError`)
            * `ConnectionRefusedByPeerError` (`PermissionError`)
            * `HeartbeatError` (`TimeoutError`)
        * `StreamClosedError` (`RuntimeError`)
        * `MisuseError` (`RuntimeError`)
        * `MessageTooLargeError` (`ValueError`)
    * `PeerError`
        * `PeerUnreachableError` (`ConnectionError`)
        * `PeerLostError` (`ConnectionError`)
        * `PeerRefusedError` (`PermissionError`)
        * `PeerTimeoutError` (`TimeoutError`)
        * `PeerResponseError`
    * `TransportError`
        * `PathError` (`ConnectionError`)
        * `PipeClosedError` (`ConnectionError`)
        * `SignalingError` (`ValueError`)
    * `RelayError`
        * `RelayUnreachableError` (`ConnectionError`)
        * `RelayRefusedError` (`PermissionError`)
        * `RelayReplacedError`
        * `RelayMessageError` (`ValueError`)
        * `UnknownDestinationError` (`LookupError`)
        * `RelayLimitError`
    * `LocalProtocolError` (`ValueError`)
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from proxystore_core.exceptions import ConnectorUnavailableError, ProxyStoreError


def _restore(cls: type[EndpointError], args: tuple[Any, ...], fields: dict[str, Any]) -> Any:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(fields)
    return error


class EndpointError(ProxyStoreError):
    """Root of every error that this package raises."""

    __str__ = Exception.__str__  # KeyError's and OSError's would garble the message

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), self.args, dict(self.__dict__))


class EndpointConfigError(EndpointError, ValueError):
    """A configuration cannot be used as it is.

    Attributes:
        path: The file, where there is one.
        field: Name of the setting, where it is about one.
    """

    def __init__(self, message: str, *, path: str | None = None, field: str | None = None) -> None:
        self.path = path
        self.field = field
        super().__init__(message)


class EndpointExistsError(EndpointError, FileExistsError):
    """An endpoint of this name is configured already."""


class EndpointNotFoundError(EndpointError, LookupError):
    """No endpoint of this name or id is configured here."""


class EndpointRunningError(EndpointError, RuntimeError):
    """The endpoint runs, and what was asked needs it stopped."""


class EndpointNotRunningError(EndpointError, RuntimeError):
    """The endpoint does not run, and what was asked needs it."""


class EndpointUnreachableError(EndpointError, ConnectorUnavailableError):
    """A local endpoint does not answer.

    Attributes:
        address: Where it was looked for.
    """

    def __init__(self, message: str, *, address: str | None = None) -> None:
        self.address = address
        super().__init__(message)


class EndpointConnectorError(EndpointUnreachableError):
    """None of the endpoints that a connector may use can be reached.

    Attributes:
        tried: What was tried, and why each did not work.
    """

    def __init__(self, message: str, *, tried: dict[str, str] | None = None) -> None:
        self.tried = {} if tried is None else tried
        super().__init__(message)


class EndpointTimeoutError(EndpointError, TimeoutError):
    """An endpoint took longer than the caller allowed."""


class AccessDeniedError(EndpointError, PermissionError):
    """Whoever asks has no right to it.

    Attributes:
        principal: Who asked: a peer's id, or None for a local caller.
        right: The right that is missing.
    """

    def __init__(
        self, message: str, *, principal: UUID | None = None, right: str | None = None
    ) -> None:
        self.principal = principal
        self.right = right
        super().__init__(message)


class IdentityError(EndpointError):
    """An identity cannot be used or trusted."""


class IdentityFileError(IdentityError, OSError):
    """A key file is missing, damaged, or readable by others.

    Attributes:
        path: The file.
    """

    def __init__(self, message: str, *, path: str) -> None:
        self.path = path
        super().__init__(message)


class AuthenticationError(IdentityError, PermissionError):
    """The other side did not prove that it is who it should be."""


class GrantError(EndpointError):
    """A grant cannot be read, made or honoured."""


class GrantFileError(GrantError, ValueError):
    """The file of grants is damaged.

    Attributes:
        path: The file.
    """

    def __init__(self, message: str, *, path: str) -> None:
        self.path = path
        super().__init__(message)


class MembershipError(GrantError, PermissionError):
    """A membership of a group is forged, expired, too long, or another's."""


class TicketError(GrantError, ValueError):
    """A ticket is malformed, expired, used up or unknown."""


class EndpointStorageError(EndpointError):
    """The storage cannot do what was asked."""


class ReservationError(EndpointStorageError, RuntimeError):
    """A reservation was published or abandoned before."""


class DurabilityUnavailableError(EndpointStorageError, ValueError):
    """An endpoint cannot store objects as durably as was asked.

    Attributes:
        durability: What was asked.
    """

    def __init__(self, message: str, *, durability: str) -> None:
        self.durability = durability
        super().__init__(message)


class ObjectLostError(EndpointStorageError, LookupError):
    """An object that a local client wrote into the memory is not there to be taken over.

    Attributes:
        key: Its key.
    """

    def __init__(self, message: str, *, key: str) -> None:
        self.key = key
        super().__init__(message)


class DatabaseCorruptError(EndpointStorageError, OSError):
    """The persistent store is damaged.

    Attributes:
        path: The file.
    """

    def __init__(self, message: str, *, path: str) -> None:
        self.path = path
        super().__init__(message)


class WireError(EndpointError):
    """A connection to a peer cannot go on, or was used wrongly."""


class ProtocolError(WireError):
    """The other side broke the rules of the peer protocol; the connection ends."""


class FrameError(ProtocolError, ValueError):
    """A frame has an unknown type, an impossible length, or a stream it may not have."""


class MessageError(ProtocolError, ValueError):
    """The body of a frame is not what its type says."""


class SequenceError(ProtocolError):
    """A frame came where the state of the connection or stream does not allow it."""


class FlowError(ProtocolError):
    """The other side sent more than it had credit for, or granted absurd credit."""


class VersionError(ProtocolError):
    """The two sides share no version of the protocol.

    Attributes:
        ours: Versions that this side speaks, lowest and highest.
        theirs: Versions that the other side speaks.
    """

    def __init__(self, message: str, *, ours: tuple[int, int], theirs: tuple[int, int]) -> None:
        self.ours = ours
        self.theirs = theirs
        super().__init__(message)


class ConnectionEndedError(WireError, ConnectionError):
    """The connection is over.

    Attributes:
        reason: Why, in one word (a `GoAwayReason`, or `eof`).
    """

    def __init__(self, message: str, *, reason: str) -> None:
        self.reason = reason
        super().__init__(message)


class ConnectionRefusedByPeerError(ConnectionEndedError, PermissionError):
    """The other side does not want us: no grant, wrong key, or it is full."""


class HeartbeatError(ConnectionEndedError, TimeoutError):
    """Nothing was heard of the other side for too long."""


class StreamClosedError(WireError, RuntimeError):
    """A stream is over: answered, cancelled, or gone with its connection.

    Attributes:
        stream: Its number.
    """

    def __init__(self, message: str, *, stream: int) -> None:
        self.stream = stream
        super().__init__(message)


class MisuseError(WireError, RuntimeError):
    """This side called a connection in a way that its state does not allow."""


class MessageTooLargeError(WireError, ValueError):
    """A message of ours is over a limit of the protocol.

    Attributes:
        nbytes: Its size in bytes.
        limit: The largest size, in bytes.
    """

    def __init__(self, message: str, *, nbytes: int, limit: int) -> None:
        self.nbytes = nbytes
        self.limit = limit
        super().__init__(message)


class PeerError(EndpointError):
    """A request to a peer failed.

    Attributes:
        peer: Id of the peer.
    """

    def __init__(self, message: str, *, peer: UUID | None = None) -> None:
        self.peer = peer
        super().__init__(message)


class PeerUnreachableError(PeerError, ConnectionError):
    """No path to a peer works.

    Attributes:
        paths: What was tried, and why each did not work.
    """

    def __init__(
        self, message: str, *, peer: UUID | None = None, paths: dict[str, str] | None = None
    ) -> None:
        self.paths = {} if paths is None else paths
        super().__init__(message, peer=peer)


class PeerLostError(PeerError, ConnectionError):
    """The connection to a peer was lost with a request under way, and none replaced it in time."""


class PeerRefusedError(PeerError, PermissionError):
    """A peer does not let us in, or not do this."""


class PeerTimeoutError(PeerError, TimeoutError):
    """A peer did not answer before the deadline of the request."""


class PeerResponseError(PeerError):
    """A peer answered that it could not do what was asked.

    Attributes:
        status: Its answer (a `Status`).
    """

    def __init__(self, message: str, *, peer: UUID | None = None, status: str = "error") -> None:
        self.status = status
        super().__init__(message, peer=peer)


class TransportError(EndpointError):
    """A path to a peer failed."""


class PathError(TransportError, ConnectionError):
    """One path to a peer cannot be made.

    Attributes:
        kind: Kind of the path: `tcp`, `webrtc` or `relay`.
    """

    def __init__(self, message: str, *, kind: str) -> None:
        self.kind = kind
        super().__init__(message)


class PipeClosedError(TransportError, ConnectionError):
    """A message pipe is closed, by either side."""


class SignalingError(TransportError, ValueError):
    """A signalling message is malformed, or came out of turn."""


class RelayError(EndpointError):
    """The relay cannot do what was asked.

    Attributes:
        address: Address of the relay.
    """

    def __init__(self, message: str, *, address: str | None = None) -> None:
        self.address = address
        super().__init__(message)


class RelayUnreachableError(RelayError, ConnectionError):
    """The relay does not answer."""


class RelayRefusedError(RelayError, PermissionError):
    """The relay does not accept our proof of identity or our credentials."""


class RelayReplacedError(RelayError):
    """A newer registration of the same id took over."""


class RelayMessageError(RelayError, ValueError):
    """A message from or to the relay is malformed or too large."""


class RelayLimitError(RelayError):
    """A limit of the relay was reached: rate, size, registrations or circuits."""


class UnknownDestinationError(RelayError, LookupError):
    """No endpoint of that id is registered at the relay.

    Attributes:
        destination: The id.
    """

    def __init__(self, message: str, *, destination: UUID, address: str | None = None) -> None:
        self.destination = destination
        super().__init__(message, address=address)


class LocalProtocolError(EndpointError, ValueError):
    """A message on the control socket is malformed or too large."""
