"""The REST API of an endpoint, and its web page: Quart on uvicorn.

`create_app` makes the application of an endpoint, `serve` runs it.
"""

from __future__ import annotations

from proxystore_endpoint.app.application import create_app
from proxystore_endpoint.app.guard import Access
from proxystore_endpoint.app.server import HttpServer

__all__ = ["Access", "HttpServer", "create_app"]
