"""``gfsim simulate``: one gradient flow, described by a TOML file."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gfsim.cli.config import EXAMPLE
from gfsim.cli.parser import Parser, seed

if TYPE_CHECKING:
    from gfsim.cli.config import EventSpec, FlowSpec, Simulation, StartSpec
    from gfsim.cli.experiment import Start
    from gfsim.flow.result import FlowResult
    from gfsim.interrupt import Stop
    from gfsim.objective import Objective
    from gfsim.output import OutputDirectory

DESCRIPTION = """\
Follow one gradient flow dw/dt = -grad L(w), from near the origin or near a sparse saddle.

CONFIG.toml says which network, data, loss, start and integrator; an unknown key is an error, not ignored.
This writes into DIR

  trajectory.npz   t, s (the clock of the integration), dt, w, loss, speed = |grad L|, norms of all neurons,
                   the data X and y, and the saddle if there is one
  summary.json     how it ended, events, plateaus, cost, drift of conserved quantities, versions
  flow.png, .svg   loss and neuron norms against time
  stages.json      of a net: the saddle behind each plateau, its KKT points, the one that the NCF flow predicts
  stages.npz       those saddles, and the cosine of the small weights to each KKT point

Ctrl-C keeps the trajectory up to that point.  gfsim report DIR makes a page of DIR to look at in a browser.
"""

EPILOG = f"""\
examples:
  gfsim simulate --example > near-saddle.toml
  gfsim simulate near-saddle.toml --check
  gfsim simulate near-saddle.toml --out out/near-saddle

near-saddle.toml, as --example prints it:

{EXAMPLE}
The other kinds take these keys:
  [model] kind = "diagonal": inputs, depth, tied, signed
  [model] kind = "factorisation": rows, cols, rank, symmetric
  [data]  kind = "random": samples, inputs, label_rms
  [data]  kind = "teacher": samples, inputs, teacher_hidden, label_rms, noise
  [data]  kind = "low_rank": rank, label_rms (for a factorisation: all entries of a matrix of that rank)
  [data]  kind = "published": name (two_layer_square, two_layer_relu, three_layer_square, three_layer_relu)
  [data]  kind = "file": path to a .npz with X (n_samples, n_features) and y, or with
          samples_are_columns = true; or to a .csv, with target = its label column
  [start] kind = "origin": delta, direction (random, kkt)
  [start] kind = "saddle": delta, direction, active, starts, rank (0: the lowest saddle, 1: the next, ...)
  [start] kind = "published": factor (the published initial weights times it)
  [start] kind = "file": path to a .npz with w, or W1, W2, ...; factor
  [flow]  every method: t_end, rows (this many equal times instead of every step), max_steps
  [flow]  euler, heun, rk4: step, device ("cpu" or "cuda"); the others: rtol, clock
  [[event]] loss, norm, slow: level; exit: radius; stationary: tolerance; all: stop = true or false

exit codes: 0 the end time or a stop event was reached; 1 the flow ended early (files are written) or no
saddle was found; 2 wrong request; 130 interrupted.
"""


def add_parser(commands: Any) -> None:
    parser: Parser = commands.add_parser(
        "simulate", help="follow one gradient flow described by a TOML file", description=DESCRIPTION, epilog=EPILOG
    )
    parser.add_argument("config", nargs="?", metavar="CONFIG.toml", help="the request")
    parser.add_argument("--out", metavar="DIR", help="where to write; needed unless --check or --example")
    parser.add_argument("--seed", type=seed, metavar="N", help="replaces the file's top-level seed")
    parser.add_argument("--check", action="store_true", help="check the file, say what it asks for, compute nothing")
    parser.add_argument("--example", action="store_true", help="print a commented example file and exit")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from gfsim.errors import InvalidInput

    if args.example:
        print(EXAMPLE, end="")
        return 0
    if args.config is None:
        raise InvalidInput("name a CONFIG.toml; gfsim simulate --example prints one to start from")
    from gfsim.cli import config

    request = config.read(Path(args.config), seed=args.seed)
    if args.check:
        return _check(request)
    if args.out is None:
        raise InvalidInput("name an output directory with --out DIR")
    from gfsim.output import OutputDirectory

    return _simulate(request, OutputDirectory(args.out))


def _check(request: Simulation) -> int:
    from gfsim.cli.experiment import build_objective
    from gfsim.flow.field import Descent

    print(Descent(build_objective(request)).label)
    print(f"start: {_spelled(request.start)}\nflow: {_spelled(request.flow)}")
    for event in request.events:
        print(f"event: {_spelled(event)}")
    return 0


def _spelled(spec: StartSpec | FlowSpec | EventSpec) -> str:
    """The settings of a table as ``key = value``, without those that are not set."""
    settings = ((f.name, getattr(spec, f.name)) for f in dataclasses.fields(spec))
    return ", ".join(f"{key} = {value}" for key, value in settings if value not in (None, ()))


def _simulate(request: Simulation, out: OutputDirectory) -> int:
    import warnings

    from gfsim.cli.experiment import build_clock, build_event, build_objective, build_start
    from gfsim.flow.simulate import simulate
    from gfsim.interrupt import interruptible

    began = time.perf_counter()
    with interruptible() as stop, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numerical trouble is told by the status, once
        objective = build_objective(request)
        start = build_start(request.start, request.data, objective)
        print(f"{start.note}", file=sys.stderr)
        flow = request.flow
        options: dict[str, Any] = {"step": flow.step, "device": flow.device}
        if flow.rtol is not None:
            options = {"rtol": flow.rtol, "clock": build_clock(request, start)}
            options["blocks"] = start.saddle.blocks if start.saddle else None
        result = simulate(
            objective,
            start.w,
            t_end=flow.t_end,
            method=flow.method,
            events=[build_event(event, start) for event in request.events],
            t_eval=_times(request),
            max_steps=flow.max_steps,
            progress=sys.stderr.isatty(),
            **options,
        )
        with stop.held():
            _write(request, objective, start, result, out, time.perf_counter() - began)
        print(result.summary())
        with contextlib.suppress(KeyboardInterrupt):  # what is on disk is whole without the stages
            _write_stages(result, request.seed, out, stop)
    print(f"trajectory.npz, summary.json, pictures and the stages of a net are in {out.path}")
    if stop.is_set():
        print("gfsim: interrupted; the trajectory up to there is kept", file=sys.stderr)
        return 130
    return 0 if result.ok else 1


def _times(request: Simulation) -> Any:
    import numpy as np

    flow = request.flow
    return None if flow.rows is None else np.linspace(0.0, flow.t_end, flow.rows + 1)[1:]


def _write_stages(result: FlowResult, seed: int, out: OutputDirectory, stop: Stop) -> None:
    from gfsim.cli.stage_files import contents, stages_of

    if stop.is_set():
        return
    stages = stages_of(result, seed)
    if stages is not None and not stop.is_set():  # a solver may have taken Ctrl-C for the end of its own run
        with stop.held():
            out.write(contents(stages))


def _write(
    request: Simulation,
    objective: Objective,
    start: Start,
    result: FlowResult,
    out: OutputDirectory,
    seconds: float,
) -> None:
    from gfsim.cli.plots import flow_pictures, sizes
    from gfsim.cli.stage_files import NAMES as STAGE_FILES
    from gfsim.jsonable import dumps
    from gfsim.models.blocks import weight_blocks
    from gfsim.output import arrays_bytes
    from gfsim.provenance import versions

    arrays = {name: getattr(result, name) for name in ("t", "s", "dt", "w", "loss", "speed")}
    arrays |= {"X": objective.X, "y": objective.y}
    groups, what = sizes(objective.model, result.w)
    for k, (_, curves) in enumerate(groups, start=1):
        arrays[f"norms_{k}"] = curves
    if start.saddle is not None:
        arrays |= {"saddle": start.saddle.w, "index_n": start.saddle.index_n, "index_z": start.saddle.index_z}
    record = {
        "title": request.title,
        "config": request.text,
        "seed": request.seed,
        "what": result.label,
        "convention": objective.reduction,
        "start": start.note,
        "saddle": _saddle_record(start),
        "status": result.status,
        "ok": result.ok,
        "message": result.message,
        "t_end": float(result.t[-1]),
        "loss_start": float(result.loss[0]),
        "loss_end": float(result.loss[-1]),
        "events": [{"name": e.name, "t": e.t, "s": e.s} for e in result.events],
        "clock": result.clock,
        "weights": weight_blocks(objective.model),
        "norms": {"what": what, "groups": [name for name, _ in groups]},
        "plateaus": _plateaus(result),
        "counts": result.counts,
        "conserved_drift": result.conserved_drift,
        "versions": versions(),
        "seconds": round(seconds, 3),
    }
    files = {"trajectory.npz": arrays_bytes(arrays), **flow_pictures("flow", result, objective.model, start.note)}
    out.remove(*reversed(STAGE_FILES))  # those of an earlier run, the JSON first
    # the summary comes last: where it is, the set is complete
    out.write({**files, "summary.json": dumps(record).encode()})


def _saddle_record(start: Start) -> dict[str, Any] | None:
    if start.saddle is None:
        return None
    record: dict[str, Any] = {"active": start.saddle.active.units, "loss": start.saddle.loss}
    if start.certificate is not None:
        c = start.certificate
        record |= {"verdict": c.verdict, "gradient": c.gradient, "rounding": c.rounding, "hessian_inertia": c.inertia}
        record["escape_value"] = None if c.escape is None else c.escape.value
    return record


def _plateaus(result: FlowResult) -> list[dict[str, Any]] | None:
    """None where plateaus are not defined: another model than a net, or too short a trajectory."""
    from gfsim.flow.field import Descent
    from gfsim.models.feedforward import FeedForward
    from gfsim.saddles.plateaus import find_plateaus

    field = result.field
    if not isinstance(field, Descent) or not isinstance(field.objective.model, FeedForward) or len(result.t) < 3:
        return None
    return [
        {"t_enter": p.t_enter, "t_exit": p.t_exit, "loss": p.loss, "speed": p.speed, "active": p.active.units}
        for p in find_plateaus(result)
    ]
