"""What the two sides of a WebRTC connection tell each other, as small JSON-able dictionaries.

```
offer   {"type": "webrtc-offer", "session": ..., "username": ..., "password": ...,
         "candidates": [SDP candidate lines], "fingerprints": {algorithm: hex},
         "port": 5000, "max_message": bytes}
answer  the same with "type": "webrtc-answer" and the offer's session
refusal {"type": "webrtc-refusal", "session": ..., "reason": text}
```

ICE (RFC 8445) wants username, password and candidates, DTLS the fingerprints of the
certificate (RFC 8122), SCTP its port and largest message (RFC 8841).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Protocol

import msgspec

from proxystore_endpoint.exceptions import PathError, SignalingError

OFFER, ANSWER, REFUSAL = "webrtc-offer", "webrtc-answer", "webrtc-refusal"
MAX_CANDIDATES = 64
KIND = "webrtc"

_Short = Annotated[str, msgspec.Meta(max_length=256)]
_Token = Annotated[str, msgspec.Meta(min_length=1, max_length=256, pattern=r"^[A-Za-z0-9+/=_-]+$")]


class Signal(Protocol):
    """Carries signalling messages to the other side and back; a relay does it."""

    async def send(self, message: dict[str, Any]) -> None:
        """Send a message to the other side."""

    async def receive(self) -> dict[str, Any]:
        """Return the next message from the other side."""


class Description(msgspec.Struct, kw_only=True, frozen=True):
    """One side of a connection in the making.

    Attributes:
        session: Made up by the offerer; tells connections of the same two apart.
        username: ICE user name fragment.
        password: ICE password.
        candidates: Addresses, as SDP writes candidates.
        fingerprints: Digests of the DTLS certificate, by algorithm.
        port: SCTP port.
        max_message: Largest message of a data channel, in bytes; 0 for any.
    """

    session: _Token
    username: _Token
    password: _Token
    candidates: Annotated[list[_Short], msgspec.Meta(max_length=MAX_CANDIDATES)]
    fingerprints: Annotated[dict[_Short, _Short], msgspec.Meta(min_length=1, max_length=8)]
    port: Annotated[int, msgspec.Meta(gt=0, lt=65536)]
    max_message: Annotated[int, msgspec.Meta(ge=0, lt=2**31)]

    def message(self, kind: str) -> dict[str, Any]:
        """Return the signalling message for it, `OFFER` or `ANSWER`."""
        return {"type": kind, **msgspec.to_builtins(self)}


def read(message: Mapping[str, Any], kind: str) -> Description:
    """Read an offer or an answer; unknown fields are ignored.

    Raises:
        SignalingError: It is none.
        PathError: It is a refusal.
    """
    if message.get("type") == REFUSAL:
        raise PathError(f"the peer refused: {str(message.get('reason'))[:256]}", kind=KIND)
    if message.get("type") != kind:
        raise SignalingError(f"expected {kind}, got {str(message.get('type'))[:64]!r}")
    try:
        return msgspec.convert(message, Description)
    except msgspec.ValidationError as error:
        raise SignalingError(f"malformed {kind}: {error}") from error


def refusal(offer: Mapping[str, Any], reason: str) -> dict[str, Any]:
    """Return the message that tells the sender of an offer that nobody will answer it."""
    return {"type": REFUSAL, "session": read_session(offer), "reason": reason}


def read_session(message: Mapping[str, Any]) -> str:
    """Return the session of a signalling message, `''` if it has none."""
    session = message.get("session")
    return session if isinstance(session, str) and len(session) <= 256 else ""
