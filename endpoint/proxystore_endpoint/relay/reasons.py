"""What a `Result` or `Closed` of a relay says, in one word; docs/relay.md explains them."""

from __future__ import annotations

from typing import Final

UNKNOWN: Final = "unknown"
BUSY: Final = "busy"
RATE: Final = "rate"
TOO_LARGE: Final = "too_large"
LIMIT: Final = "limit"
REFUSED: Final = "refused"
TIMEOUT: Final = "timeout"
GONE: Final = "gone"
CLOSED: Final = "closed"
