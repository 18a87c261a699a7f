"""`proxystore ls`, `stat` and `gc`."""

from __future__ import annotations

import argparse
import os
import time
from typing import Any

from proxystore_core.cli._output import print_json, print_table
from proxystore_core.connectors._file_owner import is_store, sweep
from proxystore_core.connectors._inspect import StoreStatus, look, look_at_all
from proxystore_core.connectors._layout import default_spill_dir, root_path
from proxystore_core.connectors._process import host_of
from proxystore_core.connectors._reaping import (
    Reaped,
    reap_partial,
    reap_spill,
    reap_store,
    reap_stores,
)
from proxystore_core.exceptions import ConnectorUnavailableError
from proxystore_core.utils.data import bytes_to_readable


def ls(options: argparse.Namespace) -> int:
    """List the stores of this user on this node."""
    root = root_path()
    stores = look_at_all(root)
    if options.json:
        print_json([_as_dict(store) for store in stores])
    elif not stores:
        print(f"No stores in {root}.")
    else:
        head = ("DIRECTORY", "OWNER", "AGE", "OBJECTS", "BYTES", "KEPT FREE", "SPILLED")
        print_table(head, [_row(store) for store in stores])
        if any(not store.alive for store in stores):
            print("\nStores of dead owners go with the next store that is opened, or now with:")
            print("  proxystore gc")
    return 0


def _row(store: StoreStatus) -> tuple[str, ...]:
    return (
        store.info.directory,
        f"{store.info.pid} ({'alive' if store.alive else 'dead'})",
        _age(store.info.started),
        str(store.usage.objects),
        bytes_to_readable(store.usage.nbytes),
        bytes_to_readable(store.usage.reserved),
        bytes_to_readable(store.spilled),
    )


def stat(options: argparse.Namespace) -> int:
    """Say all about some stores, or about all."""
    if options.directory:
        stores = [_look(directory) for directory in options.directory]
    else:
        stores = look_at_all(root_path())
    if options.json:
        print_json([_as_dict(store) for store in stores])
        return 0
    for number, store in enumerate(stores):
        if number:
            print()
        _describe(store)
    if not stores:
        print(f"No stores in {root_path()}.")
    return 0


def _look(directory: str) -> StoreStatus:
    found = look(os.path.abspath(directory))
    if found is None:
        raise ConnectorUnavailableError(f"{directory} is no store. See: proxystore ls")
    return found


def _describe(store: StoreStatus) -> None:
    info, usage = store.info, store.usage
    print(info.directory)
    for name, value in (
        (
            "owner",
            f"process {info.pid} on {host_of(info.node)}, {'alive' if store.alive else 'dead'}",
        ),
        ("command", info.command),
        ("age", _age(info.started)),
        ("objects", f"{usage.objects}, {bytes_to_readable(usage.nbytes)}"),
        (
            "kept free",
            f"{bytes_to_readable(usage.reserved)} of at most {bytes_to_readable(info.recycle)}",
        ),
        ("in flight", bytes_to_readable(store.partial)),
        ("quota", bytes_to_readable(info.quota)),
        (
            "spilled",
            f"{bytes_to_readable(store.spilled)} in {info.spill}" if info.spill else "never",
        ),
    ):
        print(f"  {name:<10} {value}")


def gc(options: argparse.Namespace) -> int:
    """Remove what processes that are gone left behind."""
    root = root_path()
    dry_run: bool = options.dry_run
    reaped: list[Reaped] = []
    for directory in options.directory:
        if is_store(directory):  # of files
            gone = sweep(os.path.abspath(directory), dry_run=dry_run)
            reaped += [Reaped(path, "expired object", nbytes) for path, nbytes in gone]
            continue
        store = _look(directory)
        if not store.alive:
            reaped += reap_store(store.info.directory, dry_run=dry_run)
        else:
            reaped += reap_partial(store.info, dry_run=dry_run)
    reaped += reap_stores(root, dry_run=dry_run)
    for store in look_at_all(root):
        if store.alive:
            reaped += reap_partial(store.info, dry_run=dry_run)
    reaped += reap_spill(default_spill_dir(), dry_run=dry_run)
    if options.json:
        print_json([one._asdict() for one in reaped])
        return 0
    for one in reaped:
        print(f"{bytes_to_readable(one.nbytes):>10}  {one.path} ({one.what})")
    total = bytes_to_readable(sum(one.nbytes for one in reaped))
    if not reaped:
        print("Nothing to remove.")
    else:
        print(f"{total:>10}  {'would be freed' if dry_run else 'freed'}")
    return 0


def _as_dict(store: StoreStatus) -> dict[str, Any]:
    return {
        **store.info._asdict(),
        "alive": store.alive,
        "objects": store.usage.objects,
        "nbytes": store.usage.nbytes,
        "reserved": store.usage.reserved,
        "spilled": store.spilled,
        "partial": store.partial,
    }


def _age(started: float) -> str:
    seconds = int(max(0, time.time() - started))
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"
