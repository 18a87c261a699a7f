"""What a relay allows its clients, and the buckets that it measures their rates with."""

from __future__ import annotations

import msgspec

from proxystore_endpoint.limits import KIB, MAX_CIRCUIT_MESSAGE, MIB
from proxystore_endpoint.relay.messages import cost


class RelayLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits of a relay. Sizes are bytes, times seconds, rates per second and client.

    Attributes:
        connections: Connections, registered or not.
        connections_per_address: The same from one address; a site behind one NAT shares it.
        unregistered: Connections that did not register yet; over it the oldest is dropped, so
            that idle strangers cannot keep others out.
        registrations: Registered clients.
        payload: Payload of one message on a circuit.
        circuits: Circuits of one client, either end.
        first_window: What may be sent on a new circuit before the relay grants more.
        window: What it grants up to while less than half of `buffered` is in use.
        buffered: What all clients together may make the relay hold for circuits.
        signals_queued: Signals from one client that wait for another one, in bytes.
        messages: Rate of messages of any kind; above it the relay reads more slowly.
        nbytes: Rate of bytes, in the same way; none for no limit.
        signals: Rate of signals; above it they are refused.
        opens: Rate of circuits that are asked for; above it they are refused.
        handshake_timeout: Time for the TLS handshake, and again for the websocket's.
        register_timeout: Time to answer the challenge.
        auth_timeout: Time that the authentication service may take.
        accept_timeout: Time to answer an incoming circuit.
        silence: A client that is not heard for so long, or takes nothing of what is waiting
            for it, is gone.
    """

    connections: int = 4096
    connections_per_address: int = 1024
    unregistered: int = 1024
    registrations: int = 2048
    payload: int = MAX_CIRCUIT_MESSAGE
    circuits: int = 256
    first_window: int = 512 * KIB
    window: int = 4 * MIB
    buffered: int = 512 * MIB
    signals_queued: int = 1 * MIB
    messages: float = 20_000.0
    nbytes: float | None = None
    signals: float = 100.0
    opens: float = 50.0
    handshake_timeout: float = 5.0
    register_timeout: float = 4.0
    auth_timeout: float = 5.0
    accept_timeout: float = 15.0
    silence: float = 12.0

    def __post_init__(self) -> None:
        if not 0 < self.payload <= MAX_CIRCUIT_MESSAGE:
            raise ValueError(f"payload has to be 1 to {MAX_CIRCUIT_MESSAGE}, not {self.payload}.")
        least = cost(self.payload) * 4 // 3 + 1  # credit comes when a quarter is free
        if not least <= self.first_window <= self.window:
            raise ValueError(
                f"first_window has to be {least} to {self.window} (window), not "
                f"{self.first_window}."
            )


class Bucket:
    """A token bucket: `rate` tokens a second, at most `burst` of them kept.

    Args:
        rate: Tokens per second.
        burst: Tokens at the start, and at most.
    """

    __slots__ = ("burst", "rate", "tokens", "updated")

    def __init__(self, rate: float, burst: float) -> None:
        self.rate = rate
        self.burst = burst
        self.tokens = burst
        self.updated: float | None = None

    def _fill(self, now: float) -> None:
        if self.updated is None:
            self.updated = now
        elif now > self.updated:
            self.tokens = min(self.burst, self.tokens + (now - self.updated) * self.rate)
            self.updated = now

    def take(self, now: float, tokens: float = 1.0) -> bool:
        """Take tokens if they are there; tell whether they were."""
        self._fill(now)
        if self.tokens < tokens:
            return False
        self.tokens -= tokens
        return True

    def borrow(self, now: float, tokens: float = 1.0) -> float:
        """Take tokens in any case; return the seconds until the debt is paid."""
        self._fill(now)
        self.tokens -= tokens
        return 0.0 if self.tokens >= 0 else -self.tokens / self.rate
