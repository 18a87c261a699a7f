"""What a run gave and what it cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

Mode = Literal["plain", "proxied"]
MODES: tuple[Mode, ...] = get_args(Mode)


@dataclass(frozen=True)
class Outcome:
    """What a run gave and what it cost.

    Attributes:
        answer: What the last task made, `None` where Globus Compute refused a task.
        refused: What it said then.
        tasks: Tasks that were sent.
        requests: Requests that sent tasks, refused ones included.
        broker_bytes: Bytes of tasks and results through the broker.
        store_bytes: Bytes put into the store by anyone.
        seconds: From the first submission to the answer.
        objects_left: Objects in the store at the end.
    """

    answer: dict[str, Any] | None
    refused: str
    tasks: int
    requests: int
    broker_bytes: int
    store_bytes: int
    seconds: float
    objects_left: int

    def answers_like(self, expected: dict[str, Any]) -> bool:
        """Tell whether it is the same answer, to the last bit."""
        return self.answer is not None and all(
            self.answer[name].tobytes() == value.tobytes() for name, value in expected.items()
        )
