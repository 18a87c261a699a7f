"""The process of an endpoint: begun, watched and ended.

`launch` starts one in the background and waits until it serves; `run` is that process, or the
current one for `--no-detach`. It ends by SIGTERM or SIGINT, with the process that it watches, or
when nobody needs it any more; no error in a task ends it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import logging
import logging.handlers
import os
import resource
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from proxystore_endpoint.config import get_log_filepath, read_config
from proxystore_endpoint.exceptions import (
    EndpointConfigError,
    EndpointError,
    EndpointNotRunningError,
    EndpointRunningError,
)
from proxystore_endpoint.running import (
    Running,
    clear_running,
    make_runtime_dir,
    process_started,
    read_running,
    write_running,
)

_LOG = logging.getLogger(__name__)
_READY_S = 60.0
_LATE = b'{"error": "It does not serve after a minute; see its log."}'
_CHECK_S = 1.0
_FILES = 65536
_LOG_BYTES, _LOG_FILES = 10_000_000, 3
_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_NOISY = ("aioice", "aiortc", "asyncio", "hypercorn", "uvicorn", "websockets")


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How a daemon is run.

    Attributes:
        log_level: Least level that is logged.
        watch_parent: Process with which the daemon ends; 0 for none.
        idle_exit: Seconds without use after which it ends; 0 for never.
    """

    log_level: str = "INFO"
    watch_parent: int = 0
    idle_exit: float = 0.0


class Report(msgspec.Struct, frozen=True):
    """What a starting daemon tells whoever waits for it.

    Attributes:
        error: Why it could not start; empty if it could.
    """

    error: str = ""


def launch(directory: Path, options: Options) -> Running:
    """Start the daemon of an endpoint in the background, and wait until it serves.

    Args:
        directory: The endpoint's directory.
        options: How to run it.

    Raises:
        EndpointRunningError: It runs already.
        EndpointNotRunningError: It did not start.
    """
    receiver, sender = os.pipe()
    log = get_log_filepath(directory)
    # -P: what lies in the current directory is no part of the program.
    command = [sys.executable, "-P", "-m", "proxystore_endpoint.daemon", str(directory)]
    command += ["--ready", str(sender), "--options", msgspec.json.encode(options).decode()]
    try:
        with open(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as output:
            starter = subprocess.Popen(  # noqa: S603 - this program itself
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(sender,),
                start_new_session=True,
                cwd="/",
            )
    finally:
        os.close(sender)
    with open(receiver, "rb") as pipe:
        starter.wait()  # it forks at once
        said, _, _ = select.select([pipe], [], [], _READY_S)
        raw = pipe.read() if said else _LATE
    try:
        report = msgspec.json.decode(raw, type=Report)
    except msgspec.DecodeError:
        report = Report(error=f"It ended at once. What it said is at the end of {log}.")
    if report.error:
        raise EndpointNotRunningError(f"The endpoint did not start. {report.error}")
    running = read_running(directory)
    if running is None:
        raise EndpointNotRunningError(f"The endpoint ended again; see {log}.")
    return running


def run(
    directory: Path,
    options: Options,
    *,
    ready: Callable[[Running], None] | None = None,
    to_stderr: bool = True,
) -> None:
    """Be the daemon of an endpoint until it is told to stop.

    Args:
        directory: The endpoint's directory.
        options: How to run.
        ready: Called once it serves.
        to_stderr: Whether to log to standard error, too.

    Raises:
        EndpointRunningError: It runs already.
        EndpointError: It cannot start.
    """
    config = read_config(directory)
    _raise_file_limit()
    with _log_to(directory, options.log_level, to_stderr=to_stderr), _only_one(config.uuid):
        _check_other(directory)
        asyncio.run(_serve(directory, options, ready))


def _raise_file_limit() -> None:
    """Take as many descriptors as the system gives: each client and peer needs some."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
    if soft < wanted:
        with contextlib.suppress(ValueError, OSError):  # then it is what it was
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _check_other(directory: Path) -> None:
    other = read_running(directory)
    if other is not None and not other.is_here() and other.node.rpartition("/")[0]:
        here = os.uname().nodename == other.node.rpartition("/")[0]
        if not here:
            raise EndpointRunningError(
                f"The endpoint runs on {other.hostname} (process {other.pid}), or did so last. "
                f"Stop it there; if it is gone, remove {directory / 'daemon.pid'}."
            )
    clear_running(directory, other)


async def _serve(
    directory: Path, options: Options, ready: Callable[[Running], None] | None
) -> None:
    from proxystore_endpoint.service import Service
    from proxystore_endpoint.tasks import log_errors

    loop = asyncio.get_running_loop()
    log_errors(loop)
    stop = asyncio.Event()
    for sign in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(sign, stop.set)
    service = Service(directory, read_config(directory))
    running = await service.start()
    try:
        write_running(directory, running)
        _LOG.info("%s (%s) serves at %s.", service.config.name, service.config.uuid, running.url)
        if ready is not None:
            ready(running)
        if options.watch_parent:
            service.tasks.keep("the watch", lambda: watch(options.watch_parent, stop))
        if options.idle_exit:
            service.tasks.keep(
                "the idle clock", lambda: _until_idle(service.idle_for, options.idle_exit, stop)
            )
        await stop.wait()
        _LOG.info("Stopping.")
    finally:
        await service.close()
        clear_running(directory, running)
        _LOG.info("Stopped.")


async def watch(pid: int, stop: asyncio.Event) -> None:
    """Set `stop` when a process ends, or if there is none."""
    loop = asyncio.get_running_loop()
    started = process_started(pid)
    if started is not None and sys.platform == "linux":
        with contextlib.suppress(ProcessLookupError):
            fd = os.pidfd_open(pid)
            gone = asyncio.Event()
            try:
                loop.add_reader(fd, gone.set)
                if process_started(pid) == started:
                    await gone.wait()
            finally:
                loop.remove_reader(fd)
                os.close(fd)
    else:
        while process_started(pid) == started is not None:
            await asyncio.sleep(_CHECK_S)
    _LOG.info("Process %d, which this endpoint was started for, is gone.", pid)
    stop.set()


async def _until_idle(idle_for: Callable[[], float], limit: float, stop: asyncio.Event) -> None:
    while (idle := idle_for()) < limit:
        await asyncio.sleep(max(min(limit - idle, _CHECK_S), 0.05))
    _LOG.info("Nobody needed this endpoint for %.0f s.", idle)
    stop.set()


@contextlib.contextmanager
def _only_one(uuid: str) -> Iterator[None]:
    """Hold the lock of an endpoint on this machine, and leave nothing of it behind."""
    path, fd = _lock(uuid)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # the next one is there already
            path.parent.rmdir()
        os.close(fd)


def _lock(uuid: str) -> tuple[Path, int]:
    while True:
        path = make_runtime_dir(uuid) / "lock"
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:  # another one, which ended, took the directory away
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(fd), path.stat()):
                    return path, fd
        except BlockingIOError:
            os.close(fd)
            raise EndpointRunningError("The endpoint runs already on this machine.") from None
        os.close(fd)  # the lock of one that ended: its file is gone


@contextlib.contextmanager
def _log_to(directory: Path, level: str, *, to_stderr: bool) -> Iterator[None]:
    path = get_log_filepath(directory)
    file = logging.handlers.RotatingFileHandler(
        path, maxBytes=_LOG_BYTES, backupCount=_LOG_FILES, encoding="utf-8"
    )
    Path(path).chmod(0o600)
    handlers: list[logging.Handler] = [file]
    if to_stderr:
        handlers.append(logging.StreamHandler())
    root = logging.getLogger()
    before = root.level
    root.setLevel(level)
    for noisy in _NOISY:
        logging.getLogger(noisy).setLevel(max(logging.WARNING, root.level))
    for handler in handlers:
        handler.setFormatter(logging.Formatter(_FORMAT))
        root.addHandler(handler)
    try:
        yield
    finally:
        root.setLevel(before)
        for handler in handlers:
            root.removeHandler(handler)
            handler.close()


def _main() -> int:
    """Be the process that `launch` starts."""
    parser = argparse.ArgumentParser(prog="proxystore_endpoint.daemon")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--ready", type=int, required=True)
    parser.add_argument("--options", required=True)
    given = parser.parse_args()
    if os.fork():
        os._exit(0)  # whoever started it need not wait for it when it ends
    os.umask(0o077)

    def tell(report: Report) -> None:
        with contextlib.suppress(OSError):  # nobody waits any more
            os.write(given.ready, msgspec.json.encode(report))
        os.close(given.ready)

    try:
        options = msgspec.json.decode(given.options, type=Options)
        run(given.directory, options, ready=lambda _running: tell(Report()), to_stderr=False)
    except (EndpointError, EndpointConfigError, OSError, ValueError) as error:
        _LOG.error("%s", error)
        with contextlib.suppress(OSError):
            tell(Report(error=str(error)))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_main())
