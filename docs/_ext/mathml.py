"""Maths as MathML, made when the site is built: no script and no network when a page is read.

Formulas are translated by latex2mathml.  The font, STIX Two Math (SIL Open Font License), is copied from ziamath's
wheel, so that they look alike on every machine.
"""

from __future__ import annotations

import re
import shutil
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.util import logging

logger = logging.getLogger(__name__)

FONT = "STIXTwoMath-Regular.ttf"
BAR = re.compile(r"<mo[^>]*>(&#x0007C;|\|)</mo>")
SLASH = re.compile(r"<mo>(&#x0002F;|/)</mo>")
SIGN = re.compile(
    r"((?:^<mrow>|<mo[^>]*>(?:&#x0003D;|=|,|&#x02264;|&#x02265;|\(|&#x00028;)</mo>)\s*)<mo>(&#x02212;|−)</mo>"
)


def mathml(tex: str, *, block: bool) -> str:
    """``tex`` as a <math> element.  Raises ValueError for a command that is not known.

    Browsers take | and / for relations and a minus after = for a subtraction, and leave space around them.
    """
    out = convert(tex.strip(), display="block" if block else "inline")
    if unknown := re.search(r"\\\w+", out):
        raise ValueError(f"{unknown.group()} is not known")
    out = BAR.sub('<mo lspace="0" rspace="0" stretchy="false">|</mo>', out)
    out = SLASH.sub('<mo lspace="0" rspace="0">/</mo>', out)
    return SIGN.sub(r'\1<mo form="prefix">−</mo>', out)


def _checked(node: nodes.Node, *, block: bool) -> str:
    try:
        return mathml(node.astext(), block=block)
    except Exception as exc:  # latex2mathml has many, and each means a formula that is wrong
        logger.warning("formula that cannot be typeset: %s (%s)", node.astext(), exc, location=node)
        return f"<code>{node.astext()}</code>"


def visit_inline(self: Any, node: nodes.math) -> None:
    self.body.append(f'<span class="formula">{_checked(node, block=False)}</span>')
    raise nodes.SkipNode


def visit_block(self: Any, node: nodes.math_block) -> None:
    self.body.append(f'<div class="formula" tabindex="0">{_checked(node, block=True)}</div>\n')
    raise nodes.SkipNode


def _copy_font(app: Sphinx, exception: Exception | None) -> None:
    if exception is None and app.builder.format == "html":
        with as_file(files("ziamath") / "fonts" / FONT) as font:
            shutil.copy(font, Path(app.outdir) / "_static" / FONT)


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    app.config.html_math_renderer = "mathml"
    app.connect("build-finished", _copy_font)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
