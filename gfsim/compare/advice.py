"""Which method to use on this problem, in words that follow from what was measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby

from gfsim.compare.measure import Run
from gfsim.compare.runner import Comparison, cheapest, describe
from gfsim.flow.scipy_stepper import EXPLICIT

STABILITY = {"RK23": 2.5, "RK45": 3.3, "DOP853": 6.1}
"""Where the real stability interval of the explicit pairs ends: h lambda of a step that stability alone limits."""

STIFF = 0.7
"""Fraction of that limit at which half of the steps or more count as limited by stability."""

MANY = 1e3
"""A horizon with more than this many unit steps of size 1/lambda_max is what makes stability expensive."""

CLOSE = 1.15
"""Methods within this factor of the best one are as good as it: timings on a shared machine are no better."""


def methods_of(runs: Sequence[Run]) -> list[list[Run]]:
    """The runs of each method together, in the order of their first appearance."""
    order: dict[str, list[Run]] = {}
    for run in runs:
        order.setdefault(run.id, []).append(run)
    return list(order.values())


def why_not(runs: Sequence[Run], goal: float) -> str:
    """Why a method has no run at the goal: its least error, or its most telling failure."""
    good = [run for run in runs if run.ok]
    if good:
        least = min(good, key=lambda run: run.error)
        return f"least error {least.error:.1e} > {goal:g}"
    told = [run.failure for run in runs if run.failure and not run.failure.startswith("not tried: already")]
    return told[0] if told else "not run"


def advice(result: Comparison, goal: float) -> str:
    """A few sentences, one a line."""
    best = [run for rows in methods_of(result.runs) if (run := cheapest(rows, goal)) is not None]
    best.sort(key=lambda run: run.wall)
    if not result.runs:
        return "Nothing was run."
    lines = [_stiffness(result)]
    if goal < result.floor:
        lines.append(f"The reference resolves errors down to {result.floor:.0e} only; ask for no less.")
    if not best:
        least = min((run for run in result.runs if run.ok), key=lambda run: run.error, default=None)
        if least is None:
            lines.append(f"No method reached the end: {_reasons(result.runs)}.")
        else:
            lines.append(
                f"No run reached an error of {goal:g}; the most accurate was {_named(least)} with {least.error:.1e}. "
                "Tighten rtol or raise the time limit."
            )
        return "\n".join(lines)
    winner = best[0]
    lines.append(
        f"At an error of at most {goal:g} use {_named(winner)}: {winner.wall:.3g} s, {_cost(winner)}, "
        f"error {winner.error:.1e}."
    )
    near = [run for run in best[1:] if run.wall <= CLOSE * winner.wall]
    if near:
        lines.append(f"As good within {100 * (CLOSE - 1):.0f} %: {', '.join(_named(run) for run in near)}.")
    lines += _why(result, best)
    lines += _clock(result, goal)
    return "\n".join(lines)


def _stiffness(result: Comparison) -> str:
    r = result.reference
    return (
        f"{result.problem.title}: t = {r.t_end:.3g} ({result.problem.convention} of the loss), lambda_max up to "
        f"{r.stiffest:.3g}, integral of lambda_max over the horizon {r.stiffness:.3g}."
    )


def _why(result: Comparison, best: Sequence[Run]) -> list[str]:
    winner = best[0]
    lines = []
    stability = result.reference.stiffness
    limited = [run for run in result.runs if _limited(run)]
    slow = [run for run in result.runs if run.method in EXPLICIT and "time limit" in run.failure]
    free = [run for run in result.runs if run.method in EXPLICIT and run.ok and not _limited(run)]
    explicit = [run for run in best if run.method in EXPLICIT]
    if limited and stability > MANY:
        run = limited[0]
        lines.append(
            f"The flow is stiff: the steps of {_named(run)} sit at h lambda = {run.h_lambda[0]:.2g} (median), "
            "its limit of stability, so its cost grows like the integral above, whatever the tolerance."
        )
    elif slow and stability > MANY:
        lines.append(
            f"The flow is stiff: for stability alone RK45 needs about {stability / STABILITY['RK45']:.2g} steps here; "
            f"{', '.join(sorted({run.method for run in slow}))} ran out of time."
        )
    if (limited or slow) and stability > MANY:
        if explicit and explicit[0] is not winner:
            lines.append(
                f"The best explicit method, {_named(explicit[0])}, costs {_ratio(explicit[0], winner)} as much."
            )
        elif explicit:
            lines.append("Even so an explicit method is the cheapest here.")
        else:
            lines.append("No explicit method reached this error within the time limit.")
    elif limited:
        run = limited[0]
        lines.append(
            f"The steps of {_named(run)} sit at h lambda = {run.h_lambda[0]:.2g} (median), its limit of stability, "
            "but the horizon holds few of them: explicit methods remain cheap."
        )
    elif free:
        run = min(free, key=lambda r: r.wall)
        lines.append(
            f"The flow is not stiff at this accuracy: the steps of {_named(run)} have h lambda = {run.h_lambda[0]:.2g} "
            "(median), so accuracy sets them, and Jacobians would be paid for nothing."
        )
        implicit = [other for other in best if other.counts.get("jacobian", 0) and other is not winner]
        if implicit:
            lines.append(
                f"The best method with Jacobians, {_named(implicit[0])}, costs {_ratio(implicit[0], winner)} as much."
            )
    if winner.h_lambda[1] > 10:
        lines.append(f"The steps of {_named(winner)} reach h lambda = {winner.h_lambda[1]:.2g}.")
    return lines


def _limited(run: Run) -> bool:
    return run.method in STABILITY and run.h_lambda[0] >= STIFF * STABILITY[run.method]


def _clock(result: Comparison, goal: float) -> list[str]:
    """What the rescaled clock is worth here: the same methods in both clocks."""
    pairs = []
    physical = [run for run in result.runs if run.library == "scipy"]
    for rows in methods_of(physical):
        twins = [run for run in result.runs if run.library == "gfsim" and run.method == rows[0].method]
        pairs.append((cheapest(rows, goal), cheapest(twins, goal), rows, bool(twins)))
    failed = [rows[0].method for slow, fast, rows, ran in pairs if ran and slow is None and fast is not None]
    lines = []
    if failed:
        rows = next(rows for slow, fast, rows, ran in pairs if ran and slow is None and fast is not None)
        lines.append(
            f"In physical time {', '.join(failed)} did not get there ({failed[0]}: {why_not(rows, goal)}); "
            "in the rescaled clock they do."
        )
    both = [(slow, fast) for slow, fast, _, _ in pairs if slow is not None and fast is not None]
    if both:
        ratios = sorted(slow.wall / fast.wall for slow, fast in both)
        middle = ratios[len(ratios) // 2]
        verdict = "the rescaled clock is cheaper" if middle > CLOSE else "physical time is cheaper"
        if 1 / CLOSE <= middle <= CLOSE:
            verdict = "the clock makes no difference"
        lines.append(
            f"Where both clocks get there, {verdict}: wall time in t over wall time in s is "
            f"{ratios[0]:.2g} to {ratios[-1]:.2g}."
        )
    return lines


def _reasons(runs: Sequence[Run]) -> str:
    told = [run.failure for run in runs if run.failure and not run.failure.startswith("not tried: already")]
    if not told:
        worst = [run for run in runs if run.ok]
        return f"the error stayed above, at least {min(run.error for run in worst):.1e}" if worst else "no reason known"
    counted = sorted(((len(list(group)), text) for text, group in groupby(sorted(told))), reverse=True)
    return "; ".join(text for _, text in counted[:2])


def _named(run: Run) -> str:
    where = {"t": "in t", "s": "in the rescaled clock"}[run.clock]
    return f"{run.id} {where}, {describe(run.fixed, run.setting)}"


def _cost(run: Run) -> str:
    parts = [f"{run.counts.get('rhs', 0)} RHS"]
    parts += [
        f"{run.counts[key]} {word}" for key, word in (("hvp", "HVP"), ("jacobian", "Hessians")) if run.counts.get(key)
    ]
    return " + ".join(parts)


def _ratio(run: Run, winner: Run) -> str:
    ratio = run.wall / winner.wall
    return f"{ratio:.1f} times" if math.isfinite(ratio) else "an unknown multiple"
