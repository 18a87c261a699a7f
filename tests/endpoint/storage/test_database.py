"""The database of durable objects: commits that are shared, files that shrink."""

from __future__ import annotations

import hashlib
import sqlite3
import threading
from pathlib import Path

import pytest
from proxystore_endpoint.exceptions import EndpointStorageError
from proxystore_endpoint.storage.database import Database
from proxystore_endpoint.storage.rows import Row

from proxystore_core.exceptions import CorruptObjectError


@pytest.fixture
def database(tmp_path: Path):
    made = Database(tmp_path)
    yield made
    made.close()


def row(database: Database, key: str, data: bytes) -> Row:
    etag = hashlib.sha256(data).digest()
    return Row(database.new_id(), key, len(data), etag, "", 1.5, None)


def test_writers_that_come_together_share_commits(database: Database) -> None:
    rows: list[Row] = []

    def work(number: int) -> None:
        for turn in range(20):
            one = row(database, f"{number}-{turn}", b"data")
            database.change(insert=one, data=b"data")
            rows.append(one)
            if turn % 2:
                database.change(delete=[one])
                rows.remove(one)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(rows) == 80
    assert database._commits <= 240
    assert all(database.data(one) == b"data" for one in rows)
    database.close()
    again = Database(Path(database.path).parent)
    assert again.problems == []
    assert {one.key for one in again.rows} == {one.key for one in rows}
    again.close()


def test_one_that_cannot_be_stored_takes_no_other_with_it(database: Database) -> None:
    good, bad = row(database, "good", b"x"), row(database, "bad", b"x")
    database.change(insert=good, data=b"x")
    with pytest.raises(EndpointStorageError):
        database.change(insert=good._replace(key="again"), data=b"x")  # the number is taken
    database.change(insert=bad, data=b"x")
    assert database.data(bad) == b"x"


def test_removing_twice_counts_once(database: Database) -> None:
    one = row(database, "key", b"x")
    database.change(insert=one, data=b"x")
    database.change(delete=[one])
    database.change(delete=[one])
    database.close()
    again = Database(Path(database.path).parent)
    assert (again.problems, again.rows) == ([], [])
    again.close()


def test_shrinks(database: Database) -> None:
    data = bytes(60_000)
    rows = [row(database, f"{number}", data) for number in range(200)]
    for one in rows:
        database.change(insert=one, data=data)
    database.shrink()
    before = Path(database.path).stat().st_size
    assert before > 10_000_000
    database.change(delete=rows)
    for _ in range(3):
        database.shrink()
    assert Path(database.path).stat().st_size < before / 2


def test_what_was_changed_by_others_shows(database: Database) -> None:
    one, other = row(database, "one", b"x"), row(database, "other", b"y")
    database.change(insert=one, data=b"x")
    database.change(insert=other, data=b"y")
    connection = sqlite3.connect(database.path)
    connection.execute("UPDATE objects SET data=? WHERE id=?", (b"z", one.id))
    connection.commit()
    with pytest.raises(CorruptObjectError, match="'one'"):
        database.data(one)
    assert database.data(other) == b"y"
    connection.execute("UPDATE objects SET key='else' WHERE id=?", (other.id,))
    connection.commit()
    connection.close()
    database.close()
    again = Database(Path(database.path).parent)
    assert "0 objects were saved" in again.problems[0]
    again.close()


def test_of_a_later_release(database: Database) -> None:
    connection = sqlite3.connect(database.path)
    connection.execute("PRAGMA user_version=99")
    connection.close()
    database.close()
    again = Database(Path(database.path).parent)
    assert "version 99" in again.problems[0]
    again.close()


def test_after_it_was_closed(database: Database) -> None:
    one = row(database, "key", b"x")
    database.change(insert=one, data=b"x")
    database.close()
    database.close()
    with pytest.raises(EndpointStorageError, match="closed"):
        database.change(delete=[one])
    with pytest.raises(EndpointStorageError, match="closed"):
        database.data(one)
