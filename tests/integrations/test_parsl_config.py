"""Making proxy executors: what they are, what they say, what they refuse."""

from __future__ import annotations

import inspect
import threading
from pathlib import Path
from typing import Any

import pytest
from parsl.config import Config
from parsl.executors import HighThroughputExecutor, MPIExecutor, ThreadPoolExecutor
from parsl.executors.base import ParslExecutor
from parsl.executors.status_handling import BlockProviderExecutor
from parsl.launchers import SimpleLauncher
from parsl.providers import LocalProvider
from proxystore_parsl import (
    ProxyHighThroughputExecutor,
    ProxyMPIExecutor,
    ProxyThreadPoolExecutor,
    proxied,
)

from proxystore_core.autoproxy import Policy
from proxystore_core.exceptions import ExecutorConfigError
from proxystore_core.store import Store


def test_a_subclass_is_the_executor_that_parsl_looks_for() -> None:
    executor = ProxyHighThroughputExecutor(label="a", max_workers_per_node=3, threshold="1 MB")
    assert isinstance(executor, HighThroughputExecutor)
    assert isinstance(executor, BlockProviderExecutor)
    assert executor.max_workers_per_node == 3
    assert executor.threshold == "1 MB"


def test_proxied_returns_the_very_executor() -> None:
    inner = HighThroughputExecutor(label="a", worker_debug=True)
    executor = proxied(inner, threshold=123)
    assert executor is inner
    assert type(executor) is ProxyHighThroughputExecutor
    assert executor.worker_debug
    assert executor.threshold == 123


def test_proxied_takes_any_executor() -> None:
    class Custom(HighThroughputExecutor):
        pass

    executor = proxied(Custom(label="c"), threshold=7)
    assert isinstance(executor, Custom)
    assert type(executor).__name__ == "ProxyCustom"
    assert type(proxied(Custom(label="d"))) is type(executor)
    threads = proxied(ThreadPoolExecutor(label="t"), threshold=7)
    assert type(threads) is ProxyThreadPoolExecutor

    class OwnThreads(ThreadPoolExecutor):
        pass

    own = proxied(OwnThreads(label="o"))
    assert isinstance(own, OwnThreads)
    with own:
        own.start()
        shared = [threading.Lock(), b"x" * 1_000_000]
        assert own.submit(lambda value: value, {}, shared).result() is shared
    provider = LocalProvider(launcher=SimpleLauncher())
    assert type(proxied(MPIExecutor(provider=provider))) is ProxyMPIExecutor


def test_a_config_takes_them_and_shows_their_options() -> None:
    with Store("config-repr") as store:
        policy = Policy(threshold=5, depth=1)
        one = ProxyHighThroughputExecutor(label="one", threshold="1 MB", store=store)
        two = proxied(HighThroughputExecutor(label="two"), policy=policy)
        text = repr(Config(executors=[one, two]))
        assert repr(store) in text
    assert "label='one'" in text
    assert "threshold='1 MB'" in text
    assert "label='two'" in text
    assert "threshold=5" in text
    assert "depth=1" in text
    assert "<unrecorded>" not in text


def test_the_signature_lists_parsls_arguments_and_ours() -> None:
    parameters = inspect.signature(ProxyHighThroughputExecutor).parameters
    theirs = inspect.signature(HighThroughputExecutor).parameters
    assert set(parameters) == {*theirs, "threshold", "store", "policy"}
    assert ProxyHighThroughputExecutor("positional label").label == "positional label"


def test_a_users_subclass_keeps_its_own_constructor() -> None:
    class Mine(ProxyHighThroughputExecutor):
        def __init__(self, extra: int, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.extra = extra

    mine = Mine(3, label="mine", threshold=1)
    assert (mine.extra, mine.label, mine.threshold) == (3, "mine", 1)


def test_a_threshold_goes_before_that_of_the_policy() -> None:
    policy = Policy(threshold=5, depth=1)
    assert ProxyHighThroughputExecutor(policy=policy).threshold == 5
    assert ProxyHighThroughputExecutor(policy=policy, threshold=6).threshold == 6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": "abc"}, "threshold"),
        ({"threshold": -1}, "threshold"),
        ({"threshold": 1.5}, "threshold"),
        ({"store": "redis"}, "store must be"),
        ({"store": Store}, "store must be"),
        ({"policy": {"threshold": 1}}, "policy must be"),
    ],
)
def test_a_wrong_option_is_refused_at_once(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ExecutorConfigError, match=message):
        ProxyHighThroughputExecutor(label="a", **options)
    executor = HighThroughputExecutor(label="a")
    with pytest.raises(ExecutorConfigError, match=message):
        proxied(executor, **options)
    assert type(executor) is HighThroughputExecutor
    with pytest.raises(ExecutorConfigError, match=message):
        proxied(ThreadPoolExecutor(), **options)


def test_an_unknown_argument_is_refused_as_parsl_does() -> None:
    with pytest.raises(TypeError, match="thresold"):
        ProxyHighThroughputExecutor(label="a", thresold=1)


def test_an_argument_of_a_wrong_type_is_refused_as_parsl_does() -> None:
    with pytest.raises(Exception, match="label"):
        ProxyHighThroughputExecutor(label=3)


def test_proxying_twice_is_refused() -> None:
    with pytest.raises(ExecutorConfigError, match="'a' is proxied already"):
        proxied(ProxyHighThroughputExecutor(label="a"))
    with pytest.raises(ExecutorConfigError, match="'threads' is proxied already"):
        proxied(proxied(ThreadPoolExecutor()))


@pytest.mark.parametrize("other", [None, 3, "htex", HighThroughputExecutor, Config()])
def test_what_is_no_executor_is_refused(other: object) -> None:
    with pytest.raises(ExecutorConfigError, match="not a Parsl executor object"):
        proxied(other)  # type: ignore[type-var]


def test_a_class_is_told_to_be_called() -> None:
    with pytest.raises(ExecutorConfigError, match=r"HighThroughputExecutor\(\.\.\.\)"):
        proxied(HighThroughputExecutor)  # type: ignore[type-var]


def test_an_executor_that_unwraps_functions_is_refused() -> None:
    class RadicalPilotExecutor(ThreadPoolExecutor):
        pass

    with pytest.raises(ExecutorConfigError, match="RadicalPilotExecutor"):
        proxied(RadicalPilotExecutor())


def test_an_executor_with_attributes_of_these_names_keeps_them() -> None:
    class Own(HighThroughputExecutor):
        def __init__(self) -> None:
            super().__init__(label="own")
            self.store = "a shop"

    executor = proxied(Own(), threshold=9)
    assert executor.store == "a shop"
    assert executor.threshold == 9


class FailingExecutor(ParslExecutor):
    """Does not start."""

    label = "failing"

    def start(self) -> None:
        raise OSError("no room")

    def submit(self, func: Any, resource_specification: Any, *args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("not started")

    def shutdown(self) -> None:
        pass


def test_a_failed_start_leaves_nothing() -> None:  # no_leaks looks for shared memory
    executor = proxied(FailingExecutor())
    with pytest.raises(OSError, match="no room"):
        executor.start()
    with pytest.raises(RuntimeError, match="not started"):
        executor.submit(len, {}, b"x" * 1_000_000)
    executor.shutdown()


def test_workers_elsewhere_share_files_of_the_run_directory(tmp_path: Path) -> None:
    class ClusterProvider(LocalProvider):
        pass

    executor = proxied(FailingExecutor())
    executor.run_dir = str(tmp_path)
    executor.provider = ClusterProvider()
    with executor._proxy_own_store() as store:
        assert store.connector.config()["store_dir"] == str(tmp_path / "parsl-failing")
        store.put("something")
    assert not list(tmp_path.iterdir())
    with pytest.raises(OSError, match="no room"):
        executor.start()
    assert not list(tmp_path.iterdir())
