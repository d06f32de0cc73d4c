"""``gfsim report``: one HTML page from a folder that gfsim's commands wrote."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from gfsim.cli.parser import Parser

DESCRIPTION = """\
Make one HTML page of what gfsim has written into DIR and its subfolders: outputs of reproduce, simulate, pursue,
compare, check (--json, --plots) and certify, in any mixture.

The page shows the claims first (held or not, expected, measured, basis), then figures with their captions, notes
and provenance, then every flow of gfsim simulate to walk through: a slider in time over the loss, the norms of the
neurons, the weights and the cosines to the KKT points, saddle by saddle.

Whether a claim holds is computed again from its numbers, and certificates are verified again.  The page is one
file that loads nothing: it can be mailed, archived, and opened without a network.
"""

EPILOG = """\
examples:
  gfsim simulate --example > near-saddle.toml
  gfsim simulate near-saddle.toml --out out/near-saddle
  gfsim report out/near-saddle                    writes out/near-saddle/report.html
  gfsim report out --out everything.html          all outputs below out, on one page

exit codes: 0 the page is written (whether or not its claims hold; it says so); 2 DIR holds nothing to show, or a
file in it is broken.
"""


def add_parser(commands: Any) -> None:
    parser: Parser = commands.add_parser(
        "report", help="make one HTML page of an output folder", description=DESCRIPTION, epilog=EPILOG
    )
    parser.add_argument("folder", metavar="DIR", help="what gfsim commands have written")
    parser.add_argument("--out", metavar="FILE.html", help="the page (default: DIR/report.html)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from gfsim.errors import InvalidInput
    from gfsim.output import OutputDirectory
    from gfsim.report.collect import collect
    from gfsim.report.page import render, tally

    folder = Path(args.folder).expanduser()
    target = Path(args.out).expanduser() if args.out else folder / "report.html"
    if target.suffix.lower() not in (".html", ".htm"):
        raise InvalidInput(f"--out {target}: a page is an .html file; name one, such as {target.with_suffix('.html')}")
    if target.is_dir():
        raise InvalidInput(f"--out {target}: that is a folder; name a file in it, such as {target / 'report.html'}")
    content = collect(folder, without=target)
    page = render(content)
    OutputDirectory(target.parent).write_text(target.name, page)
    size = len(page.encode()) / 1e6
    print(f"{target} ({size:.1f} MB): {len(content.sections)} outputs, {tally(content)}")
    if content.others:
        print(f"not shown, as no command is known to write them: {', '.join(content.others[:10])}")
    return 0
