"""Names that are imported when they are first used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import proxystore_core.utils
from proxystore_core.utils.lazy import lazy_names


def test_a_name_is_imported_at_its_first_use_and_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    package = proxystore_core.utils
    monkeypatch.setattr(package, "import_from_path", None, raising=False)
    get, names = lazy_names(package.__name__, {"import_from_path": "imports", "Timer": "timer"})
    from proxystore_core.utils.imports import import_from_path

    assert get("import_from_path") is import_from_path
    assert package.import_from_path is import_from_path
    assert names() == ["Timer", "import_from_path"]
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        get("nothing")


def test_packages_import_nothing_of_theirs_before(tmp_path: Path) -> None:
    program = """
import sys
import proxystore_core.autoproxy, proxystore_endpoint, proxystore_globus_compute
for name in ("proxystore_core.autoproxy", "proxystore_endpoint", "proxystore_globus_compute"):
    assert not [found for found in sys.modules if found.startswith(name + ".")], name
assert "asyncio" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path)
