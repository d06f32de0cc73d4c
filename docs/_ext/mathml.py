"""Maths as MathML, made by docutils when the page is built: no script, no font and no network when it is read."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.util import logging

logger = logging.getLogger(__name__)


def _mathml(node: nodes.Node, *, block: bool) -> str:
    tex = node.astext()
    try:
        return tex2mathml(tex, as_block=block)
    except MathError as exc:
        logger.warning("formula that cannot be typeset: %s (%s)", tex, exc, location=node)
        return f"<code>{tex}</code>"


def visit_inline(self: Any, node: nodes.math) -> None:
    self.body.append(f'<span class="formula">{_mathml(node, block=False)}</span>')
    raise nodes.SkipNode


def visit_block(self: Any, node: nodes.math_block) -> None:
    self.body.append(f'<div class="formula" tabindex="0">{_mathml(node, block=True)}</div>\n')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    app.config.html_math_renderer = "mathml"
    return {"parallel_read_safe": True, "parallel_write_safe": True}
