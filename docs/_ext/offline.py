"""The site loads nothing from a network: its pages and styles are searched for addresses when they are written.

Links that a reader may follow are no loading.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

LOADED = re.compile(
    r"<(?:script|img|iframe|source|video|audio|embed|object)\b[^>]*(?:src|data)=\"(?:https?:)?//[^\"]*\""
    r"|<link\b(?=[^>]*rel=\"(?:stylesheet|preload|icon|shortcut icon|manifest)\")[^>]*href=\"(?:https?:)?//[^\"]*\""
    r"|@import[^;]*//[^;]*;"
    r"|url\(['\"]?(?:https?:)?//[^)]*\)"
)


def loads(text: str) -> list[str]:
    """What a page or style would fetch from elsewhere."""
    return LOADED.findall(text)


def _check(app: Sphinx, exception: Exception | None) -> None:
    if exception is not None or app.builder.format != "html":
        return
    for file in sorted(Path(app.outdir).rglob("*")):
        if file.suffix in (".html", ".css") and (found := loads(file.read_text(encoding="utf-8"))):
            raise ExtensionError(f"{file.relative_to(app.outdir)} loads from a network: {found[0]}")


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("build-finished", _check)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
