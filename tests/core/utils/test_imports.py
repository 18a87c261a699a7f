from __future__ import annotations

import collections
from pathlib import Path

import pytest

from proxystore_core.exceptions import MissingReason
from proxystore_core.utils.imports import get_object_path, import_from_path


class Outer:
    class Inner:
        pass


def test_paths_of_objects() -> None:
    assert get_object_path(MissingReason) == "proxystore_core.exceptions.MissingReason"
    assert get_object_path(Outer.Inner) == f"{__name__}.Outer.Inner"


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("collections.OrderedDict", collections.OrderedDict),
        ("proxystore_core.exceptions.MissingReason", MissingReason),
        ("proxystore_core.exceptions.MissingReason.EVICTED", MissingReason.EVICTED),
        ("collections.abc", collections.abc),
    ],
)
def test_objects_of_paths(path: str, found: object) -> None:
    assert import_from_path(path) is found


@pytest.mark.parametrize(
    "path", ["", "name", ".name", "a..b", "no_such_module.Name", "collections.NoSuch"]
)
def test_paths_that_lead_nowhere(path: str) -> None:
    with pytest.raises(ImportError, match=r"path|no"):
        import_from_path(path)


def test_a_module_that_fails_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "needs_more.py").write_text("import surely_not_installed\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="surely_not_installed"):
        import_from_path("needs_more.Name")
