"""Objects by the path they are imported from."""

from __future__ import annotations

import importlib
from typing import Any


def get_object_path(obj: Any) -> str:
    """Return the path that `import_from_path` finds an object by.

    Args:
        obj: A class or function.
    """
    return f"{obj.__module__}.{obj.__qualname__}"


def import_from_path(path: str) -> Any:
    """Import an object by its path, as `'package.module.Class'`.

    Names inside a class work too.

    Raises:
        ImportError: If there is no such module, or no such name in it.
    """
    parts = path.split(".")
    if len(parts) < 2 or not all(parts):
        raise ImportError(f"{path!r} is not a path: write it as 'package.module.Name'.")
    for split in range(len(parts) - 1, 0, -1):
        name = ".".join(parts[:split])
        try:
            found: Any = importlib.import_module(name)
        except ModuleNotFoundError as e:
            if e.name is None or not (name == e.name or name.startswith(f"{e.name}.")):
                raise  # the module is there, and something it needs is not
            continue
        for attribute in parts[split:]:
            try:
                found = getattr(found, attribute)
            except AttributeError as e:
                raise ImportError(f"There is no {attribute!r} in {name!r} ({path!r}).") from e
        return found
    raise ModuleNotFoundError(f"There is no module {parts[0]!r} ({path!r}).", name=parts[0])
