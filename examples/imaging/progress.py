"""Progress: one line that is rewritten, or a few lines where there is no terminal."""

from __future__ import annotations

import sys
import threading
import time
from concurrent.futures import Future
from typing import Any

BAR = 30


class Progress:
    """Counts tasks as they finish.

    Args:
        title: What is running.
        counts: How many tasks each stage has.
    """

    def __init__(self, title: str, counts: dict[str, int]) -> None:
        self.title = title
        self.counts = counts
        self.done = dict.fromkeys(counts, 0)
        self._lock = threading.Lock()
        self._tty = sys.stdout.isatty()
        self._start: float | None = None
        self._quarter = 0

    def watch(self, stage: str, future: Future[Any]) -> None:
        """Count a task of `stage` when its future is done."""
        self._start = self._start or time.monotonic()
        future.add_done_callback(lambda _: self._count(stage))

    def say(self, text: str) -> None:
        """Show a state that is not a count."""
        if self._tty:
            self._write(f"{self.title}  {text}")
        else:
            print(f"{self.title}: {text}", flush=True)

    def close(self) -> None:
        """End the line."""
        if self._tty:
            sys.stdout.write("\n")

    def _count(self, stage: str) -> None:
        with self._lock:
            self.done[stage] += 1
            done, total = sum(self.done.values()), sum(self.counts.values())
            busy = next((s for s in self.counts if self.done[s] < self.counts[s]), "done")
            text = f"{done:>3}/{total} tasks  {time.monotonic() - (self._start or 0):5.1f} s"
            if self._tty:
                bar = ("█" * (BAR * done // total)).ljust(BAR, "░")
                self._write(f"{self.title}  {bar} {text}  {busy}")
            elif (quarter := 4 * done // total) > self._quarter:
                self._quarter = quarter
                self.say(text.lstrip())

    def _write(self, line: str) -> None:
        sys.stdout.write(f"\r\033[K{line}")
        sys.stdout.flush()
