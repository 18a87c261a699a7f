"""What a future holds in place of a result: an exception, or that it was cancelled."""

from __future__ import annotations

import pickle
from collections.abc import Sequence

from proxystore_core.exceptions import FutureCancelledError, FutureError
from proxystore_core.serialize import BytesLike, register_serializer

IDENTIFIER = "store-outcome"


class Outcome:
    """The end of a future that has no result.

    Args:
        text: The exception with its traceback, as text; empty if it was cancelled.
        pickled: The exception; empty if it cannot be pickled.
    """

    __slots__ = ("pickled", "text")

    def __init__(self, text: str, pickled: bytes) -> None:
        self.text = text
        self.pickled = pickled

    @classmethod
    def of(cls, exception: BaseException) -> Outcome:
        """Describe an exception."""
        from traceback import format_exception

        import cloudpickle

        try:
            pickled = cloudpickle.dumps(exception)
        except Exception:  # noqa: BLE001 -- whatever pickling it raises, there is the text
            pickled = b""
        return cls("".join(format_exception(exception)), pickled)

    @property
    def cancelled(self) -> bool:
        """Whether the future was cancelled."""
        return not self.text

    def exception(self) -> BaseException:
        """Return the exception, or as much of it as this process can make."""
        if self.cancelled:
            return FutureCancelledError("The future was cancelled: there will be no result.")
        last = self.text.strip().rpartition("\n")[2]
        error: BaseException = FutureError(f"The producer failed: {last}")
        if self.pickled:
            try:
                loaded = pickle.loads(self.pickled)
            except Exception as unknown:  # noqa: BLE001 -- it may raise anything
                error.add_note(f"Its exception cannot be unpickled here: {unknown!r}")
            else:
                if isinstance(loaded, BaseException):
                    error = loaded
        error.add_note(f"In the producer:\n{self.text}")
        return error


class _Serializer:
    identifier = IDENTIFIER

    def dump(self, obj: Outcome) -> tuple[BytesLike, Sequence[BytesLike]]:
        return pickle.dumps((obj.text, obj.pickled)), ()

    def load(self, data: memoryview, buffers: Sequence[memoryview]) -> Outcome:
        return Outcome(*pickle.loads(data))


register_serializer(Outcome, _Serializer(), exist_ok=True)
