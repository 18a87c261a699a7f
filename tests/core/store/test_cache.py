from __future__ import annotations

from collections import OrderedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxystore_core.exceptions import StoreConfigError
from proxystore_core.store.cache import LRUCache


def test_get_set_exists_evict() -> None:
    cache: LRUCache[str, int] = LRUCache(2)
    assert cache.get("a") is None
    assert cache.get("a", "default") == "default"
    cache.set("a", 1)
    assert cache.exists("a")
    assert cache.get("a") == 1
    cache.evict("a")
    cache.evict("a")
    assert not cache.exists("a")
    assert (cache.hits, cache.misses) == (1, 2)


def test_drops_least_recently_used() -> None:
    cache: LRUCache[str, int] = LRUCache(2)
    cache.set("a", 1)
    cache.set("b", 2)
    cache.get("a")
    cache.set("c", 3)
    assert [cache.exists(key) for key in "abc"] == [True, False, True]


def test_setting_a_key_twice_keeps_one_entry() -> None:
    # ProxyStore listed the key twice, and failed or dropped others when it went.
    cache: LRUCache[str, int] = LRUCache(2)
    for value in (1, 2, 3):
        cache.set("a", value, 10)
    cache.set("b", 1, 10)
    assert (len(cache), cache.nbytes) == (2, 20)
    assert cache.get("a") == 3
    cache.evict("a")
    cache.set("c", 1)
    assert not cache.exists("a")
    assert cache.exists("b")


def test_is_bounded_by_bytes() -> None:
    cache: LRUCache[str, str] = LRUCache(100, maxbytes=100)
    for key in "abcd":
        cache.set(key, key, 40)
    assert [cache.exists(key) for key in "abcd"] == [False, False, True, True]
    assert cache.nbytes == 80


def test_what_is_larger_than_the_cache_is_not_held() -> None:
    cache: LRUCache[str, str] = LRUCache(100, maxbytes=100)
    cache.set("a", "old", 10)
    cache.set("b", "b", 50)
    cache.set("a", "new", 101)
    assert not cache.exists("a")
    assert cache.exists("b")
    assert cache.nbytes == 50


def test_a_cache_of_no_size_holds_nothing() -> None:
    cache: LRUCache[str, int] = LRUCache(0)
    cache.set("a", 1)
    assert cache.get("a") is None


@pytest.mark.parametrize(("maxsize", "maxbytes"), [(-1, None), (1, -1)])
def test_negative_bounds_are_refused(maxsize: int, maxbytes: int | None) -> None:
    with pytest.raises(ValueError, match="cannot be bounded") as caught:
        LRUCache(maxsize, maxbytes=maxbytes)
    assert isinstance(caught.value, StoreConfigError)


@given(
    st.integers(0, 4),
    st.integers(0, 20),
    st.lists(
        st.tuples(st.sampled_from(["set", "get", "evict"]), st.integers(0, 5), st.integers(0, 12))
    ),
)
def test_is_a_bounded_lru_cache(
    maxsize: int, maxbytes: int, steps: list[tuple[str, int, int]]
) -> None:
    cache: LRUCache[int, int] = LRUCache(maxsize, maxbytes=maxbytes)
    model: OrderedDict[int, tuple[int, int]] = OrderedDict()
    for number, (step, key, nbytes) in enumerate(steps):
        if step == "set":
            cache.set(key, number, nbytes)
            model.pop(key, None)
            if maxsize and nbytes <= maxbytes:
                model[key] = (number, nbytes)
            while len(model) > maxsize or sum(size for _, size in model.values()) > maxbytes:
                model.popitem(last=False)
        elif step == "get":
            assert cache.get(key, None) == model.get(key, (None,))[0]
            if key in model:
                model.move_to_end(key)
        else:
            cache.evict(key)
            model.pop(key, None)
        assert len(cache) == len(model)
        assert cache.nbytes == sum(size for _, size in model.values())
        assert all(cache.exists(key) == (key in model) for key in range(6))
