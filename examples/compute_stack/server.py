"""The stand-in as a process: an HTTP server on 127.0.0.1, and a consumer of results.

Run as `python -m examples.compute_stack.server BROKER_URL PORT_FILE`. It ends when its standard
input does, so with the process that started it, however that ends, and takes with it the processes
that were named there, and the directory of the port file.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from examples.compute_stack.processes import family_of, kill
from examples.compute_stack.queues import PREFIX, Queues
from examples.compute_stack.routes import Routes
from examples.compute_stack.service import Service


def handler_of(routes: Routes) -> type[BaseHTTPRequestHandler]:
    """Make the class that answers requests."""

    class Handler(BaseHTTPRequestHandler):
        """Answers requests, each over a connection of its own."""

        def _answer(self) -> None:
            # To a proxy, which is what a core endpoint takes it for, the whole URL is given.
            path = urlsplit(self.path).path
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, answer = routes.answer(self.command, path, body)
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_GET = do_POST = do_PUT = do_DELETE = _answer  # noqa: N815 - names of the base class

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as in the base
            """Write nothing where all goes well."""

    return Handler


class Server(ThreadingHTTPServer):
    """HTTP server whose threads end with the process."""

    daemon_threads = True
    request_queue_size = 128


def main(broker_url: str, port_file: str) -> None:
    """Serve until standard input ends."""
    queues = Queues(broker_url)
    service = Service(queues)
    threading.Thread(target=queues.consume, args=(service,), daemon=True).start()
    server = Server(("127.0.0.1", 0), handler_of(Routes(service, broker_url, PREFIX)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    ready = Path(port_file)
    draft = ready.with_suffix(".draft")
    draft.write_text(str(server.server_address[1]))
    draft.rename(ready)
    named = [json.loads(line) for line in sys.stdin]  # until there is nobody to write there
    kill({process for pid, mark in named for process in family_of(pid, mark)})
    shutil.rmtree(ready.parent, ignore_errors=True)
    os._exit(0)  # threads wait in sockets, and there is nothing to keep


if __name__ == "__main__":
    main(*sys.argv[1:])
