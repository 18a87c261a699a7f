"""What an unresolved proxy can answer from its `TargetInfo` alone."""

from __future__ import annotations

import sys
from importlib import import_module
from math import prod
from typing import Any

from proxystore_core.proxy.info import SHAPED, TargetInfo, make_dtype

ARRAY_NAMES = frozenset({"shape", "dtype", "ndim", "size", "nbytes"})
"""Attributes of arrays that can be known."""

DISPLAY_NAMES = frozenset(
    {"_ipython_display_", "_ipython_canary_method_should_not_exist_", "_repr_mimebundle_"}
    | {f"_repr_{kind}_" for kind in ("html", "javascript", "jpeg", "json", "latex", "markdown")}
    | {f"_repr_{kind}_" for kind in ("pdf", "png", "svg")}
)
"""What IPython asks of all that it shows."""

# Beginnings of the names by which libraries ask an object whether it knows their protocol.
_PROTOCOLS = (
    "__array_",
    "__arrow_",
    "__cuda_",
    "__dask_",
    "__dataframe_",
    "__dlpack_",
    "__html_",
    "__jax_",
    "__rich_",
    "__sklearn_",
    "__torch_",
)


def known_class(info: TargetInfo) -> type[Any] | None:
    """Give the type of the target, importing its module; `None` where it cannot be found."""
    module, _, name = info.cls.partition(":")
    try:
        found: Any = sys.modules.get(module) or import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError):
        return None
    return found if isinstance(found, type) else None


def known_truth(info: TargetInfo) -> bool | None:
    """Give the truth of the target, or `None` if more than its length decides it."""
    if info.length is None:
        return None
    cls = known_class(info)
    return None if cls is None or hasattr(cls, "__bool__") else info.length > 0


def known_attribute(info: TargetInfo, name: str) -> Any:
    """Give an attribute of the target.

    Raises:
        LookupError: Only the target itself can tell.
        AttributeError: The target has no such attribute.
    """
    if name in ARRAY_NAMES:
        return _array_attribute(info, name)
    if name.startswith("__"):
        cls = known_class(info)
        if cls is not None and _lacks(cls, name):
            raise AttributeError(f"{cls.__name__!r} object has no attribute {name!r}")
        if cls is not None and name in ("__doc__", "__module__") and not cls.__dictoffset__:
            return getattr(cls, name)
    raise LookupError(name)


def summary(info: TargetInfo) -> str:
    """Say in words what is known."""
    words = [info.cls.replace(":", ".").removeprefix("builtins.")]
    if info.shape is not None:
        words.append(f"shape {info.shape}")
    elif info.length is not None:
        words.append(f"length {info.length}")
    if info.dtype is not None:
        words.append(f"dtype {info.dtype}")
    if info.nbytes is not None:
        words.append(f"{info.nbytes} bytes")
    return ", ".join(words)


def _lacks(cls: type[Any], name: str) -> bool:
    """Tell that a special name missing on the class is missing on its instances too."""
    if hasattr(cls, name):
        return False
    has_own = cls.__dictoffset__ != 0 or hasattr(cls, "__getattr__")
    return not has_own or name.startswith(_PROTOCOLS)


def _array_attribute(info: TargetInfo, name: str) -> Any:
    shape = info.shape
    package = info.cls.partition(":")[0].partition(".")[0]
    if shape is None or package not in SHAPED or not hasattr(known_class(info), name):
        raise LookupError(name)
    if name == "shape":
        return sys.modules["torch"].Size(shape) if package == "torch" else shape
    if name == "ndim":
        return len(shape)
    if name == "size" and package in ("numpy", "pandas"):  # something else elsewhere
        return prod(shape)
    if name == "dtype" and info.dtype is not None:
        return make_dtype(info.dtype, package)
    if name == "nbytes" and info.dtype is not None and package in ("numpy", "torch"):
        return prod(shape) * make_dtype(info.dtype, package).itemsize
    raise LookupError(name)
