"""Build the site: the guides as pages, and the API reference, into `site/`.

python docs/build.py [DIRECTORY]
"""

from __future__ import annotations

import html
import importlib
import posixpath
import re
import shutil
import sys
import warnings
from pathlib import Path
from urllib.parse import urlsplit

import markdown2
from pdoc import render
from pdoc.doc import Module

ROOT = Path(__file__).resolve().parent.parent

# Where users import from; other modules are how these do it.
PUBLIC = (
    "proxystore_core",
    "proxystore_core.autoproxy",
    "proxystore_core.cli",
    "proxystore_core.connectors",
    "proxystore_core.connectors.file",
    "proxystore_core.connectors.local",
    "proxystore_core.connectors.protocols",
    "proxystore_core.connectors.shared_memory",
    "proxystore_core.exceptions",
    "proxystore_core.factory",
    "proxystore_core.mypy_plugin",
    "proxystore_core.proxy",
    "proxystore_core.serialize",
    "proxystore_core.store",
    "proxystore_core.store.cache",
    "proxystore_core.store.config",
    "proxystore_core.store.exceptions",
    "proxystore_core.store.executor",
    "proxystore_core.store.factory",
    "proxystore_core.store.future",
    "proxystore_core.store.lifetimes",
    "proxystore_core.store.metrics",
    "proxystore_core.store.ref",
    "proxystore_core.store.scopes",
    "proxystore_core.store.types",
    "proxystore_core.store.utils",
    "proxystore_core.testing",
    "proxystore_core.utils",
    "proxystore_core.utils.counter",
    "proxystore_core.utils.data",
    "proxystore_core.utils.environment",
    "proxystore_core.utils.imports",
    "proxystore_core.utils.timer",
    "proxystore_dask",
    "proxystore_endpoint",
    "proxystore_endpoint.client",
    "proxystore_endpoint.config",
    "proxystore_endpoint.connector",
    "proxystore_endpoint.endpoint",
    "proxystore_endpoint.exceptions",
    "proxystore_endpoint.grants",
    "proxystore_endpoint.identity",
    "proxystore_endpoint.limits",
    "proxystore_endpoint.peers",
    "proxystore_endpoint.pipes",
    "proxystore_endpoint.relay",
    "proxystore_endpoint.relay.auth",
    "proxystore_endpoint.relay.client",
    "proxystore_endpoint.relay.server",
    "proxystore_endpoint.storage",
    "proxystore_endpoint.tickets",
    "proxystore_endpoint.wire",
    "proxystore_globus_compute",
    "proxystore_parsl",
)

OPTIONAL = {"mypy", "pytest"}  # what a module may need beside the extra `docs`
_NOT_COPIED = shutil.ignore_patterns("__pycache__", "output", "results")

# Pages beside the guides, and what they are called on the site.
EXTRA_PAGES = {
    "README.md": "readme.html",
    "benchmarks/README.md": "benchmarks.html",
    "CONTRIBUTING.md": "contributing.html",
    "CHANGELOG.md": "changelog.html",
}
EXTRAS = ["fenced-code-blocks", "tables", "header-ids", "cuddled-lists", "strike"]

TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title} - proxystore-core</title>
<link rel="stylesheet" href="style.css">
</head>
<body>
<nav>
<a class="name" href="index.html">proxystore-core</a>
{navigation}
<a href="api/index.html">API reference</a>
</nav>
<main>
{body}
</main>
</body>
</html>
"""

STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.55 system-ui, sans-serif; margin: 0; display: flex; }
nav { flex: 0 0 13rem; padding: 2rem 1.5rem; display: flex; flex-direction: column; gap: .4rem; }
nav .name { font-weight: bold; margin-bottom: .6rem; }
nav [aria-current] { font-weight: bold; }
main { flex: 1 1 0; min-width: 0; max-width: 52rem; padding: 1rem 2rem 4rem; }
a { color: #3b78c2; text-decoration: none; }
a:hover { text-decoration: underline; }
pre { padding: .8rem 1rem; overflow-x: auto; background: #8882; border-radius: 6px; }
code { font: .88em/1.5 ui-monospace, monospace; }
table { border-collapse: collapse; display: block; overflow-x: auto; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid #8884; text-align: left; }
img { max-width: 100%; }
@media (max-width: 50rem) { body { display: block; } nav { padding-bottom: 0; } }
"""


def pages() -> dict[Path, str]:
    """Return the Markdown files that become pages, in the order of the index, and their names."""
    found = {ROOT / "docs" / "index.md": "index.html"}
    listed = re.findall(r"\]\(([\w-]+\.md)", (ROOT / "docs" / "index.md").read_text())
    others = sorted(path.name for path in (ROOT / "docs").glob("*.md"))
    for name in dict.fromkeys([*listed, *others]):
        if (ROOT / "docs" / name).is_file():
            found.setdefault(ROOT / "docs" / name, name.removesuffix(".md") + ".html")
    for name, target in EXTRA_PAGES.items():
        if (ROOT / name).is_file():
            found[ROOT / name] = target
    return found


def title_of(path: Path) -> str:
    """Return a page's first heading."""
    for line in path.read_text().splitlines():
        if line.startswith("# "):
            return line.removeprefix("# ").replace("`", "").strip()
    return path.stem


def target_of(link: str, page: Path, known: dict[Path, str], site: Path) -> str:
    """Return what a link of a page is on the site; other files of the repository are copied."""
    parts = urlsplit(link)
    if parts.scheme or parts.netloc or not parts.path:
        return link
    path = Path(posixpath.normpath((page.parent / parts.path).as_posix()))
    suffix = f"#{parts.fragment}" if parts.fragment else ""
    if path in known:
        return known[path] + suffix
    if not path.exists() or not path.is_relative_to(ROOT):
        raise SystemExit(f"{page.relative_to(ROOT)} links to {link}, which does not exist")
    copy = Path("files", path.relative_to(ROOT))
    if path.is_dir():
        shutil.copytree(path, site / copy, dirs_exist_ok=True, ignore=_NOT_COPIED)
        return f"{copy.as_posix()}/"
    (site / copy).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, site / copy)
    return copy.as_posix() + suffix


def write_pages(site: Path) -> None:
    """Write every guide as a page."""
    known = pages()
    titles = {path: title_of(path) for path in known}
    for page, name in known.items():
        body = markdown2.markdown(page.read_text(), extras=EXTRAS)
        body = re.sub(
            r'(<(?:a|img)\b[^>]*?\b(?:href|src)=")([^"]+)(")',
            lambda m, page=page: (  # type: ignore[misc]
                m[1] + html.escape(target_of(html.unescape(m[2]), page, known, site)) + m[3]
            ),
            body,
        )
        navigation = "\n".join(
            f'<a href="{known[other]}"{" aria-current=page" if other == page else ""}>'
            f"{html.escape(titles[other])}</a>"
            for other in known
            if known[other] != "index.html"
        )
        text = TEMPLATE.format(title=html.escape(titles[page]), navigation=navigation, body=body)
        (site / name).write_text(text)
    (site / "style.css").write_text(STYLE)


def public_modules() -> dict[str, Module]:
    """Return the modules to document, as pdoc sees them."""
    found = {}
    for name in PUBLIC:
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name not in OPTIONAL:
                raise
            sys.stderr.write(f"left out {name}, which needs {error.name}\n")
            continue
        for export in getattr(module, "__all__", ()):  # pdoc sees none that are made on demand
            vars(module).setdefault(export, getattr(module, export))
        found[name] = Module(module)
    return found


def write_reference(directory: Path) -> None:
    """Write the API reference."""
    render.configure(docformat="google", footer_text="proxystore-core")
    modules = public_modules()
    with warnings.catch_warnings():
        # A type that only type checkers import stays text; submodules are chosen above.
        for message in ("Couldn't import", "Error parsing type", "Failed to run TYPE_CHECKING"):
            warnings.filterwarnings("ignore", message, UserWarning)
        for name, module in modules.items():
            page = directory / f"{name.replace('.', '/')}.html"
            page.parent.mkdir(parents=True, exist_ok=True)
            page.write_text(render.html_module(module, modules))
        (directory / "index.html").write_text(render.html_index(modules))
        (directory / "search.js").write_text(render.search_index(modules))


def main() -> None:
    """Build the site."""
    site = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "site").resolve()
    if (site / "style.css").exists():
        shutil.rmtree(site)
    site.mkdir(parents=True, exist_ok=True)
    write_pages(site)
    write_reference(site / "api")
    sys.stdout.write(f"{len(pages())} pages and the API reference: {site / 'index.html'}\n")


if __name__ == "__main__":
    main()
