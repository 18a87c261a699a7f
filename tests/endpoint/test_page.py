"""The web page, in a real browser, on a real daemon with a real peer."""

from __future__ import annotations

import os
from pathlib import Path

from tests.conftest import wait_until
from tests.endpoint.browser import browser
from tests.endpoint.homes import homes

SCREENSHOT = os.environ.get("PROXYSTORE_TEST_SCREENSHOT")


def test_page() -> None:
    with homes(2) as (here, there), browser() as tab:
        a, b = here.make("a"), there.make("b")
        there.run("accept", "b", here.run("share", "a", "--label", "lab b").strip())
        url = there.running("b").url

        # Without the token it asks for it, and tells nothing.
        tab.open(f"{url}/")
        assert wait_until(lambda: tab.shown("#login"), 20)
        assert not tab.shown("#main")
        assert b not in tab.text("body")
        tab.run("document.getElementById('token').value = 'wrong'")
        tab.run("document.querySelector('#login button').click()")
        assert tab.sees("#refused", "wrong")
        assert wait_until(lambda: len(tab.problems()) == 2, 20)  # of the two requests
        assert all("401" in problem for problem in tab.problems())
        tab.events.clear()

        # With the address that `status --page` prints it shows all, and goes on doing so.
        link = there.run("status", "b", "--page").strip()
        assert link.startswith(f"{url}/#token=")
        tab.open("about:blank")
        tab.open(link)
        assert tab.sees("#state", "live")
        assert not tab.shown("#login")
        assert tab.run("location.href") == f"{url}/"  # the token is out of the address
        assert tab.text("#name") == "b"
        assert tab.text("#uuid") == b
        assert tab.text("#no-objects") == "No objects."
        assert a in tab.text("#peers")
        assert tab.run("document.querySelector('#peers .path').innerText") == "tcp"
        with here.client("a") as producer, there.client("b") as consumer:
            data = os.urandom(1 << 20)
            producer.put("far-away", [data] * 24)
            consumer.put("nearby", data, ttl=3600)
            consumer.put("plain", b"x")
            consumer.get("far-away", a)
            assert tab.sees("#list", "nearby")
            assert tab.sees("#list", "far-away")
            assert "60 min" in tab.text("#list")
            assert tab.sees("#objects", "2")
            assert tab.sees("#bytes", "copies of peers': 1 (25.2 MB)")
            assert tab.sees("#peers", "25.2 MB")  # received
            for _ in range(8):
                consumer.put("nearby", [data] * 8)
            assert wait_until(lambda: not tab.text("#rate-in").startswith("0 "), 20)
            assert wait_until(
                lambda: (
                    int(
                        tab.run(
                            "document.querySelectorAll('#graph-in path')[0]"
                            ".getAttribute('d').split(' ').length"
                        )
                    )
                    > 6
                ),
                20,
            )
        if SCREENSHOT:
            tab.screenshot(Path(SCREENSHOT))
        # Nothing came from anywhere else, and nothing was refused or failed.
        requests = [
            event["params"]["request"]["url"]
            for event in tab.events
            if event.get("method") == "Network.requestWillBeSent"
        ]
        assert requests
        assert all(asked.startswith((url, "about:")) for asked in requests), requests
        assert not any("token" in asked.partition("#")[0] for asked in requests)
        assert tab.problems() == []

        # An endpoint that is gone is said to be.
        there.run("stop", "b")
        assert tab.sees("#state", "no answer")
