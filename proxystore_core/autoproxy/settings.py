"""What a worker has to know about the tasks of a session."""

from __future__ import annotations

import pickle

from proxystore_core.autoproxy.policy import Policy
from proxystore_core.autoproxy.refs import Channel, channel


class Settings:
    """What a worker has to know, in few bytes; read once per process.

    Attributes:
        wire: The settings, pickled; they are equal where this is.
        channel: Store of the results.
        policy: What travels by reference.
        wrapped: Whether a `Remote` shows its function as `__wrapped__`.
        own_code: Whether functions that cannot be imported are left to the engine's pickler.
    """

    __slots__ = ("channel", "own_code", "policy", "wire", "wrapped")

    def __init__(
        self, source: Channel, policy: Policy, *, wrapped: bool = True, own_code: bool = False
    ) -> None:
        self.channel = source
        self.policy = policy
        self.wrapped = wrapped
        self.own_code = own_code
        fields = (source.wire, policy.changes() or None, wrapped)
        if policy.types or policy.exclude or policy.should_proxy is not None:
            import cloudpickle  # classes and functions of __main__ travel by value

            self.wire: bytes = cloudpickle.dumps(fields, 5)
        else:
            self.wire = pickle.dumps(fields, 5)


_settings: dict[bytes, Settings] = {}


def settings_of(wire: bytes) -> Settings:
    """Return the settings that travelled as `wire`."""
    found = _settings.get(wire)
    if found is None:
        source, changes, wrapped = pickle.loads(wire)
        found = Settings(channel(source), Policy(**(changes or {})), wrapped=wrapped)
        found.wire = wire
        found = _settings.setdefault(wire, found)
    return found
