"""The configuration of an endpoint whose workers find this package, and a peer where one helps.

What is written is the `user_config_template.yaml.j2` of `globus-compute-endpoint`, of which its
configuration reference says what everything means.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from proxystore_core import __version__
from proxystore_core.exceptions import ExecutorConfigError

_NOTHING: Mapping[str, Any] = MappingProxyType({})
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")

_HEAD = """\
# Written by proxystore-globus-compute: the user_config_template.yaml.j2 of an endpoint.
# Its directory is ~/.globus_compute/<name of the endpoint>.

idle_heartbeats_soft: 10
idle_heartbeats_hard: 5760
"""

_PEER = """
# The peer of this login node, through which data goes to other sites: compute nodes often have
# no way out. $PPID is the endpoint's process; the peer ends with it.
endpoint_setup: |
"""


def requirement(*extras: str) -> str:
    """Return what `pip install`, or `requirements` of a `user_endpoint_config`, takes.

    Args:
        extras: Extras of the package that the workers need.
    """
    chosen = f"[{','.join(extras)}]" if extras else ""
    return f"proxystore-core{chosen}=={__version__}"


def worker_init(*lines: str, extras: tuple[str, ...] = (), install: bool = True) -> str:
    """Return the commands that make a worker ready.

    Args:
        lines: Commands to run before, as one that activates an environment.
        extras: Extras of the package that the workers need.
        install: Install the package where it is missing.
    """
    commands = [line for text in lines for line in text.strip().splitlines()]
    if install:
        wanted = shlex.quote(requirement(*extras))
        commands.append(
            "python3 -c 'import proxystore_globus_compute' 2>/dev/null"
            f" || python3 -m pip install --quiet {wanted}"
        )
    return "\n".join(commands)


def peer_start(name: str) -> str:
    """Return the command that starts a peer which ends with the Globus Compute endpoint.

    For `endpoint_setup`: the endpoint waits for whoever has its output, and the command says
    yes where the peer runs already.

    Args:
        name: Name of the peer, as `proxystore-endpoint configure` was given it.

    Raises:
        ExecutorConfigError: If it is no name.
    """
    if not _NAME.fullmatch(name):
        raise ExecutorConfigError(f"{name!r} is no name of a peer endpoint.")
    quiet = "</dev/null >/dev/null 2>&1"
    return (
        f'proxystore-endpoint start {name} --detach --watch-parent "$PPID" {quiet}'
        f" || proxystore-endpoint status {name} {quiet}"
    )


def endpoint_config(
    *,
    init: str = "",
    install: bool = True,
    peer: str | None = None,
    workers_per_node: int | None = None,
    retries: int = 1,
    provider: Mapping[str, Any] = _NOTHING,
    engine: Mapping[str, Any] = _NOTHING,
) -> str:
    """Write the configuration of a Globus Compute endpoint.

    Args:
        init: Commands for each worker, as one that activates an environment.
        install: Let workers install the package where it is missing.
        peer: Name of the peer endpoint to start beside, on sites whose compute nodes do not
            reach other sites; configure it once with `proxystore-endpoint configure NAME`.
        workers_per_node: Workers on each node; `None` for one on each core.
        retries: How often a task runs again when its node is lost. Arguments stay until the
            last try is over.
        provider: Options of the provider, with its `type`; by default workers on this machine.
        engine: More options of the `GlobusComputeEngine`.

    Returns:
        Text of a `user_config_template.yaml.j2`.

    Raises:
        ExecutorConfigError: If an option is not what it should be.
    """
    if workers_per_node is not None and workers_per_node < 1:
        raise ExecutorConfigError(f"workers_per_node is 1 or more, not {workers_per_node}.")
    if retries < 0:
        raise ExecutorConfigError(f"retries is 0 or more, not {retries}.")
    text = _HEAD
    if peer is not None:
        text += _PEER + _indented(peer_start(peer), 2) + "\n"
    options: dict[str, Any] = {"type": "GlobusComputeEngine"}
    if workers_per_node is not None:
        options["max_workers_per_node"] = workers_per_node
    options["max_retries_on_system_failure"] = retries
    options.update(engine)
    chosen: dict[str, Any] = {
        "type": "LocalProvider",
        "init_blocks": 1,
        "min_blocks": 0,
        "max_blocks": 1,
        **provider,
    }
    given = str(chosen.pop("worker_init", ""))
    extras = () if peer is None else ("endpoint",)
    commands = worker_init(given, init, extras=extras, install=install)
    text += f"\nengine:\n{_mapping(options, 2)}  provider:\n{_mapping(chosen, 4)}"
    if commands:
        text += f"    worker_init: |\n{_indented(commands, 6)}\n"
    return text


def _mapping(options: Mapping[str, Any], indent: int) -> str:
    """Write a mapping as YAML; JSON is YAML, too."""
    lines = []
    for name, value in options.items():
        try:
            lines.append(f"{' ' * indent}{name}: {json.dumps(value)}\n")
        except (TypeError, ValueError) as error:
            raise ExecutorConfigError(f"{name}={value!r} has no form in YAML: {error}") from error
    return "".join(lines)


def _indented(text: str, indent: int) -> str:
    """Indent lines; what Jinja would take for its own is told to be text."""
    if re.search(r"\{[{%#]", text):
        text = "{% raw %}" + text + "{% endraw %}"
    return "\n".join(f"{' ' * indent}{line}" for line in text.splitlines())
