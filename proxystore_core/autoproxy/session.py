"""The submit side of the auto-proxy engine: it stores arguments and owns all that is stored."""

from __future__ import annotations

import threading
import types
import warnings
import weakref
from collections.abc import Callable, Container, Iterable
from typing import Any, NamedTuple

from proxystore_core.autoproxy.call import Call, Tally, all_small, bound_values
from proxystore_core.autoproxy.containers import walk
from proxystore_core.autoproxy.handles import Keeper, find_entry
from proxystore_core.autoproxy.policy import Policy
from proxystore_core.autoproxy.refs import PROXIES, REFS, Envelope, Ref, channel_of
from proxystore_core.autoproxy.results import auto_factory, persist, proxy_of, reference
from proxystore_core.autoproxy.settings import Settings
from proxystore_core.autoproxy.task import Remote, Task
from proxystore_core.exceptions import AutoProxyError, ProxyStoreError
from proxystore_core.proxy import Proxy
from proxystore_core.store.base import Store

_REMOTES = 64  # functions whose `Remote` a session keeps


class Stats(NamedTuple):
    """What a session did.

    Attributes:
        puts: Objects stored for arguments.
        nbytes: Bytes of these objects.
        refs: References passed to tasks.
        hits: How many of them were to objects that were in the store already.
        results: Results, and parts of results, that came back as references.
        result_nbytes: Bytes of these.
        alive: Objects that someone holds now.
        evicted: Objects evicted.
    """

    puts: int
    nbytes: int
    refs: int
    hits: int
    results: int
    result_nbytes: int
    alive: int
    evicted: int


class Session:
    """Owns everything that its tasks store, and evicts it when nobody needs it.

    Args:
        store: Where large objects go. All workers should reach it.
        policy: What travels by reference.
        own_store: Close the store with the session.
        wrapped: Show a task's function as `__wrapped__` of its `Remote`.
        own_code: Leave functions that cannot be imported to the engine's pickler, for an
            engine with rules of its own; else cloudpickle takes them.
        adopt_results: Evict a result with its last holder; else results stay in the store,
            and their proxies pickle as references.
    """

    def __init__(
        self,
        store: Store[Any],
        policy: Policy | None = None,
        *,
        own_store: bool = False,
        wrapped: bool = True,
        own_code: bool = False,
        adopt_results: bool = True,
    ) -> None:
        self.store = store
        self.policy = Policy() if policy is None else policy
        self.own_store = own_store
        self._channel = channel_of(store)
        self._keeper = Keeper(store, temporary=own_store)
        # Not at exit: the keepers themselves see to that.
        weakref.finalize(self, self._keeper.abandon).atexit = False
        self._wrapped = wrapped
        self._own_code = own_code
        self._adopt = adopt_results
        self._settings: dict[Policy, Settings] = {}
        self._depth = self.policy.depth
        self._base = self._known_settings(self.policy)
        self._recent = self.policy, self._base
        self._remotes: dict[tuple[types.FunctionType, Settings], Remote] = {}
        self._lock = threading.Lock()
        self._tally = Tally()
        self._results = self._result_nbytes = 0

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @property
    def closed(self) -> bool:
        """Whether the session was closed."""
        return self._keeper.closed

    def settings(self, policy: Policy | None = None) -> Settings:
        """Return what workers have to know, for engines that carry functions and arguments apart.

        Args:
            policy: The policy of the tasks; `None` for that of the session.
        """
        return self._base if policy is None else self._settings_for(policy)

    def prepare(
        self,
        func: Callable[..., Any],
        args: Iterable[Any] = (),
        kwargs: dict[str, Any] | None = None,
        *,
        policy: Policy | None = None,
        name: str | None = None,
        lists: Container[str] = (),
    ) -> Task:
        """Store what is large of a call's arguments.

        Args:
            func: The function.
            args: Its positional arguments.
            kwargs: Its keyword arguments.
            policy: The policy for this call; `None` for that of the session.
            name: Name of the task, for messages; `None` for that of the function.
            lists: Keyword arguments that stay lists, because the engine looks into them; their
                items are judged one by one.

        Returns:
            What the engine runs instead, and the lease to hold meanwhile. Each try of a task
            may be prepared anew, or the lease be held until the last one.

        Raises:
            ArgumentSerializationError: If an argument cannot be serialized; nothing is left
                in the store.
            AutoProxyError: If the session is closed, or came through a fork.
        """
        if self._keeper.closed:
            raise AutoProxyError("The session is closed: make a new one to submit tasks.")
        if self._keeper.foreign:
            raise AutoProxyError("The session belongs to the parent process: make one in this one.")
        settings = self._base if policy is None else self._settings_for(policy)
        args = tuple(args)
        kwargs = kwargs or {}
        bound = bound_values(func)
        if (
            all_small(args, settings.policy)
            and all_small(kwargs.values(), settings.policy)
            and all_small(bound, settings.policy)
        ):
            return Task(self._remote(func, settings), args, kwargs)
        call = Call(self._keeper, self._channel, settings.policy, self._tally, func, name)
        try:
            if bound:
                func, args, kwargs = call.unbind(func, args, kwargs)
            args = tuple([call.encode(value, i) for i, value in enumerate(args)])
            kwargs = {
                key: call.encode_items(value, key)
                if key in lists and type(value) is list
                else call.encode(value, key)
                for key, value in kwargs.items()
            }
        except BaseException:
            call.lease.release()  # the traceback holds the frames, but not what they stored
            raise
        finally:
            call.close()
        return Task(self._remote(func, settings), args, kwargs, call.lease, call.stored)

    def result(self, value: Any) -> Any:
        """Make proxies of what came back by reference.

        Args:
            value: What the task's `Remote` returned.

        Returns:
            The result. What is large of it is a `Proxy`; its object is evicted when the last
            one who holds it lets go.
        """
        if type(value) is not Envelope:
            return value
        return walk(value.value, self._adopted, depth=self._depth, only=REFS)

    def take_over(self, value: Any) -> None:
        """Own what `receive` made proxies of, as if it had come through `result`.

        Args:
            value: What was received; proxies that came otherwise, or lie in another store, stay
                whose they are. So do all where the session is closed.
        """
        if not self._keeper.closed:
            walk(value, self._taken_over, depth=self._depth, only=PROXIES)

    def persist(self, proxy: Proxy[Any], store: Store[Any] | None = None) -> Proxy[Any]:
        """Make the object of a result outlive the session; see `persist`."""
        return persist(proxy, store)

    def stats(self) -> Stats:
        """Count what the session did."""
        did = self._tally
        results = (self._results, self._result_nbytes)
        kept = (len(self._keeper), self._keeper.evicted)
        return Stats(did.puts, did.nbytes, did.refs, did.hits, *results, *kept)

    def close(self, *, bring_home: bool = True) -> None:
        """Evict everything; calling it twice is no error.

        Args:
            bring_home: Take results that are still held into this process first, so that their
                proxies go on working. What can be mapped is only mapped.
        """
        if self._keeper.closed:
            return
        if bring_home:
            for entry in self._keeper.entries():
                factory = entry.factory() if entry.factory is not None else None
                if factory is not None:
                    try:
                        factory.bring_home()
                    except (ProxyStoreError, OSError) as error:
                        warnings.warn(f"A result was lost: {error}", RuntimeWarning, stacklevel=2)
        self._keeper.close()

    def _remote(self, func: Callable[..., Any], settings: Settings) -> Remote:
        """Give the same object for the same function: engines remember what they pickled."""
        if type(func) is not types.FunctionType:
            return Remote(func, settings)
        found = self._remotes.get((func, settings))
        if found is None:
            if len(self._remotes) >= _REMOTES:  # functions made for one call each
                self._remotes.clear()
            found = self._remotes[func, settings] = Remote(func, settings)
        return found

    def _settings_for(self, policy: Policy) -> Settings:
        recent, found = self._recent
        if recent is policy:  # without its hash, which takes longer than the rest
            return found
        found = self._known_settings(policy)
        self._recent = policy, found
        return found

    def _known_settings(self, policy: Policy) -> Settings:
        try:
            found = self._settings.get(policy)
        except TypeError:  # should_proxy is an object without a hash
            return self._new_settings(policy)
        if found is None:
            found = self._new_settings(policy)
            self._depth = max(self._depth, policy.depth)
            self._settings[policy] = found
        return found

    def _new_settings(self, policy: Policy) -> Settings:
        return Settings(self._channel, policy, wrapped=self._wrapped, own_code=self._own_code)

    def _taken_over(self, proxy: Any) -> Any:
        factory = auto_factory(proxy)
        entry = None if factory is None else factory.entry
        if entry is not None and entry.keeper.lends and entry.ref.channel is self._channel:
            self._keeper.take_over(entry)
            self._count(entry.ref)
        return proxy

    def _count(self, ref: Ref) -> None:
        with self._lock:
            self._results += 1
            self._result_nbytes += ref.nbytes

    def _adopted(self, ref: Ref) -> Any:
        self._count(ref)
        entry = find_entry(ref)  # an argument that came back, of this session or another
        if entry is None:
            if not self._adopt:
                return reference(self.store, ref.key, ref.info)
            entry = self._keeper.adopt(ref)
        return proxy_of(ref, entry, writable=self.policy.writable)
