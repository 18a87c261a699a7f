"""What a client knows of functions, and how it makes calls of them ready to be sent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from globus_compute_sdk import ShellFunction
from globus_compute_sdk.serialize import ComputeSerializer

from proxystore_core.autoproxy import Lease, Session
from proxystore_core.autoproxy.call import all_small, bound_values
from proxystore_core.autoproxy.containers import walk
from proxystore_core.autoproxy.received import receive
from proxystore_core.autoproxy.refs import REFS, Envelope, Packed, Ref
from proxystore_core.autoproxy.results import lent
from proxystore_core.autoproxy.settings import Settings
from proxystore_globus_compute.marks import returned
from proxystore_globus_compute.options import Options
from proxystore_globus_compute.payloads import ReadyArgs, ReadyKwargs, ready, speaks_json
from proxystore_globus_compute.worker import RemoteFunction

_DEPTH = 32


class Known(NamedTuple):
    """What is known of a function that was registered here.

    Attributes:
        name: Its name, for messages.
        func: What was registered; `None` where that is only source code.
        encodes: Whether arguments may travel by reference.
    """

    name: str
    func: RemoteFunction | None = None
    encodes: bool = True


class Ready(NamedTuple):
    """A call, stored and serialized.

    Attributes:
        args: Its positional arguments.
        kwargs: Its keyword arguments.
        lease: Holds what they refer to.
        task: Name of the function, or its id.
        nbytes: Size of the serialized arguments in bytes.
        encodes: Whether what is large of them was stored.
    """

    args: ReadyArgs
    kwargs: ReadyKwargs
    lease: Lease
    task: str
    nbytes: int
    encodes: bool


class Calls:
    """Stores what is large of calls, and makes results of what comes back.

    Args:
        options: What the user said.

    Attributes:
        session: Owns what is stored.
    """

    def __init__(self, options: Options) -> None:
        self.session = Session(options.store, options.policy, own_code=True)
        self._policy = options.task_policy
        self._functions: dict[str, Known] = {}

    @property
    def settings(self) -> Settings:
        """What workers have to know."""
        return self.session.settings(self._policy)

    def wrap(self, fn: Callable[..., Any], *, chunk: bool = False) -> Known:
        """Say what to register in the place of a function.

        Args:
            fn: The function.
            chunk: It is to take a list of calls.
        """
        if isinstance(fn, ShellFunction):  # it makes text of its arguments
            return Known(fn.__name__, encodes=False)
        func = fn.func if isinstance(fn, RemoteFunction) else fn
        made = RemoteFunction(func, self.settings, chunk=chunk)
        return Known(made.__name__, made)

    def remember(self, function_id: str, known: Known) -> None:
        """Know a function by what it was registered as."""
        self._functions[str(function_id)] = known

    def unbound(
        self, fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
        """Make arguments of what a partial or a method is bound to, if some of it is large."""
        bound = bound_values(fn)
        if not bound or all_small(bound, self._policy):
            return fn, args, kwargs
        if hasattr(fn, "__func__"):
            return fn.__func__, (fn.__self__, *args), kwargs
        return fn.func, (*fn.args, *args), {**fn.keywords, **kwargs}

    def ready(
        self,
        serializer: ComputeSerializer,
        function_id: str,
        args: tuple[Any, ...] | list[Any] | None = None,
        kwargs: dict[str, Any] | None = None,
    ) -> Ready:
        """Store what is large of the arguments of a call, and serialize the rest.

        Args:
            serializer: The serializer of the client.
            function_id: The function. One that was registered elsewhere gets proxies in the
                place of large arguments; under JSON it gets them by value.
            args: Positional arguments.
            kwargs: Keyword arguments.

        Raises:
            ArgumentSerializationError: If an argument cannot be serialized.
            AutoProxyError: If the session is closed, or came through a fork.
            TypeError: If the arguments are not a tuple and a dictionary, as the SDK wants them.
        """
        args, kwargs = _checked(args, kwargs)
        known = self._functions.get(function_id)
        func = known.func if known is not None else None
        name = known.name if known is not None else function_id
        encodes = known.encodes if known is not None else not speaks_json(serializer)
        lease = Lease()
        if encodes:
            stand_in = func if func is not None else _Named(name)
            task = self.session.prepare(stand_in, args, kwargs, policy=self._policy)
            args, kwargs, lease = task.args, task.kwargs, task.lease
            if known is None:
                args = tuple(_lent(value) for value in args)
                kwargs = {key: _lent(value) for key, value in kwargs.items()}
        try:
            made, named = ready(serializer, args, kwargs, func, name)
        except BaseException:
            lease.release()
            raise
        return Ready(made, named, lease, name, len(made.payload) + len(named.payload), encodes)

    def result(self, value: Any) -> Any:
        """Make of what a task returned, unpickled or as JSON gives it, its result."""
        settings = self.session.settings()
        marked = returned(value, settings.channel)
        if marked is not None and self.session.closed:
            return receive(marked[0], settings.policy.depth)
        if marked is not None:
            return self.session.result(Envelope(marked[0]))
        self.session.take_over(value)
        return value


def _checked(args: Any, kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if not isinstance(args, list | tuple | None):
        raise TypeError(f"args must be a tuple, not {type(args).__name__}")
    if not isinstance(kwargs, dict | None):
        raise TypeError(f"kwargs must be a dict, not {type(kwargs).__name__}")
    if kwargs and not all(type(name) is str for name in kwargs):
        raise TypeError(f"the keys of kwargs must be strings, not {next(iter(kwargs))!r}")
    return tuple(args or ()), kwargs or {}


class _Named:
    """Stands for a function of which only the name is known."""

    def __init__(self, name: str) -> None:
        self.__name__ = name

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError(f"{self.__name__} is not here.")


class _Lent:
    """A reference that pickles as a proxy, for a function that knows no references."""

    def __init__(self, ref: Ref) -> None:
        self._ref = ref

    def __reduce__(self) -> tuple[Any, ...]:
        return lent, (self._ref,)


def _lent(value: Any) -> Any:
    if type(value) is Packed:
        return walk(value.value, _Lent, depth=_DEPTH, only=REFS)
    return _Lent(value) if type(value) is Ref else value
