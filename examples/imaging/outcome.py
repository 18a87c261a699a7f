"""What a run gave and what it cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from examples.imaging.scene import Image, Shifts

Mode = Literal["plain", "proxied"]
MODES: tuple[Mode, ...] = get_args(Mode)


@dataclass(frozen=True)
class Outcome:
    """What a run gave and what it cost.

    Attributes:
        mosaics: The stitched pictures.
        shifts: The shifts found in all fields, one after the other; shape (fields, frames, 2).
        shift_error: Largest difference between a true and a found shift, in pixels.
        tasks: Number of tasks.
        parsl_bytes: Bytes between client and interchange, both ways.
        store_bytes: Bytes put into the store by anyone.
        seconds: From the first submission to the last answer.
        cpu_seconds: Processor time of all processes meanwhile.
        peak_bytes: Most memory that all processes and the store held together.
        objects_left: Files in the store after Parsl has shut down.
    """

    mosaics: dict[str, Image]
    shifts: Shifts
    shift_error: float
    tasks: int
    parsl_bytes: int
    store_bytes: int
    seconds: float
    cpu_seconds: float
    peak_bytes: int
    objects_left: int

    def answers_like(self, other: Outcome) -> bool:
        """Tell whether both have the same answers, to the last bit."""
        return self._bits() == other._bits()

    def _bits(self) -> list[bytes]:
        return [self.shifts.tobytes(), *(mosaic.tobytes() for mosaic in self.mosaics.values())]
