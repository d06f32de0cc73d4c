"""``gfsim verify``: check certificates, by code that shares nothing with what made them."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from gfsim.cli.parser import Parser
from gfsim.errors import CertificateRefused, InvalidInput, unreadable

DESCRIPTION = """\
Check certificates of KKT points and sparse saddles, and print what each proves.

The checker (gfsim/rigor/verify.py) evaluates the network, the loss and the NCF with formulas of its own, in ball
arithmetic, from the data in the file alone.  Every claim is proved again; a certificate with one claim that is not
proved, one unknown field or one changed digit is refused.  Needs python-flint: pip install 'gfsim[rigor]'.
"""

EPILOG = """\
examples:
  gfsim verify near-saddle.json
  gfsim verify proofs_checks/certificates/*.json

exit codes: 0 every certificate holds; 1 at least one is refused; 2 a file cannot be read.
"""


def add_parser(commands: Any) -> None:
    parser: Parser = commands.add_parser(
        "verify", help="check certificates written by gfsim certify", description=DESCRIPTION, epilog=EPILOG
    )
    parser.add_argument("files", nargs="+", metavar="CERT.json", help="certificates")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from gfsim.rigor.verify import verify

    contents = [(name, _read(Path(name))) for name in args.files]
    refused = 0
    for name, content in contents:
        try:
            print(f"{name}: {verify(content).summary()}")
        except CertificateRefused as exc:
            refused += 1
            print(f"{name}: REFUSED: {exc}")
    if refused:
        print(f"{refused} of {len(contents)} certificates refused", file=sys.stderr)
    return 1 if refused else 0


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise unreadable(path, exc, "give a file that gfsim certify has written") from None
    except (ValueError, RecursionError) as exc:
        raise InvalidInput(f"{path} is not JSON ({exc}); give a file that gfsim certify has written") from None
