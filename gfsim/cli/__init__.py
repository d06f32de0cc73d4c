"""The command ``gfsim``: one module a subcommand, and one policy for what the terminal is told.

Exit codes: 0 all went well; 1 something that was asked for did not come out (a claim does not hold, a
flow stopped early); 2 the request cannot be carried out as it stands; 130 interrupted.  A user's
mistake is answered by one line on standard error, never by a traceback.

Nothing numerical is imported here, so that ``--help`` and ``--version`` answer at once.
"""

from __future__ import annotations

import io
import os
import sys
import traceback
from collections.abc import Sequence

from gfsim import __version__
from gfsim.cli import certify, check, compare, predict, pursue, report, reproduce, simulate, verify
from gfsim.cli.parser import Parser
from gfsim.errors import CertificateRefused, GfsimError, NotCertified, SaddleNotFound

USAGE_ERROR = 2
INTERRUPTED = 130
BROKEN_PIPE = 141

NOT_COME_OUT = (SaddleNotFound, NotCertified, CertificateRefused)
"""Errors that say what was found out, not that the request was wrong."""

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""Set to 1 unless the user has set them: the matrices here are small, and threads that wait for each
other made the figures up to ten times slower on two busy cores.  It works because numpy is imported later."""

DESCRIPTION = """\
Gradient flow of homogeneous networks near sparse saddle points.

  gfsim reproduce   run the papers' figures, each with claims that are checked
  gfsim simulate    follow one gradient flow described by a TOML file
  gfsim pursue      grow a network on your own CSV data by Neuron Pursuit
  gfsim predict     apply such a network to new rows
  gfsim check       check the statements of the theory, each with a negative control
  gfsim certify     prove a KKT point, or a sparse saddle with its inertia, in interval arithmetic
  gfsim verify      check such a proof, independently of what made it
  gfsim compare     compare integrators on a suite of flows, or on your own
  gfsim report      make one HTML page of what the others have written, to look at in a browser

Each has its own --help, with a worked example.
"""

EPILOG = """\
exit codes: 0 all well (and every claim held); 1 a claim failed or a computation did not end well;
2 the request is wrong (one line says why); 130 interrupted (what is complete is kept).
GFSIM_DEBUG=1 in the environment shows the traceback of any error; OMP_NUM_THREADS=n allows n threads for
linear algebra (1 by default, which is faster for nets of this size).
"""


def build_parser() -> Parser:
    parser = Parser(prog="gfsim", description=DESCRIPTION, epilog=EPILOG)
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=Parser)
    for module in (reproduce, simulate, pursue, predict, check, certify, verify, compare, report):
        module.add_parser(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without "±" shows "?" instead of failing
    for variable in THREADS:
        os.environ.setdefault(variable, "1")
    try:
        parser = build_parser()
        args = parser.parse_args(argv)
        if args.version:
            print(f"gfsim {__version__}")
            return 0
        if args.command is None:
            parser.print_help(sys.stderr)
            return USAGE_ERROR
        code: int = args.run(args)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # the reader (head, less) has gone; what is left in the buffer must not complain at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except KeyboardInterrupt:
        print("\ngfsim: interrupted; no output was left half-written", file=sys.stderr)
        return INTERRUPTED
    except GfsimError as exc:
        _show_traceback()
        print(f"gfsim: error: {' '.join(str(exc).split())}", file=sys.stderr)
        return 1 if isinstance(exc, NOT_COME_OUT) else USAGE_ERROR
    except MemoryError as exc:
        _show_traceback()
        details = " ".join(str(exc).split()) or "no details"
        print(f"gfsim: error: not enough memory ({details}); ask for a smaller network or fewer rows", file=sys.stderr)
        return 1
    except Exception as exc:
        shown = _show_traceback()
        hint = "" if shown else "; run with GFSIM_DEBUG=1 for the traceback"
        print(f"gfsim: internal error: {type(exc).__name__}: {' '.join(str(exc).split())}{hint}", file=sys.stderr)
        return 1


def _show_traceback() -> bool:
    wanted = os.environ.get("GFSIM_DEBUG", "") not in ("", "0")
    if wanted:
        traceback.print_exc()
    return wanted
