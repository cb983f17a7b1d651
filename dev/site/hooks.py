"""Hooks for MkDocs, so that the same Markdown works on GitHub and as a site.

- README.md is the first page.
- A link to a file outside docs/ leads to a page with its text, a link to a folder to a list.
- Lists are indented as Python-Markdown requires it; GitHub accepts less.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING

from mkdocs.structure.files import File
from pymdownx.slugs import slugify

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
_LINK = re.compile(r"(?<=\]\()[^)\s#]+|(?<=\]: )[^\s#]+")
_UNSEARCHED = "---\nsearch: {exclude: true}\n---\n"
_TABLE_CODE = re.compile(r"^ *\|.*`.*$", re.MULTILINE)
_LANGUAGES = {"yml": "yaml", "py": "python", "sql": "sql", "yaml": "yaml", "toml": "toml"}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Give headings the same anchors as GitHub."""
    config.mdx_configs["toc"]["slugify"] = slugify(case="lower")
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add README.md, and every file and folder outside docs/ that a page links to."""
    pages = {"README.md": (ROOT / "README.md").read_text()}
    pages |= {f"docs/{file.src_uri}": file.content_string for file in files.documentation_pages()}
    waiting = dict(pages)
    while waiting:
        path, page = waiting.popitem()
        for target in _targets(page, path):
            if target not in pages and not target.startswith("docs/"):
                pages[target] = waiting[target] = _page_of(target)
    for path, page in pages.items():
        if not path.startswith("docs/"):
            files.append(File.generated(config, _place(path), content=page))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """The page with links to pages of the site, and with lists that Python-Markdown understands."""
    del config, files
    place = page.file.src_uri
    path = _path(place)

    def replace(match: re.Match[str]) -> str:
        target = _target(match.group(), path)
        return posixpath.relpath(_place(target), posixpath.dirname(place)) if target else match[0]

    return as_python_markdown(_LINK.sub(replace, markdown))


def as_python_markdown(markdown: str) -> str:
    """*markdown* of GitHub, changed so that Python-Markdown renders it in the same way."""
    return _TABLE_CODE.sub(_without_escapes, indented(markdown))


def _without_escapes(row: re.Match[str]) -> str:
    """A row of a table for Python-Markdown: GitHub needs a bar in code escaped."""
    return re.sub(r"`[^`]*`", lambda code: code[0].replace("\\|", "|"), row[0])


def _targets(page: str, path: str) -> Iterator[str]:
    for match in _LINK.finditer(page):
        if target := _target(match.group(), path):
            yield target


def _target(link: str, path: str) -> str:
    """The path in the repository that a *link* in the page at *path* leads to; empty if none."""
    if ":" in link:
        return ""
    target = posixpath.normpath(posixpath.join(posixpath.dirname(path), link))
    return target if (ROOT / target).exists() and not target.startswith("..") else ""


def _place(path: str) -> str:
    """The place in the site of the file or folder at *path* in the repository."""
    if path == "README.md":
        return "index.md"
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return f"repository/{path}" + ("" if path.endswith(".md") else ".md")


def _path(place: str) -> str:
    """The path in the repository that the page at *place* of the site shows."""
    if place == "index.md":
        return "README.md"
    if not place.startswith("repository/"):
        return f"docs/{place}"
    path = place.removeprefix("repository/")
    return path if (ROOT / path).exists() else path.removesuffix(".md")


def _page_of(path: str) -> str:
    """A page that shows the file or folder at *path* in the repository."""
    file = ROOT / path
    if file.is_dir():
        names = sorted(each.name for each in file.iterdir() if each.name != "__pycache__")
        base = posixpath.basename(path)
        items = "".join(f"- [{name}]({base}/{name})\n" for name in names)
        return f"{_UNSEARCHED}# {path}\n\n{items}"
    text = file.read_text()
    if file.suffix == ".md":
        return text
    return f"{_UNSEARCHED}# {path}\n\n````{_LANGUAGES.get(file.suffix[1:], 'text')}\n{text}\n````\n"


_MARKER = re.compile(r" *(?:[-*+]|\d{1,9}[.)]) +(?=\S)")
_FENCE = re.compile(r" *(`{3,}|~{3,})")


def indented(markdown: str) -> str:
    """*markdown* with four columns for each level of its lists, and an empty line before each."""
    items: list[int] = []  # where the text of each open item begins
    result: list[str] = []
    fence = ""
    is_loose = False  # there was an empty line since the last item began
    for line in markdown.splitlines():
        width = len(line) - len(line.lstrip(" "))
        marker, opening = _MARKER.match(line), _FENCE.match(line)
        follows_text = bool(result and result[-1])
        if fence:
            fence = "" if line.strip().startswith(fence) and opening else fence
            opening = marker = None
        elif line.strip() and (marker or opening or not follows_text):
            was_list = bool(items)
            items = [content for content in items if content <= width]
            if marker and width >= (items[-1] if items else 0) + 4:
                marker = None  # code
            if marker and follows_text and (not was_list or is_loose):
                result.append("")
        fence = opening[1] if opening else fence
        inside = min(items[-1] if items else 0, width)
        result.append(("    " * len(items) + line[inside:]).rstrip())
        is_loose = not line.strip() or (is_loose and not marker)
        if marker:
            items.append(marker.end())
    return "\n".join(result) + "\n"
