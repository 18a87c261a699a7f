from __future__ import annotations

import pickle
import re
import subprocess
import sys
from uuid import UUID

import pytest
from proxystore_endpoint import exceptions
from proxystore_endpoint.exceptions import EndpointError

from proxystore_core.exceptions import ProxyStoreError


def _tree() -> list[type[EndpointError]]:
    found = [getattr(exceptions, name) for name in dir(exceptions)]
    return [e for e in found if isinstance(e, type) and issubclass(e, EndpointError)]


def test_every_error_is_in_the_tree_and_in_its_picture() -> None:
    picture = exceptions.__doc__ or ""
    assert issubclass(EndpointError, ProxyStoreError)
    for error in _tree():
        line = next(line for line in picture.splitlines() if f"* `{error.__name__}`" in line)
        for base in re.findall(r"`(\w+)`", line)[1:]:
            assert base in {parent.__name__ for parent in error.__mro__}
        indent = len(line) - len(line.lstrip())
        parents = [cls for cls in error.__mro__[1:] if issubclass(cls, EndpointError)]
        assert indent == 4 * len(parents)
    named = re.findall(r"^ *\* `(\w+)`", picture, re.M)
    assert sorted(named) == sorted(error.__name__ for error in _tree())


@pytest.mark.parametrize("error", _tree(), ids=lambda error: error.__name__)
def test_errors_survive_pickling(error: type[EndpointError]) -> None:
    code = getattr(error.__init__, "__code__", None)  # None: it takes a message only
    start = code.co_argcount if code else 0
    named = code.co_varnames[start : start + code.co_kwonlyargcount] if code else ()
    fields = dict.fromkeys(named, UUID(int=5))
    raised = error("what went wrong", **fields)
    again = pickle.loads(pickle.dumps(raised))
    assert type(again) is error
    assert str(again) == str(raised) == "what went wrong"
    assert vars(again) == vars(raised)
    assert {name: getattr(again, name) for name in fields} == fields


def test_errors_import_little() -> None:
    code = (
        "import sys, proxystore_endpoint.exceptions\n"
        "print([m for m in ('ssl', 'asyncio', 'quart', 'cryptography') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
