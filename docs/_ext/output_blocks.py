"""```output blocks: what a block above them printed, compared with the real output by tests/test_docs_blocks.py."""

from __future__ import annotations

from typing import Any

from pygments.lexers.special import TextLexer
from sphinx.application import Sphinx


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_lexer("output", TextLexer)
    return {"parallel_read_safe": True}
