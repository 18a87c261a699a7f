"""Time that never jumps while a machine is up, and that outlives the process."""

from __future__ import annotations

import time
from functools import cache
from typing import NamedTuple

_BOOTTIME = getattr(time, "CLOCK_BOOTTIME", None)


class Clock:
    """What storage knows of time; tests give it one of their own."""

    def now(self) -> float:
        """Return the seconds since this machine was booted; they never jump."""
        return time.monotonic() if _BOOTTIME is None else time.clock_gettime(_BOOTTIME)

    def wall(self) -> float:
        """Return the seconds since the epoch; they may jump."""
        return time.time()

    def boot(self) -> str:
        """Name the boot that `now` counts from."""
        return _boot_id()


@cache
def _boot_id() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""  # unknown: only the wall clock outlives the process then


class Deadline(NamedTuple):
    """When an object expires, so that it can be told after a restart.

    Attributes:
        ttl: Seconds that it was given.
        wall: When it expires, in seconds since the epoch.
        boot: The boot that `now` counts from.
        now: When it expires, in seconds since then.
    """

    ttl: float
    wall: float
    boot: str
    now: float

    @classmethod
    def after(cls, ttl: float, clock: Clock) -> Deadline:
        """Return the deadline that is `ttl` seconds away."""
        # As floats, which is what a database gives back.
        ttl = float(ttl)
        return cls(ttl, float(clock.wall() + ttl), clock.boot(), float(clock.now() + ttl))

    def at(self, clock: Clock) -> float:
        """Return when it is, on this boot's clock.

        Within one boot no change of the wall clock moves it; after a reboot, none
        makes it later than `ttl` seconds from now.
        """
        if self.boot and self.boot == clock.boot():
            return self.now
        return clock.now() + min(self.ttl, self.wall - clock.wall())
