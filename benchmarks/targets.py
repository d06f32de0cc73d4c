"""What gfsim asks of itself, row by row: the target, the measured value, and whether it is met.

A row is computed from results.json alone.  ``met`` is None where nothing was measured, with the reason in ``note``.
"Ours" is the method ``auto`` where the library has it, and else its cheapest method, which the note names.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping
from typing import Any

OUT_OF_TIME = "stopped after the time limit"
"""How a run that was stopped is told (gfsim/compare/measure.py)."""

BATCH_AGREEMENT = 1e-2
"""Batches whose ends differ by more than this, in |w_z|, did not do the same work."""

Row = dict[str, Any]
Results = Mapping[str, Any]


def rows(results: Results) -> list[Row]:
    """Every target."""
    return [row for make in TARGETS for row in make(results)]


def _row(name: str, target: str, measured: float, met: bool | None, note: str = "") -> Row:
    return {"name": name, "target": target, "measured": measured, "met": met, "note": note}


def _missing(name: str, target: str, why: str) -> Row:
    return _row(name, target, math.nan, None, why)


def _at_most(name: str, bound: float, measured: float, note: str = "", unit: str = "") -> Row:
    known = isinstance(measured, (int, float)) and math.isfinite(measured)
    return _row(name, f"<= {bound:g}{unit}", measured, measured <= bound if known else None, note)


def _timed(results: Results, problem: str) -> list[Row]:
    found = results["problems"].get(problem, {}).get("timed", [])
    return [row for row in found if isinstance(row["wall"], float) and math.isfinite(row["wall"])]


def _best(rows_: list[Row], *, library: str, method: str = "") -> Row | None:
    good = [row for row in rows_ if row["library"] == library and method in ("", row["method"])]
    return min(good, key=lambda row: row["wall"], default=None)


def _ours(rows_: list[Row]) -> Row | None:
    return _best(rows_, library="gfsim", method="auto") or _best(rows_, library="gfsim")


def _auto(results: Results) -> list[Row]:
    name, out = "auto against the best single scipy method, worst problem", []
    ratios = {}
    for problem in results["problems"]:
        timed = _timed(results, problem)
        auto, scipy = _best(timed, library="gfsim", method="auto"), _best(timed, library="scipy")
        if auto is not None and scipy is not None:
            ratios[problem] = auto["wall"] / scipy["wall"]
    if not ratios:
        return [_missing(name, "<= 1.3", "no run of a method called auto reached the goal")]
    worst = max(ratios, key=lambda key: ratios[key])
    out.append(_at_most(name, 1.3, ratios[worst], f"on {worst}, of {len(ratios)} problems"))
    return out


def _saddle(results: Results) -> list[Row]:
    out = [
        _against(results, "saddle-relu2-1e-2", f"sparse saddle, delta = 0.01: ours over scipy {method}", bound, method)
        for method, bound in (("BDF", 1.0), ("RK45", 1 / 30))
    ]
    out += _depth(results)
    for problem, where in (
        ("escape", "the same on the suite's few tolerances, a factor of three apart"),
        ("saddle", "the same to half the loss, where a second plateau lies between"),
    ):
        ours, late = (_ours(_timed(results, f"{problem}-relu2-{delta}")) for delta in ("1e-2", "1e-6"))
        name = f"sparse saddle: {where}"
        if ours is None or late is None:
            out.append(_missing(name, "<= 1.5", "one of the two problems was not run"))
        else:
            out.append(_at_most(name, 1.5, late["wall"] / ours["wall"], f"{late['id']} and {ours['id']}"))
    return out


def _depth(results: Results) -> list[Row]:
    """What a start near the saddle costs over one far from it, to the first escape."""
    name = "sparse saddle: cost to the first escape at delta = 1e-6 over 1e-2"
    depth = results["extras"].get("depth", {})
    if "runs" not in depth:
        return [_missing(name, "<= 1.5", depth.get("failure", "not run"))]
    far, near = depth["runs"]["1e-2"], depth["runs"]["1e-6"]

    def evaluations(run: Row) -> float:
        return run["velocities"] + run["products"]

    def seconds(run: Row) -> float:
        return run["seconds"]

    out = []
    for where, marks in (("there", ("escape",)), ("there and where w_z has doubled", ("escape", "doubling"))):
        for what, cost in (("evaluations", evaluations), ("CPU seconds", seconds)):
            best = [
                min((r for r in runs if max(r["errors"][m] for m in marks) <= 1e-3), key=cost) for runs in (near, far)
            ]
            note = " and ".join(f"rtol {run['rtol']:.1e}, {run['steps']} steps" for run in best)
            note += f", the cheapest of {len(far)} tolerances"
            title = f"{name}, error <= 1e-3 {where}: {what}"
            out.append(_at_most(title, 1.5, cost(best[0]) / cost(best[1]), note))
    ratios = [run["seconds"] / other["seconds"] for run, other in zip(near, far, strict=True)]
    note = f"CPU seconds, from {min(ratios):.2f} to {max(ratios):.2f}; the errors differ"
    alike = "sparse saddle: the same, both at one tolerance, median of all"
    out.append(_at_most(alike, 1.5, statistics.median(ratios), note))
    return out


def _passage(results: Results) -> list[Row]:
    problem = "passage-relu2"
    ours = _ours(_timed(results, problem))
    count = "origin to L < 1e-4 L0: evaluations, each counted once"
    weighted = "the same by the seconds that they and the factorisations took"
    ratio = _against(results, problem, "origin to L < 1e-4 L0: ours over scipy RK45", 0.1, "RK45")
    if ours is None:
        return [_missing(count, "<= 3500", f"{problem} was not run"), ratio]
    counts, unit = ours["counts"], results["problems"][problem]["unit_seconds"]
    singly = sum(counts.get(key, 0) for key in ("rhs", "hvp", "jacobian"))
    seconds = ours["evaluation_seconds"] + counts.get("factorisations", 0) * unit["factorisations"]
    return [
        _at_most(count, 3500, singly, ours["id"]),
        _at_most(weighted, 3500, seconds / unit["rhs"], "RHS-equivalents"),
        ratio,
    ]


def _against(results: Results, problem: str, name: str, bound: float, method: str) -> Row:
    """Ours over a scipy method; one that was stopped took at least the time limit."""
    timed = _timed(results, problem)
    ours, peer = _ours(timed), _best(timed, library="scipy", method=method)
    why = _why(results, problem, f"scipy:{method}")
    if ours is not None and peer is not None:
        return _at_most(name, bound, ours["wall"] / peer["wall"], ours["id"])
    most = ours["wall"] / results["limit"] if ours is not None and OUT_OF_TIME in why else math.nan
    if most <= bound:
        return _at_most(name, bound, most, f"{ours['id']}; at most: {why}")  # type: ignore[index]
    return _missing(name, f"<= {bound:.3g}", why)


def _why(results: Results, problem: str, who: str) -> str:
    library, method = who.split(":")
    runs = results["problems"].get(problem, {}).get("runs", [])
    told = [run["failure"] for run in runs if run["library"] == library and run["method"] == method and run["failure"]]
    return f"{who}: {told[-1]}" if told else f"{problem} was not run"


def _figure1(results: Results) -> list[Row]:
    extra = results["extras"].get("figure1", {})
    name = "figure-1 run: ours over the authors' loop of descent in numpy"
    out = [
        _at_most(name, 0.05, extra["ratio"], extra["method"])
        if "ratio" in extra
        else _missing(name, "<= 0.05", extra.get("failure", "not run"))
    ]
    return [*out, _against(results, "figure1", "figure-1 problem: ours over DOP853 at equal accuracy", 1.0, "DOP853")]


def _degree7(results: Results) -> list[Row]:
    extra = results["extras"].get("degree7", {})
    name = "degree 7: T delta^5 at 1e-6 against 1e-2"
    if "relative_difference" not in extra:
        return [_missing(name, "<= 1e-05", extra.get("failure", "not run"))]
    return [_at_most(name, 1e-5, float(extra["relative_difference"]), extra["method"])]


def _batch(results: Results) -> list[Row]:
    extra = results["extras"].get("batch", {})
    ours, out = extra.get("gfsim", {}), []
    for library, bound in (("scipy", 8.0), ("torchode", 5.0), ("diffrax", 5.0)):
        name = f"{extra.get('starts', 256)} saddle starts in one batch: {library} over ours"
        other = extra.get(library, {})
        if "wall" not in ours or "wall" not in other:
            why = ours.get("failure") or other.get("failure") or "not run"
            out.append(_missing(name, f">= {bound:g}", why))
            continue
        ratio, gap = other["wall"] / ours["wall"], _disagreement(ours, other)
        notes = [f"{library} was stopped: a lower bound"] * bool(other.get("stopped"))
        notes += [f"rtol {x['rtol']:g}" for x in (ours, other) if "rtol" in x]
        notes += ["ours was stopped"] * bool(ours.get("stopped"))
        notes += [f"ends differ by {gap:.1e}"] * (gap > 0)
        # a fast run that is stopped, or ends somewhere else, says nothing in our favour
        fair = not ours.get("stopped") and gap <= BATCH_AGREEMENT
        out.append(_row(name, f">= {bound:g}", ratio, bool(ratio >= bound) and fair, "; ".join(notes)))
    return out


def _disagreement(ours: Row, other: Row) -> float:
    """Largest relative difference of |w_z| at the end; 0 where the other did not get there."""
    if "norms" not in other or "norms" not in ours:
        return 0.0
    return max(abs(a / b - 1.0) for a, b in zip(ours["norms"], other["norms"], strict=True))


def _million(results: Results) -> list[Row]:
    extra = results["extras"].get("million", {})
    name, memory = (
        "1e6 weights, n = 4096: explicit step over forward + backward",
        "1e6 weights: matrix-free implicit step",
    )
    if "ratio" not in extra:
        why = extra.get("failure", "not run")
        return [_missing(name, "<= 1.25", why), _missing(memory, "< 2 GiB", why)]
    out = [_at_most(name, 1.25, extra["ratio"])]
    steps, products = extra["matrix_free_steps"], extra["matrix_free_hvp"]
    note = f"{extra['matrix_free']}, {steps} step(s), {products} Hessian-vector products, torch included"
    out.append(_at_most(memory, 2.0 if steps else 0.0, extra["peak_gib"], note, " GiB"))
    return out


def _cuda(results: Results) -> list[Row]:
    extra = results["extras"].get("cuda", {})
    name = "CUDA: batch of 4096 and 1e6 weights against CPU"
    return [_missing(name, "reported", extra.get("absent") or extra.get("device") or "not run")]


def _start(results: Results) -> list[Row]:
    extra, overhead = results["extras"].get("imports", {}), results["extras"].get("step_overhead", {})
    names = ("import gfsim over import torch alone", "command line answers", "overhead of an unbatched torch step")
    if "torch" in extra:
        out = [
            _at_most(names[0], 0.3, extra["gfsim_and_torch"] - extra["torch"], unit=" s"),
            _at_most(names[1], 1.0, extra["command_line"], "gfsim --version", " s"),
        ]
    else:
        out = [_missing(name, "", extra.get("failure", "not run")) for name in names[:2]]
    if "overhead_ms" in overhead:
        out.append(_at_most(names[2], 0.3, overhead["overhead_ms"], "euler", " ms"))
    else:
        out.append(_missing(names[2], "<= 0.3 ms", overhead.get("failure", "not run")))
    return out


TARGETS: tuple[Callable[[Results], list[Row]], ...] = (
    _auto,
    _saddle,
    _passage,
    _figure1,
    _degree7,
    _batch,
    _million,
    _cuda,
    _start,
)
