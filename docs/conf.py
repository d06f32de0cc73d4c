"""The documentation site: `make docs` builds it into out/docs, with warnings as errors.

Nothing on a page comes from a network: maths is MathML made here, the theme's files are copied, source code is
shown by pages of its own.
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE / "_ext")]

import gfsim  # noqa: E402

project = "gfsim"
author = "The gfsim developers"
copyright = f"2026, {author}"
version = release = gfsim.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.linkcode",
    "mathml",
    "plain_docstrings",
    "source_pages",
    "gallery",
    "public_names",
    "output_blocks",
    "offline",
]

exclude_patterns = ["_ext"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
myst_dmath_double_inline = True
myst_url_schemes = {"http": None, "https": None, "source": None}  # the last: _ext/source_pages.py

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
add_module_names = False
autodoc_default_options = {"members": True}

# A dead reference in a docstring is an error; what remains here are annotations that Sphinx cuts at a bracket, and
# one of matplotlib's that is imported for type checkers only.
nitpicky = True
nitpick_ignore = [("py:class", "Figure")]
nitpick_ignore_regex = [("py:.*", r".*\[.*")]

html_theme = "furo"
html_title = "gfsim"
html_static_path = ["_static"]
html_css_files = ["gfsim.css"]
html_copy_source = False
html_show_sphinx = False
html_show_search_summary = False  # summaries are fetched, which browsers refuse for pages opened as files
html_permalinks_icon = "#"
pygments_style = "tango"
