"""The site builds, with every guide and the API reference."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


def test_site_builds_and_holds_together(tmp_path: Path) -> None:
    pytest.importorskip("pdoc", reason="comes with the extra `docs`")
    site = tmp_path / "site"
    command = [sys.executable, str(ROOT / "docs" / "build.py"), str(site)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-4000:]
    for guide in (ROOT / "docs").glob("*.md"):
        assert (site / f"{guide.stem}.html").is_file()
    assert (site / "api" / "proxystore_core" / "store.html").is_file()
    for package in ("dask", "endpoint", "globus_compute", "parsl"):
        assert (site / "api" / f"proxystore_{package}.html").is_file()
    for page in site.glob("*.html"):
        for link in re.findall(r'(?:href|src)="([^"#]+)', page.read_text()):
            assert "://" in link or link.startswith("mailto:") or (site / link).exists(), (
                f"{page.name} links to {link}"
            )
