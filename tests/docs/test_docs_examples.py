"""Every Python block of the README and the guides runs, and every link inside leads somewhere.

The blocks of a page are one script, run in a process and a directory of its own, so that a block
may use what those above it made. `<!-- new script -->` before a block starts another one.
`<!-- illustrative -->` before a block says that it is no program; say there why.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LINKING = [*PAGES, *(ROOT / n for n in ("CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md"))]
TIMEOUT = 100  # seconds

FENCE = re.compile(r"^(?P<indent> *)(?P<mark>```+|~~~+) *(?P<language>[\w+-]*)(?P<rest>.*)$")
COMMENT = re.compile(r"^ *<!-- *(?P<word>illustrative|new script)\b.*-->\s*$")


class Block(NamedTuple):
    """One fenced block; `line` is the number of its first line in the page."""

    language: str
    line: int
    text: str
    comment: str


def blocks_of(text: str) -> list[Block]:
    found: list[Block] = []
    lines = text.splitlines()
    opened: re.Match[str] | None = None
    start, comment = 0, ""
    for number, line in enumerate(lines, 1):
        fence = FENCE.match(line)
        if opened is None:
            if fence:
                opened, start = fence, number + 1
            elif said := COMMENT.match(line):
                comment = said["word"]
            elif line.strip():
                comment = ""
        elif fence and not fence["language"] and fence["mark"].startswith(opened["mark"]):
            cut = len(opened["indent"])
            body = "\n".join(text[min(cut, len(text)) :] for text in lines[start - 1 : number - 1])
            found.append(Block(opened["language"], start, body, comment))
            opened, comment = None, ""
    if opened is not None:
        raise ValueError(f"the block of line {start - 1} has no end")
    return found


def scripts_of(text: str) -> list[str]:
    """Join the blocks to scripts whose line numbers are those of the page."""
    scripts: list[str] = []
    lines: list[str] = []
    for block in blocks_of(text):
        if block.language not in {"python", "py"} or block.comment == "illustrative":
            continue
        if block.comment == "new script" and lines:
            scripts.append("\n".join(lines))
            lines = []
        lines += [""] * (block.line - 1 - len(lines))
        for line in block.text.splitlines():
            if line.startswith("from __future__ import "):  # must come first; line 1 is a title
                lines[0], line = line, ""
            lines.append(line)
    if lines:
        scripts.append("\n".join(lines))
    return scripts


def script_cases() -> list[object]:
    cases: list[object] = []
    for page in PAGES:
        for number, script in enumerate(scripts_of(page.read_text())):
            name = page.relative_to(ROOT).as_posix() + (f":{number + 1}" if number else "")
            cases.append(pytest.param(page.name, script, id=name))
    return cases


@pytest.mark.parametrize(("page", "script"), script_cases())
def test_examples_run(page: str, script: str, tmp_path: Path) -> None:
    path = tmp_path / f"{page}.py"
    path.write_text(script + "\n")
    path_of_tools = [str(Path(sys.executable).parent), os.environ["PATH"]]
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", path.name],
        cwd=tmp_path,
        env={**os.environ, "PATH": os.pathsep.join(path_of_tools)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert done.returncode == 0, f"an example of {page} fails:\n{done.stdout[-6000:]}"


def headings(page: Path) -> set[str]:
    """Return the anchors of a page, named as GitHub names them."""
    anchors: set[str] = set()
    fenced = False
    for line in page.read_text().splitlines():
        if FENCE.match(line):
            fenced = not fenced
        elif not fenced and (heading := re.match(r"#{1,6} +(.*?) *#*$", line)):
            text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading[1]).lower()
            name = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
            count = sum(1 for a in anchors if re.fullmatch(rf"{re.escape(name)}(-\d+)?", a))
            anchors.add(f"{name}-{count}" if count else name)
        anchors |= set(re.findall(r'<a (?:id|name)="([^"]+)"', line))
    return anchors


def links_of(text: str) -> list[str]:
    text = re.sub(r"^ *(```+|~~~+).*?^ *\1 *$", "", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"`[^`\n]*`", "code", text)
    inline = re.findall(r"\[[^\]]*\]\(<?([^)\s>]+)>?(?: +\"[^\"]*\")?\)", text)
    defined = re.findall(r"^ *\[[^\]]+\]: +<?(\S+?)>?(?: |$)", text, flags=re.MULTILINE)
    tags = re.findall(r'<(?:a|img)\b[^>]*?\b(?:href|src)="([^"]+)"', text)
    return inline + defined + tags


def problem_of(link: str, page: Path) -> str | None:
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return None
    target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
    if not target.exists() or not target.is_relative_to(ROOT):
        return f"{link}: no such file"
    if parts.fragment and target.suffix == ".md" and parts.fragment not in headings(target):
        return f"{link}: no such heading"
    return None


@pytest.mark.parametrize("page", LINKING, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_exist(page: Path) -> None:
    problems = [p for link in links_of(page.read_text()) if (p := problem_of(link, page))]
    assert not problems, f"{page.relative_to(ROOT)} has links that lead nowhere: {problems}"


def test_index_names_every_guide() -> None:
    index = ROOT / "docs" / "index.md"
    guides = {path.name for path in index.parent.glob("*.md")} - {index.name}
    missing = guides - {urlsplit(link).path for link in links_of(index.read_text())}
    assert not missing, f"docs/index.md does not link to {sorted(missing)}"


def test_blocks_keep_the_lines_of_their_page() -> None:
    page = "# T\n\n```python\na = 1\n```\n\n```sh\nno\n```\n1.\n   ```python\n   b = a\n   ```\n"
    (script,) = scripts_of(page)
    assert script.splitlines()[3] == "a = 1"
    assert script.splitlines()[11] == "b = a"
    assert "no" not in script


def test_comments_split_and_skip_blocks() -> None:
    page = (
        "# T\n```python\na = 1\n```\n<!-- illustrative: a sketch -->\n```python\n...\n```\n"
        "<!-- new script -->\n\n```python\nfrom __future__ import annotations\nb = 2\n```\n"
    )
    first, second = scripts_of(page)
    assert first.split() == ["a", "=", "1"]
    assert second.splitlines()[0] == "from __future__ import annotations"
    assert second.splitlines()[12] == "b = 2"


def test_dead_links_are_found(tmp_path: Path) -> None:
    page = ROOT / "docs" / "index.md"
    assert problem_of("no-such-page.md", page)
    assert problem_of("../CONTRIBUTING.md#no-such-heading", page)
    assert problem_of("../../outside", page)
    assert problem_of("../CONTRIBUTING.md#tests", page) is None
    assert links_of("[a](b.md#c) `[x](y.md)`\n\n[d]: e.md\n```\n[f](g.md)\n```\n") == [
        "b.md#c",
        "e.md",
    ]
