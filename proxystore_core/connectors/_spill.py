"""Spill: the area on disk for what the memory of a store has no room for."""

from __future__ import annotations

import os

from proxystore_core.connectors._area import Area, Segment
from proxystore_core.connectors._issued import Issued
from proxystore_core.connectors._layout import (
    OBJECTS,
    PARTIAL,
    default_spill_dir,
    make_in,
    make_private,
)
from proxystore_core.connectors._ledger import Ledger
from proxystore_core.exceptions import ConnectorUnavailableError

MARKER = "store"


class Spill(Area):
    """The spilled objects of a store; its directory is made when the first one is.

    Args:
        directory: Its directory.
        store: The directory of the store.
        ledger: The ledger of the store.
        issued: Where to note that an object exists.
    """

    def __init__(self, directory: str, store: str, ledger: Ledger, issued: Issued) -> None:
        super().__init__(directory, ledger, issued)
        self._store = store

    def allocate(self, size: int) -> Segment | None:
        """Make a segment of `size` bytes, or return `None` where there is no room."""
        self._prepare()
        return super().allocate(size)

    def _prepare(self) -> None:
        if os.path.isdir(self._objects):
            return
        parent = os.path.dirname(self.directory)
        if parent == default_spill_dir():
            make_private(parent)
        with self.ledger:  # and so never after the store was removed
            try:
                make_in(parent, self.directory)
                make_private(self.directory)
                with open(f"{self.directory}/{MARKER}", "w", encoding="utf-8") as file:
                    file.write(self._store)
                for part in (PARTIAL, OBJECTS):
                    os.makedirs(f"{self.directory}/{part}", mode=0o700, exist_ok=True)
            except OSError as error:
                raise ConnectorUnavailableError(
                    f"The spill directory {self.directory} cannot be made: {error.strerror}. "
                    "Name another one with spill_dir=, or switch it off with spill=False."
                ) from error
