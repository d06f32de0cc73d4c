"""``gfsim certify``: a KKT point or a sparse saddle, proved in interval arithmetic and written as a certificate."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gfsim.cli.parser import Parser, seed

if TYPE_CHECKING:
    from gfsim.cli.config import Simulation

DESCRIPTION = """\
Prove in interval arithmetic what gfsim finds in floating point, and write the proof as a certificate.

CONFIG.toml is a request of gfsim simulate; its [model], [data], [loss] and [start] say what to certify:

  [start] kind = "origin"   the best KKT points of the NCF at the origin
  [start] kind = "saddle"   the sparse saddle with those active neurons: that it exists, once, within a radius, with
                            its Hessian's inertia; and the best KKT points of the one-neuron NCFs there

Each KKT point is proved to exist, once, within a radius, with an interval for N and for its second-order gap.
The claims are about exactly the float64 data, which are in the file.  Needs python-flint: pip install 'gfsim[rigor]'.
"""

EPILOG = """\
examples:
  gfsim simulate --example > near-saddle.toml
  gfsim certify near-saddle.toml --out near-saddle.json
  gfsim verify near-saddle.json

A point on a kink of the activation, one with ties, or one on a continuum larger than that of the rescalings of its
neurons has no certificate of this kind; docs/certificates.md says more.

exit codes: 0 written, and accepted by the checker; 1 no saddle, no KKT point, or no proof was found; 2 wrong request.
"""


def add_parser(commands: Any) -> None:
    parser: Parser = commands.add_parser(
        "certify",
        help="prove a KKT point or a sparse saddle in interval arithmetic",
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    parser.add_argument("config", metavar="CONFIG.toml", help="the request, as for gfsim simulate")
    parser.add_argument("--out", required=True, metavar="CERT.json", help="the file to write")
    parser.add_argument(
        "--points", type=int, default=1, metavar="N", help="KKT points, best first (default: %(default)s)"
    )
    parser.add_argument("--seed", type=seed, metavar="N", help="replaces the file's top-level seed")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from gfsim.errors import InvalidInput

    if args.points < 0:
        raise InvalidInput(f"--points {args.points}; give the number of KKT points, 0 or more")
    from gfsim.cli import config
    from gfsim.output import OutputDirectory
    from gfsim.rigor.verify import verify

    request = config.read(Path(args.config), seed=args.seed)
    target = Path(args.out)
    out = OutputDirectory(target.parent)
    certificate = _make(request, args.points)
    report = verify(certificate)
    out.write_json(target.name, certificate)
    print(f"{report.summary()}\n{target} is written")
    return 0


def _make(request: Simulation, points: int) -> dict[str, Any]:
    import numpy as np

    from gfsim.cli.experiment import build_objective
    from gfsim.errors import InvalidInput, NotCertified
    from gfsim.rigor.certify import certify_kkt, certify_saddle

    objective, start = build_objective(request), request.start
    rng = np.random.default_rng([start.seed, 2])  # as the start of gfsim simulate draws: the same saddle
    if start.kind == "saddle":
        from gfsim.ncf.saddle import SaddleNCF
        from gfsim.saddles.find import find_saddle

        saddle = find_saddle(objective, start.active, rng=rng, starts=start.starts, rank=start.rank)
        print(f"saddle with loss {saddle.loss:.6g} found", file=sys.stderr)
        found = SaddleNCF(saddle).neuron_maxima(rng=rng)[:points] if points else []
        return certify_saddle(saddle, found)
    if start.kind != "origin":
        raise InvalidInput(f"[start] kind = {start.kind!r}; certificates are for 'origin' and 'saddle'")
    if points < 1:
        raise InvalidInput(f"--points {points}; at the origin there is nothing else to certify: give 1 or more")
    from gfsim.ncf.origin import OriginNCF, maximise

    ncf = OriginNCF(objective)
    maxima = maximise(ncf, starts=start.starts, rng=rng)
    if not maxima:
        raise NotCertified(f"no KKT point with N > 0 was found from {start.starts} starts; raise [start] starts")
    return certify_kkt(ncf, *[point.u for point in maxima[:points]])
