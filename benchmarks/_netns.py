"""Network namespaces for tests and benchmarks: hosts of our own on one machine.

Root is enough; without it everything happens inside a user namespace, where the kernel
allows those. A namespace lives as long as the process that holds it, and that one ends with its
standard input, so nothing is left behind even if a test is killed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

PACKAGES = {"ip": "iproute2", "nsenter": "util-linux", "unshare": "util-linux"}
_HOLD = ("sh", "-c", "echo held; exec cat >/dev/null")  # `cat` ends with its standard input


class NamespaceError(RuntimeError):
    """Network namespaces cannot be made here."""


class Namespace:
    """One network namespace, held by a process.

    Attributes:
        name: What it is called in messages.
        pid: The process in it; `/proc/<pid>/ns/net` is the namespace.
    """

    def __init__(self, name: str, enter: Sequence[str], create: Sequence[str]) -> None:
        self.name = name
        self._holder = subprocess.Popen(
            [*create, *_HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert self._holder.stdout is not None
        assert self._holder.stderr is not None
        if self._holder.stdout.readline() != b"held\n":
            said = self._holder.stderr.read().decode().strip()
            self.close()
            raise NamespaceError(
                f"cannot make a network namespace: {said}. Run as root, or allow user namespaces "
                "(sysctl kernel.unprivileged_userns_clone=1, user.max_user_namespaces > 0)"
            )
        self.pid = self._holder.pid
        self._enter = [*enter, f"--net=/proc/{self.pid}/ns/net", "--"]

    def command(self, *argv: str) -> list[str]:
        """Return a command that runs another one inside."""
        return [*self._enter, *argv]

    def run(self, *argv: str) -> str:
        """Run a command inside; return what it printed.

        Raises:
            NamespaceError: If it failed.
        """
        done = subprocess.run(
            self.command(*argv), capture_output=True, text=True, check=False, timeout=60
        )
        if done.returncode != 0:
            raise NamespaceError(f"in {self.name}: {argv}: {done.stderr.strip()}")
        return done.stdout

    def script(self, text: str) -> str:
        """Run lines of shell inside, the first failure ends it."""
        return self.run("sh", "-ec", text)

    def popen(self, *argv: str, **kwargs: Any) -> subprocess.Popen[bytes]:
        """Start a process inside."""
        return subprocess.Popen(self.command(*argv), **kwargs)

    def close(self) -> None:
        """Let the namespace go, with every interface in it."""
        for stream in (self._holder.stdin, self._holder.stdout, self._holder.stderr):
            if stream is not None:
                stream.close()
        self._holder.wait(timeout=10)


class Namespaces:
    """Namespaces that go together; close it, or use it as a context manager.

    Args:
        packages: Further programs that will be run in them, and the packages that bring those.

    Raises:
        NamespaceError: A program is missing.
    """

    def __init__(self, **packages: str) -> None:
        needed = PACKAGES | packages
        missing = sorted({needed[tool] for tool in needed if shutil.which(tool) is None})
        if missing:
            raise NamespaceError(
                f"missing programs; install them: apt-get install {' '.join(missing)}"
            )
        self._all: list[Namespace] = []
        self._privileged = os.geteuid() == 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def add(self, name: str) -> Namespace:
        """Make a namespace with nothing but loopback in it."""
        enter = ["nsenter"]
        create = ["unshare", "--net"]
        if not self._privileged:
            if self._all:
                first = self._all[0].pid
                enter += [f"--user=/proc/{first}/ns/user", "--preserve-credentials"]
                create = [*enter, "--", *create]
            else:
                create = ["unshare", "--user", "--map-root-user", "--net"]
        namespace = Namespace(name, enter, create)
        if not self._privileged and not self._all:
            namespace._enter[1:1] = [
                f"--user=/proc/{namespace.pid}/ns/user",
                "--preserve-credentials",
            ]
        self._all.append(namespace)
        namespace.run("ip", "link", "set", "lo", "up")
        return namespace

    def wire(self, left: Namespace, left_name: str, right: Namespace, right_name: str) -> None:
        """Lay a cable between two namespaces: an interface in each, both up."""
        left.script(
            f"ip link add {left_name} type veth peer name {right_name} netns {right.pid}\n"
            f"ip link set {left_name} up"
        )
        right.run("ip", "link", "set", right_name, "up")

    def close(self) -> None:
        """Let all of them go."""
        while self._all:
            self._all.pop().close()
