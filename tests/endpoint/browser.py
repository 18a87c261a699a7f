"""Chromium without a window, driven through its DevTools protocol.

https://chromedevtools.github.io/devtools-protocol/
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import connect

from tests.conftest import wait_until

NAMES = ("chromium", "chromium-browser", "google-chrome")
TIMEOUT = 20.0
OPTIONS = (
    "--headless=new",
    "--no-sandbox",  # tests run as root in containers
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--no-first-run",
    "--remote-debugging-port=0",
    "--window-size=1280,900",
)


class Browser:
    """One tab."""

    def __init__(self, socket: Any) -> None:
        self._socket = socket
        self._number = 0
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": params}))
        while True:
            told = json.loads(self._socket.recv(TIMEOUT))
            if told.get("id") == self._number:
                assert "error" not in told, told
                result: dict[str, Any] = told["result"]
                return result
            self.events.append(told)

    def open(self, url: str) -> None:
        self.call("Page.navigate", url=url)

    def run(self, code: str) -> Any:
        told = self.call("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    def text(self, selector: str) -> str:
        return str(self.run(f"document.querySelector({selector!r})?.innerText ?? ''"))

    def sees(self, selector: str, text: str) -> bool:
        """Wait until an element that is shown has this text."""
        return wait_until(lambda: text in self.text(selector), TIMEOUT)

    def shown(self, selector: str) -> bool:
        return bool(self.run(f"document.querySelector({selector!r})?.checkVisibility() ?? false"))

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))

    def problems(self) -> list[str]:
        """Return what the page complained about: errors of scripts, of policies, of requests."""
        self.run("0")  # and whatever comes before its answer
        found = []
        for event in self.events:
            params = event.get("params", {})
            if event.get("method") == "Log.entryAdded" and params["entry"]["level"] == "error":
                found.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
            elif event.get("method") == "Runtime.exceptionThrown":
                found.append(str(params["exceptionDetails"]))
        return found


@contextmanager
def browser() -> Iterator[Browser]:
    program = next((path for name in NAMES if (path := shutil.which(name))), None)
    assert program is not None, "This test needs Chromium: apt-get install chromium"
    profile = Path(tempfile.mkdtemp(prefix="chromium-"))
    process = subprocess.Popen(
        [program, *OPTIONS, f"--user-data-dir={profile}", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        told = profile / "DevToolsActivePort"
        assert wait_until(lambda: told.exists() and len(told.read_text().split()) == 2, 40)
        port, path = told.read_text().split()
        address = f"ws://127.0.0.1:{port}"
        with connect(f"{address}{path}", max_size=None, compression=None) as control:
            first = Browser(control)
            target = first.call("Target.createTarget", url="about:blank")["targetId"]
        with connect(f"{address}/devtools/page/{target}", max_size=None, compression=None) as page:
            tab = Browser(page)
            for domain in ("Page", "Runtime", "Log", "Network"):
                tab.call(f"{domain}.enable")
            yield tab
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(profile, ignore_errors=True)
