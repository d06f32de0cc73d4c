"""Lists that the code itself gives: the public names of gfsim, and the modules of a registry.

Both directives belong inside ``{eval-rst}``.  The build fails if a public name is documented nowhere.
"""

from __future__ import annotations

import importlib
import re
from typing import Any

from docutils import nodes
from plain_docstrings import plain
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

import gfsim

logger = logging.getLogger(__name__)


def homes() -> dict[str, str]:
    """Public name -> module, for everything in ``gfsim.__all__`` but the version."""
    return {name: getattr(gfsim, name).__module__ for name in gfsim.__all__ if name != "__version__"}


class PublicNames(SphinxDirective):
    """``.. public-names::`` lists every name with the first sentence of its docstring."""

    def run(self) -> list[nodes.Node]:
        lines = []
        for name, module in sorted(homes().items(), key=lambda item: item[0].lower()):
            first = " ".join((getattr(gfsim, name).__doc__ or "").strip().split("\n\n")[0].split())
            first = re.sub(r":\w+:`[~.]?([^`]+)`", r"``\1``", first)
            lines.append(f"* :py:obj:`{name} <{module}.{name}>`: {plain(first)}")
        return self.parse_text_to_nodes("\n".join(lines))


class Modules(SphinxDirective):
    """``.. modules:: proofs_checks`` shows the docstring and the source of every module of its registry."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        registry = importlib.import_module(f"{self.arguments[0]}.registry")
        lines: list[str] = []
        for entry in getattr(registry, "STATEMENTS", None) or registry.FIGURES:
            path = entry.module.replace(".", "/") + ".py"
            lines += [f".. rubric:: {entry.name}", "", f"{entry.title}. Source: {entry.source}.", ""]
            lines += [f"`{path} <source:{path}>`__", "", f".. automodule:: {entry.module}", "   :no-members:", ""]
        return self.parse_text_to_nodes("\n".join(lines), allow_section_headings=True)


def _complete(app: Sphinx, env: BuildEnvironment) -> None:
    del app
    documented = env.get_domain("py").objects
    for name, module in homes().items():
        if f"{module}.{name}" not in documented:
            logger.warning("gfsim.%s is public and on no page of docs/api; list %s there", name, module)


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("public-names", PublicNames)
    app.add_directive("modules", Modules)
    app.connect("env-check-consistency", _complete)
    return {"parallel_read_safe": True}
