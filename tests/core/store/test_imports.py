"""What importing the store costs, and that the names of ProxyStore are there."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

# Everything that the import may load beside this package.
ALLOWED = {
    *("__future__", "_ast", "_collections", "_collections_abc", "_compat_pickle", "_functools"),
    *("_opcode", "_operator", "_pickle", "_sre", "_struct", "_typing", "_weakrefset", "ast"),
    *("collections", "collections.abc", "contextlib", "copy", "copyreg", "dataclasses", "dis"),
    *("enum", "errno", "functools", "importlib", "itertools", "keyword", "linecache", "math"),
    *("opcode", "operator", "os", "pickle", "re", "reprlib", "struct", "textwrap", "threading"),
    *("time", "token", "tokenize", "types", "typing", "warnings", "weakref", "zlib", "inspect"),
    *("_opcode_metadata", "annotationlib", "string", "_string", "_heapq", "_queue"),
}


def run(script: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **environment},
    )
    return done.stdout


def test_the_import_loads_nothing_heavy() -> None:
    # ProxyStore's took 0.4 s, with globus-sdk, pydantic, cryptography and click.
    script = (
        "import json, sys; before = set(sys.modules); import proxystore_core.store; "
        "print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    loaded = {
        name
        for name in json.loads(run(script))
        if name.partition(".")[0] not in ("proxystore_core", "re", "importlib", "typing")
    }
    assert loaded <= ALLOWED, sorted(loaded - ALLOWED)


def test_the_import_takes_less_than_100_ms(tmp_path: Path) -> None:
    script = (
        "import time; start = time.perf_counter(); import proxystore_core.store; "
        "print(time.perf_counter() - start)"
    )
    compiled = {"PYTHONPYCACHEPREFIX": str(tmp_path), "PYTHONDONTWRITEBYTECODE": ""}
    run(script, **compiled)
    best, deadline = 1.0, time.monotonic() + 30  # other processes may be at work
    while best >= 0.1 and time.monotonic() < deadline:
        best = min(best, float(run(script, **compiled)))
    assert best < 0.1


NAMES = {
    "store": "Store StoreConfig StoreFactory get_store get_or_create_store register_store "
    "store_registration unregister_store",
    "store.base": "Store",
    "store.cache": "LRUCache",
    "store.config": "ConnectorConfig StoreConfig",
    "store.exceptions": "StoreError StoreExistsError ProxyStoreFactoryError "
    "ProxyResolveMissingKeyError NonProxiableTypeError",
    "store.executor": "StoreExecutor ProxyAlways ProxyNever ProxyType",
    "store.factory": "StoreFactory PollingStoreFactory",
    "store.future": "Future",
    "store.lifetimes": "Lifetime ContextLifetime LeaseLifetime StaticLifetime "
    "register_lifetime_atexit",
    "store.metrics": "TimeStats Metrics StoreMetrics",
    "store.ref": "BaseRefProxy OwnedProxy RefProxy RefMutProxy borrow mut_borrow clone "
    "into_owned update BaseRefProxyError MutableBorrowError ReferenceNotOwnedError "
    "ReferenceInvalidError",
    "store.scopes": "submit mark_refs_out_of_scope FutureWithCallback",
    "store.types": "ConnectorT ConnectorKeyT SerializerT DeserializerT",
    "store.utils": "get_key resolve_async",
}


@pytest.mark.parametrize("module", NAMES)
def test_the_names_of_proxystore_are_there(module: str) -> None:
    found = importlib.import_module(f"proxystore_core.{module}")
    missing = [name for name in NAMES[module].split() if not hasattr(found, name)]
    assert missing == []


# The parameters of ProxyStore 1.1, in its order; all after the * by name.
SIGNATURES = {
    "store.base:Store.__init__": "name connector * serializer deserializer cache_size metrics "
    "populate_target register",
    "store.base:Store.config": "",
    "store.base:Store.from_config": "config",
    "store.base:Store.future": "* evict serializer deserializer polling_interval "
    "polling_backoff_factor polling_interval_limit polling_timeout",
    "store.base:Store.evict": "key",
    "store.base:Store.exists": "key",
    "store.base:Store.get": "key * deserializer default",
    "store.base:Store.is_cached": "key",
    "store.base:Store.proxy": "obj * evict lifetime serializer deserializer populate_target "
    "skip_nonproxiable",
    "store.base:Store.proxy_batch": "objs * evict lifetime serializer deserializer "
    "populate_target skip_nonproxiable",
    "store.base:Store.proxy_from_key": "key * evict lifetime deserializer",
    "store.base:Store.locked_proxy": "obj * skip_nonproxiable",
    "store.base:Store.owned_proxy": "obj * serializer deserializer populate_target "
    "skip_nonproxiable",
    "store.base:Store.put": "obj * lifetime serializer",
    "store.base:Store.put_batch": "objs * lifetime serializer",
    "store.cache:LRUCache.__init__": "maxsize",
    "store.cache:LRUCache.set": "key value",
    "store.cache:LRUCache.get": "key default",
    "store.config:StoreConfig.__init__": "name connector serializer deserializer cache_size "
    "metrics populate_target auto_register",
    "store.config:ConnectorConfig.__init__": "kind options",
    "store.config:StoreConfig.from_toml": "filepath",
    "store.config:StoreConfig.write_toml": "filepath",
    "store.factory:StoreFactory.__init__": "key store_config * evict deserializer",
    "store.factory:PollingStoreFactory.__init__": "key store_config * deserializer evict "
    "polling_interval polling_backoff_factor polling_interval_limit polling_timeout",
    "store.lifetimes:ContextLifetime.__init__": "store * name",
    "store.lifetimes:ContextLifetime.add_key": "*keys store",
    "store.lifetimes:ContextLifetime.add_proxy": "*proxies",
    "store.lifetimes:ContextLifetime.close": "* close_stores",
    "store.lifetimes:LeaseLifetime.__init__": "store expiry * name",
    "store.lifetimes:LeaseLifetime.extend": "expiry",
    "store.lifetimes:StaticLifetime.add_key": "*keys store",
    "store.lifetimes:register_lifetime_atexit": "lifetime close_stores",
    "store.metrics:StoreMetrics.add_attribute": "name key value",
    "store.metrics:StoreMetrics.add_counter": "name key value",
    "store.metrics:StoreMetrics.add_time": "name key time_ms",
    "store.metrics:StoreMetrics.get_metrics": "key_or_proxy",
    "store.ref:OwnedProxy.__init__": "factory * cache_defaults target",
    "store.ref:RefProxy.__init__": "factory * cache_defaults owner target",
    "store.ref:RefMutProxy.__init__": "factory * cache_defaults owner target",
    "store.ref:borrow": "proxy * populate_target",
    "store.ref:mut_borrow": "proxy * populate_target",
    "store.ref:clone": "proxy",
    "store.ref:into_owned": "proxy * populate_target",
    "store.ref:update": "proxy * serializer",
    "store.scopes:submit": "submit_func * args kwargs register_custom_refs",
    "store.scopes:mark_refs_out_of_scope": "*refs",
    "store.registry:get_store": "val",
    "store.registry:get_or_create_store": "store_config * register",
    "store.registry:register_store": "store exist_ok",
    "store.registry:store_registration": "*stores exist_ok",
    "store.registry:unregister_store": "name_or_store",
    "store.future:Future.set_result": "obj",
    "store.utils:get_key": "proxy",
    "store.utils:resolve_async": "proxy",
}


@pytest.mark.parametrize("path", SIGNATURES)
def test_the_parameters_of_proxystore_are_there(path: str) -> None:
    module, _, names = path.partition(":")
    found = importlib.import_module(f"proxystore_core.{module}")
    for name in names.split("."):
        found = getattr(found, name)
    parameters = dict(inspect.signature(found).parameters)
    parameters.pop("self", None)
    wanted = SIGNATURES[path].split()
    positional = wanted[: wanted.index("*")] if "*" in wanted else wanted
    assert {name.removeprefix("*") for name in wanted} - {""} <= set(parameters)
    if not wanted or not wanted[0].startswith("*"):
        assert list(parameters)[: len(positional)] == positional
