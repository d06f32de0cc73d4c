"""Render docs/benchmarks.md and its plots from results.json: nothing is measured here.

python -m benchmarks.page out/bench/results.json docs
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from benchmarks.rounds import SHORT
from benchmarks.run import load
from gfsim.output import OutputDirectory, rendered

COLOURS = {"gfsim": "C0", "scipy": "C1", "descent": "0.6"}
OTHER = ("C2", "C3", "C4", "C5", "C6")


def main() -> int:
    if len(sys.argv) != 3:
        print("usage: python -m benchmarks.page RESULTS.json FOLDER", file=sys.stderr)
        return 2
    try:
        results = load(Path(sys.argv[1]))
    except (OSError, ValueError) as exc:
        print(
            f"benchmarks: {sys.argv[1]} holds no results ({exc}); python -m benchmarks.run writes them", file=sys.stderr
        )
        return 2
    folder = OutputDirectory(sys.argv[2])
    files = {
        "benchmarks.png": rendered(lambda f: overview(results).savefig(f, format="png", dpi=150)),
        "benchmarks.json": Path(sys.argv[1]).read_bytes(),
        "benchmarks.md": page(results).encode(),
    }
    folder.write(files)
    print(f"wrote {', '.join(files)} in {folder.path}")
    return 0


def page(results: dict[str, Any]) -> str:
    """The whole page."""
    m, v = results["machine"], results["versions"]
    packages = ", ".join(f"{name} {version}" for name, version in v.items() if version != "absent")
    goal = f"{results['goal']:g}"
    lines = [
        "# Benchmarks",
        "",
        f"Made by `python -m benchmarks.page` from `benchmarks.json`, which `{results['command']}` wrote; do not edit "
        "by hand.  What is compared and how is in `gfsim compare --help` and the docstring of "
        "`gfsim/compare/__init__.py`.",
        "",
        f"- machine: {m['cpu'] or 'unknown CPU'}, {m['cores']} core(s), {m['threads']} thread(s) a library "
        f"({results['batch_threads']} for the batch of starts), "
        f"load {', '.join(f'{x:.1f}' for x in m['load_at_start'])} at the start, {m['date']}",
        f"- versions: {packages}",
        f"- every method at its loosest tolerance whose error is at most {goal}: the largest relative error "
        "of a block of weights against a cross-checked reference, at equal loss or size, never at equal time",
        f"- medians of {_rounds(results)}, one process a library, compile time apart; a run longer than "
        f"{results['limit']:g} s counts as hopeless",
        *_before(results),
        "Only ratios within this page mean anything.  A peer that is used badly here is a bug: please say so.",
        "",
        "## Targets",
        "",
        "| target | asked | measured | met | note |",
        "|---|---|---|---|---|",
    ]
    word = {True: "yes", False: "**no**", None: "not measured"}
    for row in results["targets"]:
        shown = f"{row['measured']:.4g}" if row["measured"] == row["measured"] else "-"
        lines.append(
            f"| {_cell(row['name'])} | {row['target']} | {shown} | {word[row['met']]} | {_cell(row['note'])} |"
        )
    lines += ["", "## Wall time at equal accuracy", "", "![wall time over the best scipy method](benchmarks.png)", ""]
    for name, record in results["problems"].items():
        lines += _section(name, record)
    for name, why in results["failures"].items():
        lines += ["", f"### {name}", "", f"Not measured: {why}"]
    return "\n".join(lines) + "\n"


def _rounds(run: dict[str, Any]) -> str:
    repeats = run.get("repeats") or 1  # files from before runs were repeated do not say so
    once = f"{run['rounds']} interleaved rounds"
    return f"{once}, in each the fastest of up to {repeats} runs of {SHORT:g} s together" if repeats > 1 else once


def _before(results: dict[str, Any]) -> list[str]:
    """Where the numbers that were not measured in the last run come from."""
    lines = []
    for earlier in results.get("before", []):
        m = earlier["machine"]
        load = ", ".join(f"{x:.1f}" for x in m["load_at_start"])
        lines.append(
            f"- taken over where the command above does not name it: what `{earlier['command']}` measured "
            f"on {m['cpu']}, load {load} at the start, {m['date']}, with the code of then: "
            f"medians of {_rounds(earlier)}"
        )
    return [*lines, ""]


def _section(name: str, record: dict[str, Any]) -> list[str]:
    r = record["reference"]
    lines = [
        "",
        f"### {name}",
        "",
        f"{record['title']}.  {record['weights']} weights, {record['samples']} samples, {record['convention']} of the "
        f"loss; t = {r['t_end']:.4g}, lambda_max up to {r['largest_curvature']:.3g}, its integral "
        f"{r['stiffness']:.3g}; "
        f"reference accurate to {r['accuracy']:.0e}.",
        "",
        "| method | clock | setting | error | RHS | Jac | HVP | LU | steps | wall s | over best scipy | compile s |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    timed = sorted((row for row in record["timed"] if row["wall"] == row["wall"]), key=lambda row: float(row["wall"]))
    base = next((row["wall"] for row in timed if row["library"] == "scipy"), None)
    for row in timed:
        c = row["counts"]
        counts = " | ".join(str(c.get(key, 0)) for key in ("rhs", "jacobian", "hvp", "factorisations", "steps"))
        over = f"{row['wall'] / base:.2f}" if base else "-"
        compiled = f"{row['compile_seconds']:.2g}" if row["compile_seconds"] else "-"
        setting = f"{row['setting']:g}{'/lambda' if row['fixed'] else ''}"
        lines.append(
            f"| {row['id']} | {row['clock']} | {setting} | {row['error']:.1e} "
            f"| {counts} | {row['wall']:.3g} | {over} | {compiled} |"
        )
    there = {row["id"] for row in timed}
    failed: dict[str, str] = {}
    for run in record["runs"]:
        who = f"{run['library']}:{run['method']}"
        if who not in there:
            failed[who] = run["failure"] or f"least error {run['error']:.1e}"
    if failed:
        lines += ["", "Not there: " + "; ".join(f"{who} ({_cell(why)})" for who, why in failed.items()) + "."]
    if record["skipped"]:
        lines += ["", "Not taking part: " + "; ".join(_cell(text) for text in record["skipped"]) + "."]
    return lines


def overview(results: dict[str, Any]) -> Any:
    """Every method of every problem as a dot: wall time over the best plain scipy method."""
    from matplotlib.figure import Figure

    from paper_repro.figure import styled

    with styled():
        names = list(results["problems"])
        figure = Figure(figsize=(9.0, 1.2 + 0.42 * max(len(names), 1)), layout="constrained")
        ax = figure.subplots()
        seen: dict[str, str] = {}
        for k, name in enumerate(names):
            timed = [row for row in results["problems"][name]["timed"] if row["wall"] == row["wall"]]
            base = min((row["wall"] for row in timed if row["library"] == "scipy"), default=None)
            if base is None:
                ax.text(1.0, k, "no scipy method got there in physical time", fontsize=7, va="center", ha="center")
                continue
            for row in timed:
                library = row["library"]
                if library not in seen:
                    others = [known for known in seen if known not in COLOURS]
                    seen[library] = COLOURS.get(library) or OTHER[len(others) % len(OTHER)]
                ax.plot(row["wall"] / base, k, "o", ms=5, alpha=0.7, color=seen[library], mew=0)
        for library, colour in seen.items():
            ax.plot([], [], "o", color=colour, label=library)
        ax.axvline(1.0, color="0.6", lw=0.8)
        ax.set_xscale("log")
        ax.set_yticks(range(len(names)), names)
        ax.invert_yaxis()
        ax.set_xlabel("wall time over that of the best plain scipy method (left is faster)")
        if seen:
            figure.legend(loc="outside upper center", ncols=len(seen), fontsize=8)
    return figure


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    sys.exit(main())
