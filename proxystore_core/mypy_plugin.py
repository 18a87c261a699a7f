"""A mypy plugin: an attribute of a `Proxy[T]` has the type that it has on `T`.

Without the plugin mypy takes every attribute of a proxy for `Any`. With it,
`Proxy[Image]().width` is an `int` and a misspelled name is an error, also on
`OwnedProxy`, `RefProxy` and `RefMutProxy` and on a union of a proxy and its target.

Switch it on in `pyproject.toml`:

```toml
[tool.mypy]
plugins = ["proxystore_core.mypy_plugin"]
```

or in `mypy.ini`:

```ini
[mypy]
plugins = proxystore_core.mypy_plugin
```
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from mypy.checker import TypeChecker
from mypy.maptype import map_instance_to_supertype
from mypy.plugin import AttributeContext, Plugin
from mypy.typeops import make_simplified_union
from mypy.types import AnyType, Instance, Type, TypeVarType, UnionType, get_proper_type

_PROXY = "proxystore_core.proxy._proxy.Proxy"


class ProxyPlugin(Plugin):
    """Looks attributes of proxies up on their targets."""

    def get_attribute_hook(self, fullname: str) -> Callable[[AttributeContext], Type] | None:
        """Give the hook for names that a proxy has only through its target."""
        owner, _, name = fullname.rpartition(".")
        if owner != _PROXY or self.lookup_fully_qualified(fullname) is not None:
            return None
        return partial(attribute_of_target, name=name)


def attribute_of_target(context: AttributeContext, *, name: str) -> Type:
    """Find the type of an attribute of a proxy.

    Args:
        context: The access; of a union, all parts that are proxies are looked at.
        name: The attribute.

    Returns:
        Its type on the target; what mypy found itself, where the target has no known type.
    """
    whole = get_proper_type(context.type)
    parts = whole.items if isinstance(whole, UnionType) else [whole]
    found = [
        context.default_attr_type if target is None else _look_up(target, name, context)
        for part in parts
        if (proxy := _as_proxy(part)) is not None
        for target in [_known(proxy.args[0])]
    ]
    return make_simplified_union(found) if found else context.default_attr_type


def _as_proxy(part: Type) -> Instance | None:
    part = get_proper_type(part)
    if isinstance(part, TypeVarType):
        part = get_proper_type(part.upper_bound)
    if not isinstance(part, Instance):
        return None
    info = next((base for base in part.type.mro if base.fullname == _PROXY), None)
    return None if info is None else map_instance_to_supertype(part, info)


def _known(target: Type) -> Type | None:
    """Give the type to look at, or `None` if it says nothing."""
    target = get_proper_type(target)
    if isinstance(target, TypeVarType):
        target = get_proper_type(target.upper_bound)
        if isinstance(target, Instance) and target.type.fullname == "builtins.object":
            return None
    return None if isinstance(target, AnyType) else target


def _look_up(target: Type, name: str, context: AttributeContext) -> Type:
    checker = context.api
    if not isinstance(checker, TypeChecker):
        return context.default_attr_type
    return checker.expr_checker.analyze_external_member_access(name, target, context.context)


def plugin(version: str) -> type[ProxyPlugin]:
    """Give mypy the plugin; mypy calls this with its version."""
    return ProxyPlugin
