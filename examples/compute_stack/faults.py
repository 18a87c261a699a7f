"""Answers that a test asks the stand-in to give instead of its own."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from examples.compute_stack.service import Refusal


@dataclass
class Fault:
    """An answer to give instead.

    Attributes:
        path: What the path of the request contains.
        status: Status to answer; 0 to answer as usual.
        message: What to say.
        times: How often.
        contains: What the body of the request contains, too.
        delay: Seconds to wait before the answer.
    """

    path: str
    status: int = 0
    message: str = "injected"
    times: int = 1
    contains: str = ""
    delay: float = 0.0


class Faults:
    """The faults that are still to happen."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: list[Fault] = []

    def add(self, fault: Fault) -> None:
        """Let a fault happen."""
        with self._lock:
            self._faults.append(fault)

    def clear(self) -> None:
        """Let none happen any more."""
        with self._lock:
            self._faults.clear()

    def apply(self, path: str, body: bytes) -> None:
        """Let the first fault happen that fits a request, if any does.

        Raises:
            Refusal: What it answers.
        """
        with self._lock:
            fault = next((f for f in self._faults if self._fits(f, path, body)), None)
            if fault is None:
                return
            fault.times -= 1
            if fault.times <= 0:
                self._faults.remove(fault)
        time.sleep(fault.delay)
        if fault.status:
            raise Refusal(fault.status, f"HTTP_{fault.status}", fault.message)

    @staticmethod
    def _fits(fault: Fault, path: str, body: bytes) -> bool:
        return fault.path in path and fault.contains.encode() in body
