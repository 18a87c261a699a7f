"""Classes and functions of the script that runs.

Pickle refers to them by name in `__main__`, which is another module in the
worker of an engine. So their definition travels along, and is used only where
`__main__` is not the same script: a process pool goes on seeing its own class.
"""

from __future__ import annotations

import os
import pickle
import sys
from typing import Any

from proxystore_core.serialize import reducers

# An interactive session has no file; forked children inherit its token.
_session = os.urandom(8).hex()


def _script() -> str:
    path = getattr(sys.modules.get("__main__"), "__file__", None)
    return os.path.abspath(path) if path else _session  # noqa: PTH100  # a Path costs 10 times as much


def _lookup(qualname: str) -> Any:
    found: Any = sys.modules.get("__main__")
    for name in qualname.split("."):
        found = getattr(found, name, None)
    return found


def reduce_definition(obj: Any, attach: reducers.Attach) -> Any:
    """Reduce a class or function of `__main__` to its name and its definition."""
    if obj.__module__ != "__main__" or _lookup(obj.__qualname__) is not obj:
        return NotImplemented
    import cloudpickle

    try:
        definition = cloudpickle.dumps(obj)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001  # it refers to what cannot be sent; its name still can
        return NotImplemented
    return load_definition, (obj.__qualname__, _script(), definition)


def load_definition(qualname: str, script: str, definition: bytes) -> Any:
    """Return the class or function of this `__main__`, or the one that was sent."""
    if script == _script():
        found = _lookup(qualname)
        if found is not None:
            return found
    return pickle.loads(definition)
