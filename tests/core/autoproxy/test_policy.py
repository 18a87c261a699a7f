from __future__ import annotations

import pickle
from typing import Any

import pytest

from proxystore_core.autoproxy import Policy


def test_threshold_is_read_in_words_or_bytes() -> None:
    assert Policy().nbytes == 100_000
    assert Policy(threshold="1 MiB").nbytes == 1 << 20
    assert Policy(threshold=7).nbytes == 7


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"threshold": -1}, ValueError),
        ({"threshold": "much"}, ValueError),
        ({"threshold": 1.5}, TypeError),
        ({"threshold": True}, TypeError),
        ({"depth": -1}, ValueError),
        ({"depth": "2"}, TypeError),
        ({"depth": True}, TypeError),
        ({"resolve": "never"}, ValueError),
        ({"on_unpicklable": "ignore"}, ValueError),
        ({"on_full": "wait"}, ValueError),
        ({"types": ("ndarray",)}, TypeError),
        ({"exclude": [3]}, TypeError),
        ({"should_proxy": 1}, TypeError),
        ({"size": 1}, TypeError),
    ],
)
def test_bad_values_are_refused_by_name(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(options))):
        Policy(**options)


def test_pickles_only_what_differs_from_the_defaults() -> None:
    policy = Policy(threshold="1 MB", types=(dict, list), resolve="lazy")
    assert policy.changes() == {"threshold": "1 MB", "types": (dict, list), "resolve": "lazy"}
    again = pickle.loads(pickle.dumps(policy))
    assert again == policy
    assert hash(again) == hash(policy)
    assert again.nbytes == 10**6
    assert len(pickle.dumps(Policy())) < 80


def test_one_type_is_enough() -> None:
    assert Policy(types=str).types == (str,)  # type: ignore[arg-type]
    assert Policy(exclude=[str]).exclude == (str,)  # type: ignore[arg-type]
