"""Writes the small part of TOML that configurations need; reading is `tomllib`'s."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from proxystore_core.exceptions import StoreConfigError

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+\Z")
_ESCAPES = {
    "\b": "\\b",
    "\t": "\\t",
    "\n": "\\n",
    "\f": "\\f",
    "\r": "\\r",
    '"': '\\"',
    "\\": "\\\\",
}


def dumps(data: Mapping[str, Any]) -> str:
    """Write a mapping of strings, numbers, booleans, lists and mappings as TOML.

    Entries that are `None` are left out, since TOML has no null.

    Raises:
        StoreConfigError: If a value has no form in TOML.
    """
    lines: list[str] = []
    _table(data, (), lines)
    return "\n".join(lines).strip("\n") + "\n"


def _table(data: Mapping[str, Any], path: tuple[str, ...], lines: list[str]) -> None:
    if path:
        lines += ["", f"[{'.'.join(map(_key, path))}]"]
    tables = []
    for key, value in data.items():
        if isinstance(value, Mapping):
            tables.append((key, value))
        elif value is not None:
            lines.append(f"{_key(key)} = {_value(value, (*path, key))}")
    for key, value in tables:
        _table(value, (*path, key), lines)


def _key(key: str) -> str:
    return key if _BARE_KEY.match(key) else _string(key)


def _value(value: Any, path: tuple[str, ...]) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_value(item, path) for item in value)}]"
    if isinstance(value, Mapping):
        items = ((k, v) for k, v in value.items() if v is not None)
        return f"{{{', '.join(f'{_key(k)} = {_value(v, (*path, k))}' for k, v in items)}}}"
    raise StoreConfigError(
        f"{'.'.join(path)} is a {type(value).__name__}, which TOML cannot hold. "
        "Use strings, numbers, booleans, lists and tables."
    )


def _string(text: str) -> str:
    def escape(char: str) -> str:
        if char in _ESCAPES:
            return _ESCAPES[char]
        return f"\\u{ord(char):04X}" if ord(char) < 0x20 or ord(char) == 0x7F else char

    return f'"{"".join(map(escape, text))}"'
