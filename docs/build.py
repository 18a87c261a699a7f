"""Build the site: the guides as pages, and the API reference, into `site/`.

python docs/build.py [DIRECTORY]
"""

from __future__ import annotations

import html
import importlib
import pkgutil
import posixpath
import re
import shutil
import sys
import warnings
from pathlib import Path
from urllib.parse import urlsplit

import markdown2
import pdoc

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("proxystore_core", "proxystore_parsl")

OPTIONAL = {"mypy", "pytest", "hypothesis"}  # tools whose helpers are documented if they are here
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


def modules() -> list[str]:
    """Return the public modules to document; leaves out those that serve a missing tool."""
    found = []
    for name in PACKAGES:
        package = importlib.import_module(name)
        found.append(name)
        for module in pkgutil.walk_packages(package.__path__, f"{name}."):
            if any(part.startswith("_") for part in module.name.split(".")):
                continue
            try:
                importlib.import_module(module.name)
            except ModuleNotFoundError as error:
                if error.name not in OPTIONAL:
                    raise
                sys.stderr.write(f"left out {module.name}: {error}\n")
                found.append(f"!{module.name}")
    return found


def main() -> None:
    """Build the site."""
    site = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "site").resolve()
    if (site / "style.css").exists():
        shutil.rmtree(site)
    site.mkdir(parents=True, exist_ok=True)
    write_pages(site)
    warnings.filterwarnings("ignore", "Couldn't import", UserWarning)  # said by `modules`
    pdoc.render.configure(docformat="google", footer_text="proxystore-core")
    pdoc.pdoc(*modules(), output_directory=site / "api")
    sys.stdout.write(f"{len(pages())} pages and the API reference: {site / 'index.html'}\n")


if __name__ == "__main__":
    main()
