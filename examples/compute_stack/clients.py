"""The SDK's client and executor, pointed at the stack."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator
from typing import Any, TypeVar, cast

import globus_sdk
from globus_compute_sdk import Client, Executor
from globus_compute_sdk.sdk import executor as sdk
from globus_compute_sdk.sdk.client import _ComputeWebClient

E = TypeVar("E", bound=Executor)
C = TypeVar("C", bound=Client)


def make_client(url: str, kind: type[C] | None = None, retries: int = 1, **options: Any) -> C:
    """Make a client of the service at a URL, without a login.

    Args:
        url: Where the service is.
        kind: The class to make one of; the SDK's own by default.
        retries: How often a request is sent again after a 500 or the like. The SDK does it five
            times, with pauses that add up to a minute.
        **options: What else the class takes.
    """
    authorizer = globus_sdk.authorizers.NullAuthorizer()
    made = (kind or Client)(authorizer=authorizer, do_version_check=False, **options)
    made.web_service_address = url
    web_client: Any = _ComputeWebClient  # it has no types
    web = web_client(base_url=url, authorizer=authorizer)
    for part in (web.v2, web.v3):
        part.retry_config.max_retries = retries
        part.transport.session.trust_env = False  # a proxy that is set knows no 127.0.0.1 of ours
    made._compute_web_client = web
    return cast("C", made)


@contextlib.contextmanager
def executor_of(
    client: Client, endpoint_id: str, kind: type[E] | None = None, **options: Any
) -> Iterator[E]:
    """Make an executor with a task group of its own, and leave no thread of it.

    Args:
        client: Its client.
        endpoint_id: Where its tasks run.
        kind: The class to make one of; the SDK's own by default.
        **options: What else the class takes.
    """
    # Executors share the first one's group by default, and then its client and serializer, too.
    options.setdefault("task_group_id", uuid.uuid4())
    # Otherwise the fifth small submission within 16 seconds has to wait for four.
    options = {"api_burst_limit": 8, "api_burst_window_s": 1, **options}
    usual = Executor._default_task_group_id
    made = (kind or Executor)(endpoint_id=endpoint_id, client=client, **options)
    try:
        with made:
            yield cast("E", made)
    finally:
        # The thread that takes results is kept for the next executor of the group.
        watcher: Any = sdk._RESULT_WATCHERS.get(made.task_group_id)
        if watcher is not None:
            watcher.shutdown(cancel_futures=True)
        Executor._default_task_group_id = usual
