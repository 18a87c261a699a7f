"""Lazy proxies, stores and channels: the data plane of workflow engines."""

from __future__ import annotations

__version__ = "0.1.0"
