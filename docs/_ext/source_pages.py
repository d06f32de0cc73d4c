"""Source code on pages of the site, and links to it: from [text](../gfsim/x.py) on a page, and from the API.

On a forge such a link opens the file; here it opens source/gfsim/x.html, and one to figures/NAME.png its place in the
gallery.  A link to a file of the repository that does not exist is a warning, that is an error.
"""

from __future__ import annotations

import importlib
import inspect
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docutils import nodes
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_for_filename
from sphinx.application import Sphinx
from sphinx.util import logging

logger = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("gfsim", "proofs_checks", "paper_repro", "docs/certificates", "benchmarks")
KINDS = (".py", ".toml", ".json", ".mplstyle")
LINK = re.compile(r"(?P<text>(?<!!)\[[^\]\n]*\])\((?P<up>(?:\.\./)+)(?P<path>[\w./-]+)\)")
SCHEME = "source:"
FIGURE = re.compile(r"figures/(\w+)\.png")


def shown(path: str) -> bool:
    """Whether the file of the repository has a page here."""
    return path.startswith(FOLDERS) and path.endswith(KINDS) and (ROOT / path).is_file()


def _mark_links(app: Sphinx, docname: str, source: list[str]) -> None:
    """Turn links out of docs/ into ``source:`` links, before Markdown is parsed."""
    del app
    here = posixpath.dirname(f"docs/{docname}")

    def mark(link: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(here, link["up"] + link["path"]))
        if figure := FIGURE.fullmatch(path):
            if not (ROOT / path).exists():
                logger.warning("link to the picture %s, which is not in the gallery", path, location=docname)
            return f"{link['text']}({SCHEME}gallery#{figure[1]})"
        if path.startswith("docs/") and (path.endswith(".md") or not shown(path)):
            return link.group()  # a page of the site, or a picture
        if not (ROOT / path).exists():
            logger.warning("link to %s, which is not in the repository", path, location=docname)
        elif not shown(path):
            logger.warning("link to %s, which has no page here; name it without a link", path, location=docname)
        return f"{link['text']}({SCHEME}{path})"

    source[0] = LINK.sub(mark, source[0])


def _resolve(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    for node in doctree.findall(nodes.reference):
        uri = node.get("refuri", "")
        if uri.startswith(SCHEME):
            path, _, anchor = uri.removeprefix(SCHEME).partition("#")
            page = path if path == "gallery" else f"source/{path}"
            there = app.builder.get_relative_uri(docname, page)
            node["refuri"] = f"{there}#{anchor}" if anchor else there
            node["internal"] = True


def find(domain: str, info: dict[str, str]) -> str | None:
    """sphinx.ext.linkcode: where an object of the API is defined."""
    if domain != "py" or not info["module"]:
        return None
    target: Any = importlib.import_module(info["module"])
    try:
        for part in info["fullname"].split("."):
            target = inspect.getattr_static(target, part) if inspect.isclass(target) else getattr(target, part)
        target = getattr(target, "func", getattr(target, "fget", target))  # cached and plain properties
        target = getattr(target, "__func__", target)
        file = Path(inspect.getsourcefile(inspect.unwrap(target)) or "")
        line = inspect.getsourcelines(inspect.unwrap(target))[1]
    except (AttributeError, TypeError, OSError):
        return None
    if not file.is_relative_to(ROOT) or not shown(str(file.relative_to(ROOT))):
        return None
    return f"{SCHEME}{file.relative_to(ROOT)}#line-{line}"


def _missing(app: Sphinx, env: Any, node: nodes.Element, shown_as: nodes.Element) -> nodes.Element | None:
    """A reference to something that exists and has no entry in the API: a link to its source.

    Names of other packages stay text; a name that does not exist stays unresolved, which is an error.
    """
    del app, env
    if node.get("refdomain") != "py":
        return None
    target, module = node["reftarget"].lstrip("."), node.get("py:module")
    for name in [target] + ([f"{module}.{target}", f"{module}.{node.get('py:class')}.{target}"] if module else []):
        found = _import(name)
        if found is None:
            continue
        if not name.startswith(FOLDERS):
            return shown_as
        path = found.replace(".", "/")
        file = next((p for p in (f"{path}.py", f"{path}/__init__.py") if shown(p)), "")
        return nodes.reference("", "", shown_as, refuri=f"{SCHEME}{file}") if file else shown_as
    return None


def _import(name: str) -> str | None:
    """The module of a dotted name that can be imported, as an attribute of a module or as one; else None."""
    parts = name.split(".")
    for cut in range(len(parts), 0, -1):
        module = ".".join(parts[:cut])
        try:
            target: Any = importlib.import_module(module)
        except (ImportError, ValueError):
            continue
        for part in parts[cut:]:
            fields = getattr(target, "__dataclass_fields__", {})
            if not hasattr(target, part) and part not in fields:
                return None
            target = getattr(target, part, None)
        return module
    return None


def _pages(app: Sphinx) -> Iterator[tuple[str, dict[str, Any], str]]:
    del app
    form = HtmlFormatter(linenos="inline", anchorlinenos=True, lineanchors="line", cssclass="highlight")
    for folder in FOLDERS:
        for file in sorted((ROOT / folder).rglob("*")):
            path = str(file.relative_to(ROOT))
            if not shown(path) or "__pycache__" in path or file.stat().st_size > 200_000:
                continue
            body = highlight(file.read_text(encoding="utf-8"), get_lexer(path), form)
            yield f"source/{path}", {"title": path, "body": f"<h1>{path}</h1>\n{body}"}, "page.html"


def get_lexer(path: str) -> Any:
    return get_lexer_for_filename("x.ini" if path.endswith(".mplstyle") else path)


def _configured(app: Sphinx, config: Any) -> None:
    del app
    config.linkcode_resolve = find


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("config-inited", _configured, priority=1)
    app.connect("source-read", _mark_links)
    app.connect("missing-reference", _missing)
    app.connect("doctree-resolved", _resolve)
    app.connect("html-collect-pages", _pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
