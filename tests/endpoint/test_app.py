"""The REST API: objects in and out, whole and in parts."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from proxystore_endpoint.app import limits

from tests.conftest import wait_until
from tests.endpoint.rest import TOKEN, Answer, Served, serve

DATA = os.urandom(700_000)
ETAG = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serve(tmp_path, memory_quota="64 MB", object_limit="32 MB") as running:
        yield running


@pytest.fixture
def stored(served: Served) -> str:
    key = str(uuid.uuid4())
    assert served.ask("PUT", f"/objects/{key}", DATA).status == 201
    return f"/objects/{key}"


def refused(answer: Answer, status: int, error: str) -> str:
    """Check the form of an error, and return its reason."""
    told = answer.json()
    assert (answer.status, told["error"]) == (status, error), told
    assert set(told) == {"error", "reason", "hint"}
    assert told["reason"]
    return str(told["reason"])


class TestObjects:
    def test_round_trip(self, served: Served) -> None:
        key = str(uuid.uuid4())
        put = served.ask("PUT", f"/objects/{key}", DATA)
        assert put.status == 201
        assert put.headers["ETag"] == f'"{ETAG}"'
        assert put.json() == {
            "key": key,
            "nbytes": len(DATA),
            "durability": "memory",
            "etag": ETAG,
        }
        got = served.ask("GET", f"/objects/{key}")
        assert got.status == 200
        assert got.body == DATA
        assert got.headers["ETag"] == f'"{ETAG}"'
        assert got.headers["Content-Type"] == "application/octet-stream"
        head = served.ask("HEAD", f"/objects/{key}")
        assert (head.status, head.body) == (200, b"")
        assert head.headers["Content-Length"] == str(len(DATA))
        assert head.headers["ETag"] == f'"{ETAG}"'
        assert head.headers["X-Durability"] == "memory"
        assert served.ask("DELETE", f"/objects/{key}").status == 204
        reason = refused(served.ask("GET", f"/objects/{key}"), 404, "missing")
        assert "evicted" in reason
        refused(served.ask("DELETE", f"/objects/{key}"), 404, "missing")

    def test_replaced(self, served: Served, stored: str) -> None:
        assert served.ask("PUT", stored, b"new").status == 201
        assert served.ask("GET", stored).body == b"new"

    def test_empty(self, served: Served) -> None:
        assert served.ask("PUT", "/objects/empty", b"").status == 201
        got = served.ask("GET", "/objects/empty")
        assert (got.status, got.body) == (200, b"")

    def test_digest_of_what_local_clients_put(self, served: Served) -> None:
        served.storage.put("local", [DATA])
        assert served.ask("HEAD", "/objects/local").headers["ETag"] == f'"{ETAG}"'

    def test_keys_are_checked(self, served: Served) -> None:
        for key in ("..%2f..%2fetc%2fpasswd", "%2e%2e", "a%00b", "%20", "x" * 129):
            for method in ("GET", "PUT", "DELETE"):
                answer = served.ask(method, f"/objects/{key}", b"x" if method == "PUT" else None)
                assert answer.status in (400, 404), (key, method)
                assert set(answer.json()) == {"error", "reason", "hint"}
        refused(served.ask("GET", "/objects/%2e%2e%2fx"), 404, "not_found")

    def test_ttl(self, served: Served) -> None:
        assert served.ask("PUT", "/objects/brief?ttl=0.2", b"x").status == 201
        got = served.ask("GET", "/objects/brief")
        assert 0 < float(got.headers["X-Expires-In"]) <= 0.2
        assert wait_until(lambda: served.ask("GET", "/objects/brief").status == 404, 5)
        assert "expired" in refused(served.ask("GET", "/objects/brief"), 404, "missing")

    @pytest.mark.parametrize(
        "query", ["ttl=x", "ttl=-1", "ttl=nan", "ttl=inf", "durability=gold", "endpoint=me"]
    )
    def test_wrong_arguments(self, served: Served, query: str) -> None:
        refused(served.ask("PUT", f"/objects/k?{query}", b"x"), 400, "bad_request")
        assert not served.storage.exists("k")

    def test_durable_without_a_disk(self, served: Served) -> None:
        answer = served.ask("PUT", "/objects/k?durability=durable", b"x")
        refused(answer, 400, "bad_request")
        assert not served.storage.exists("k")

    def test_listed(self, served: Served, stored: str) -> None:
        told = served.ask("GET", "/objects").json()
        assert told["total"] == 1
        assert told["objects"][0]["key"] in stored
        assert told["objects"][0]["nbytes"] == len(DATA)
        assert served.ask("GET", "/objects?limit=0").json()["objects"] == []
        refused(served.ask("GET", "/objects?limit=x"), 400, "bad_request")

    def test_foreign_endpoint_without_peers(self, served: Served) -> None:
        answer = served.ask("GET", f"/objects/k?endpoint={uuid.uuid4()}")
        assert "no peers" in refused(answer, 504, "unreachable")
        answer = served.ask("PUT", f"/objects/k?endpoint={uuid.uuid4()}", b"x")
        refused(answer, 504, "unreachable")
        assert served.storage.usage().in_flight == 0
        own = served.endpoint.endpoint_id
        assert served.ask("PUT", f"/objects/k?endpoint={own}", b"x").status == 201


class TestDigest:
    def header(self, data: bytes) -> str:
        return f"sha-256=:{base64.b64encode(hashlib.sha256(data).digest()).decode()}:"

    def test_right(self, served: Served) -> None:
        good = self.header(DATA)
        assert served.ask("PUT", "/objects/k", DATA, Content_Digest=good).status == 201

    def test_wrong(self, served: Served) -> None:
        answer = served.ask("PUT", "/objects/k", DATA[:-1] + b"x", Content_Digest=self.header(DATA))
        assert "digest" in refused(answer, 400, "bad_request")
        assert not served.storage.exists("k")
        assert served.storage.usage().in_flight == 0

    def test_unreadable(self, served: Served) -> None:
        answer = served.ask("PUT", "/objects/k", DATA, Content_Digest="sha-256=:short:")
        refused(answer, 400, "bad_request")


class TestRanges:
    @pytest.mark.parametrize(
        ("asked", "start", "stop"),
        [
            ("bytes=0-0", 0, 1),
            ("bytes=5-9", 5, 10),
            ("bytes=699990-", 699_990, 700_000),
            ("bytes=-10", 699_990, 700_000),
            ("bytes=-9999999", 0, 700_000),
            ("bytes=100-9999999", 100, 700_000),
            ("bytes=0-699999", 0, 700_000),
        ],
    )
    def test_part(self, served: Served, stored: str, asked: str, start: int, stop: int) -> None:
        got = served.ask("GET", stored, Range=asked)
        assert got.status == 206
        assert got.body == DATA[start:stop]
        assert got.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{len(DATA)}"
        assert got.headers["Content-Length"] == str(stop - start)

    @pytest.mark.parametrize("asked", ["bytes=700000-", "bytes=700000-700001", "bytes=-0"])
    def test_outside(self, served: Served, stored: str, asked: str) -> None:
        got = served.ask("GET", stored, Range=asked)
        refused(got, 416, "bad_range")
        assert got.headers["Content-Range"] == "bytes */700000"

    @pytest.mark.parametrize(
        "asked", ["bytes=9-5", "bytes=0-1,5-6", "lines=1-2", "bytes=-", "bytes=a-b", "nonsense"]
    )
    def test_ignored(self, served: Served, stored: str, asked: str) -> None:
        got = served.ask("GET", stored, Range=asked)
        assert (got.status, len(got.body)) == (200, len(DATA))

    def test_head(self, served: Served, stored: str) -> None:
        got = served.ask("HEAD", stored, Range="bytes=0-9")
        assert (got.status, got.headers["Content-Length"]) == (206, "10")

    def test_conditions(self, served: Served, stored: str) -> None:
        same = served.ask("GET", stored, If_None_Match=f'"other", "{ETAG}"')
        assert (same.status, same.body) == (304, b"")
        assert served.ask("GET", stored, If_None_Match='"other"').status == 200
        assert served.ask("GET", stored, Range="bytes=0-1", If_Range=f'"{ETAG}"').status == 206
        assert served.ask("GET", stored, Range="bytes=0-1", If_Range='"old"').status == 200

    def test_resumed(self, served: Served, stored: str) -> None:
        first = served.ask("GET", stored, Range="bytes=0-349999").body
        second = served.ask("GET", stored, Range="bytes=350000-", If_Range=f'"{ETAG}"').body
        assert first + second == DATA


class TestUpstreamRoutes:
    """What clients of ProxyStore's endpoint send, and what they read of the answers."""

    def test_all(self, served: Served) -> None:
        key = str(uuid.uuid4())
        told = served.ask("GET", "/endpoint").json()
        assert told["uuid"] == served.endpoint.endpoint_id
        assert served.ask("GET", f"/exists?key={key}").json() == {"exists": False}
        assert served.ask("GET", f"/get?key={key}").status == 404
        assert served.ask("POST", f"/set?key={key}", DATA).status == 200
        assert served.ask("GET", f"/exists?key={key}").json() == {"exists": True}
        assert served.ask("GET", f"/get?key={key}").body == DATA
        assert served.ask("POST", f"/evict?key={key}").json() == {"evicted": True}
        assert served.ask("POST", f"/evict?key={key}").json() == {"evicted": False}
        assert served.ask("GET", f"/exists?key={key}").json() == {"exists": False}
        own = served.endpoint.endpoint_id
        assert served.ask("POST", f"/set?key={key}&endpoint={own}", b"x").status == 200

    def test_in_chunks(self, served: Served) -> None:
        parts = (DATA[start : start + 100_000] for start in range(0, len(DATA), 100_000))
        assert served.ask("POST", "/set?key=chunked", parts).status == 200
        assert served.ask("GET", "/get?key=chunked").body == DATA

    def test_in_chunks_over_the_limit(self, served: Served) -> None:
        parts = (bytes(1_000_000) for _ in range(40))
        try:
            answer = served.ask("POST", "/set?key=chunked", parts)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it has closed the connection already
        else:
            refused(answer, 413, "too_large")
        assert not served.storage.exists("chunked")

    def test_wrong(self, served: Served) -> None:
        for method, path in (
            ("GET", "/get"),
            ("POST", "/set"),
            ("GET", "/exists"),
            ("POST", "/evict"),
        ):
            refused(served.ask(method, path), 400, "bad_request")
            refused(served.ask(method, f"{path}?key=k&endpoint=no"), 400, "bad_request")
        assert "no body" in refused(served.ask("POST", "/set?key=k"), 400, "bad_request")


class TestRoutes:
    def test_unknown(self, served: Served) -> None:
        refused(served.ask("GET", "/nothing"), 404, "not_found")
        answer = served.ask("POST", "/get?key=k")
        refused(answer, 405, "bad_method")
        assert "GET" in answer.headers["Allow"]

    def test_health(self, served: Served) -> None:
        assert served.ask("GET", "/health", token=None).json() == {"status": "ok"}

    def test_status(self, served: Served, stored: str) -> None:
        told = served.ask("GET", "/status").json()
        assert told["uuid"] == served.endpoint.endpoint_id
        assert told["storage"]["objects"] == 1
        assert told["counters"]["puts"] == 1
        assert told["counters"]["rest_bytes_in"] == len(DATA)
        assert TOKEN not in json.dumps(told)

    def test_metrics(self, served: Served, stored: str) -> None:
        text = served.ask("GET", "/metrics").body.decode()
        assert "proxystore_endpoint_storage_objects 1\n" in text
        assert f"proxystore_endpoint_rest_bytes_in_total {len(DATA)}\n" in text
        for line in text.splitlines():
            if not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                assert name.startswith("proxystore_endpoint_")
                float(value)

    def test_description(self, served: Served) -> None:
        told = served.ask("GET", "/openapi.json").json()
        assert told["openapi"] == "3.1.0"
        app = served.server._server.config.app
        for rule in app.url_map.iter_rules():
            path = rule.rule.replace("<key>", "{key}")
            if path.startswith("/page/"):
                continue
            for method in rule.methods - {"OPTIONS"}:
                if method == "HEAD" and path != "/objects/{key}":
                    continue
                assert method.lower() in told["paths"][path], (path, method)

    def test_references_of_the_description(self, served: Served) -> None:
        told = served.ask("GET", "/openapi.json").json()

        def check(part: object) -> None:
            if isinstance(part, dict):
                if "$ref" in part:
                    found = told
                    for name in part["$ref"].removeprefix("#/").split("/"):
                        found = found[name]
                for value in part.values():
                    check(value)
            elif isinstance(part, list):
                for value in part:
                    check(value)

        check(told)

    def test_connections_are_kept(self, served: Served) -> None:
        import http.client

        connection = http.client.HTTPConnection(served.server.host, served.server.port)
        for _ in range(3):
            connection.request("GET", "/health")
            assert connection.getresponse().read()
        assert len(served.server._server.server_state.connections) == 1
        connection.close()


class TestQuotas:
    def test_over_the_limit(self, served: Served) -> None:
        answer = served.ask("PUT", "/objects/k", bytes(33_000_000))
        refused(answer, 413, "too_large")

    def test_full(self, tmp_path: Path) -> None:
        with serve(tmp_path / "x", memory_quota="4 MB", disk_quota="4 MB") as served:
            statuses = [
                served.ask("PUT", f"/objects/k{n}", bytes(1_000_000)).status for n in range(12)
            ]
            assert set(statuses) == {201, 507}
            answer = served.ask("PUT", "/objects/more", bytes(1_000_000))
            refused(answer, 507, "full")
            first = statuses.index(201)
            assert served.ask("GET", f"/objects/k{first}").status == 200
            assert served.ask("DELETE", f"/objects/k{first}").status == 204
            assert served.ask("PUT", "/objects/more", bytes(900_000)).status == 201

    def test_send_size(self) -> None:
        assert limits.SEND_BYTES <= 1 << 20  # what one client may make us hold
