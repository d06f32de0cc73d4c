"""Docstrings are written to be read in a terminal, formulas and all; here they become reStructuredText.

In running text |w_z| is a norm and not a substitution, u* a point and not the start of an emphasis, and coef_ an
attribute and not a reference; literals and roles are left as they are.  Sections ("Parameters" over a line of
dashes) become lists of their entries, whose types are text: "(..., P)" and "int >= 1" are no names of classes.
"""

from __future__ import annotations

import re
from typing import Any

from sphinx.application import Sphinx

import gfsim.errors

KEPT = re.compile(
    r"``.+?``"  # literals
    r"|:[\w:]+:`[^`]+`"  # roles
    r"|(?<![\w*])\*\*(?=\S)[^*\n]+(?<=\S)\*\*(?!\w)"  # strong
    r"|(?<![\w*])\*(?=[A-Za-z])[^*|\n]+?(?<=[\w.])\*(?![\w*])"  # emphasis
)
UNDERSCORE = re.compile(r"(?<=\w)_(?!\w)")
SECTIONS = ("Parameters", "Attributes", "Returns", "Yields", "Raises", "Notes", "Examples", "References")
LISTS = ("Parameters", "Attributes", "Returns", "Yields", "Raises")


def plain(line: str) -> str:
    """``line`` with the characters of its formulas escaped; the mark of a list item stays."""
    mark = re.match(r"\s*(\* )?", line)
    start = mark.end() if mark else 0
    out, last = [line[:start]], start
    for kept in KEPT.finditer(line, start):
        out += [_escape(line[last : kept.start()]), kept.group()]
        last = kept.end()
    return "".join([*out, _escape(line[last:])])


def _escape(text: str) -> str:
    text = text.replace("\\", "\\\\").replace("*", r"\*").replace("|", r"\|").replace("`", r"\`")
    return UNDERSCORE.sub(r"\\_", text)


def convert(lines: list[str]) -> list[str]:
    """A docstring as reStructuredText.

    What is set off by a blank line and a deeper indentation is a formula or code, and stays as it is.
    """
    out: list[str] = []
    section, base, literal = "", 0, -1  # literal: the indentation of the text around a literal block, or -1
    for k, line in enumerate(lines):
        indent = len(line) - len(line.lstrip())
        above = lines[k - 1].strip() if k else ""
        below = lines[k + 1] if k + 1 < len(lines) else ""
        if not line.strip():
            out.append("")
            continue
        if literal >= 0 and indent > literal:
            out.append(line)
            continue
        literal = -1
        if line.strip() in SECTIONS and below.strip() == "-" * len(line.strip()):
            section, base = line.strip(), 0
            out += ["", f".. rubric:: {section}", ""]
        elif above == section and set(line.strip()) == {"-"}:
            continue
        elif section in LISTS and indent == 0 and _is_term(line.strip(), section, below):
            base = 4
            out += ["", _term(line.strip(), section), r"    \ ", ""]
        elif above == "" and indent > (text := _text_margin(lines, k, base)):
            literal = text
            out += [" " * text + "::", "", line]
        else:
            base = 4 if section in LISTS and indent else 0
            out.append(plain(line))
            if line.rstrip().endswith("::"):
                literal = indent
    return [*out, ""]


def _text_margin(lines: list[str], k: int, base: int) -> int:
    """The indentation of the text that line ``k`` would go on with: of the list item above it, or of the section."""
    for line in reversed(lines[:k]):
        indent = len(line) - len(line.lstrip())
        if line.strip() and indent < len(lines[k]) - len(lines[k].lstrip()):
            item = re.match(r"\s*(\*|-|\d+\.) +", line)
            return item.end() if item else max(base, indent)
    return base


def _is_term(entry: str, section: str, below: str) -> bool:
    if section in ("Returns", "Yields"):
        return below.startswith("    ")
    return bool(re.fullmatch(r"\*{0,2}\w+((, ?| or | and )\*{0,2}\w+)*( : .*)?", entry))


def _term(entry: str, section: str) -> str:
    """``name : type``, the type as plain text; an error of gfsim is a link."""
    names, colon, kind = entry.partition(" : ")
    if section == "Raises":
        parts = [n.strip() for n in names.split(",")]
        return ", ".join(f":class:`~gfsim.errors.{n}`" if hasattr(gfsim.errors, n) else plain(n) for n in parts)
    if section in ("Returns", "Yields"):
        return plain(entry)
    return f"``{names}``" + (f" : {plain(kind)}" if colon else "")


def _process(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    del app, what, name, obj, options
    lines[:] = convert(lines)


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("autodoc-process-docstring", _process)
    return {"parallel_read_safe": True}
