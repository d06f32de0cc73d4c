"""Run the benchmarks and write results.json; ``make bench`` does this and then renders the page."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks import extras, rounds, targets
from gfsim.compare.peers import LIBRARIES
from gfsim.compare.problems import select
from gfsim.errors import GfsimError, InvalidInput
from gfsim.interrupt import interruptible
from gfsim.output import OutputDirectory
from gfsim.provenance import versions

PROBLEMS = (
    "toy",
    "origin-two-layer-square",
    "origin-three-layer-square",
    "saddle-relu2-1e-1",
    "saddle-relu2-1e-2",
    "saddle-relu2-1e-4",
    "saddle-relu2-1e-6",
    "saddle-z2-1e-2",
    "escape-relu2-1e-2",
    "escape-relu2-1e-6",
    "passage-relu2",
    "passage-z2",
    "degree7-1e-1",
    "degree7-1e-2",
    "deep-linear",
    "logistic",
    "relu",
    "figure1",
    "large",
)

DESCRIPTION = """\
Time gfsim against scipy and the installed peers: one process a library, the loosest tolerance of each that reaches
--goal, medians of interleaved rounds.  Writes DIR/results.json after every problem, so Ctrl-C keeps what is done;
python -m benchmarks.page renders docs/benchmarks.md from it.
"""


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.run", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("problems", nargs="*", metavar="PROBLEM", help=f"default: {', '.join(PROBLEMS)}")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="interleaved rounds (default: %(default)s)")
    parser.add_argument(
        "--limit", type=float, default=60.0, metavar="SECONDS", help="of one run (default: %(default)g)"
    )
    parser.add_argument(
        "--goal", type=float, default=1e-3, metavar="ERROR", help="error to reach (default: %(default)g)"
    )
    parser.add_argument("--peers", nargs="*", default=list(LIBRARIES), metavar="LIBRARY", help="default: all")
    parser.add_argument("--methods", nargs="+", default=[], metavar="METHOD", help="only these methods or libraries")
    parser.add_argument("--extras", nargs="*", metavar="NAME", help="default: all; none with a bare --extras")
    parser.add_argument("--starts", type=int, default=256, metavar="N", help="in the batch (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="of every library (default: %(default)s)")
    parser.add_argument(
        "--batch-threads", type=int, default=2, metavar="N", help="of the batch of starts (default: %(default)s)"
    )
    parser.add_argument("--known", metavar="JSON", help="take over what is not measured now from such a results.json")
    parser.add_argument("--out", default="out/bench", metavar="DIR", help="default: %(default)s")
    args = parser.parse_args()
    try:
        select(args.problems)
        known = None if args.known is None else _known(Path(args.known))
        return _run(args, known, OutputDirectory(args.out))
    except GfsimError as exc:
        print(f"benchmarks: {exc}", file=sys.stderr)
        return 2


def _run(args: argparse.Namespace, known: dict[str, Any] | None, out: OutputDirectory) -> int:
    results: dict[str, Any] = {
        "command": shlex.join(["python", "-m", "benchmarks.run", *sys.argv[1:]]),
        "machine": machine(args.threads),
        "batch_threads": args.batch_threads,
        "versions": versions() | _peer_versions(),
        "goal": args.goal,
        "rounds": args.rounds,
        "repeats": rounds.MOST,
        "limit": args.limit,
        "problems": {},
        "extras": {},
        "failures": {},
    }
    if known is not None:
        _take_over(results, known)
    interrupted = False
    with interruptible() as stop:
        try:
            for name in args.problems or PROBLEMS:
                results["failures"].pop(name, None)
                try:
                    results["problems"][name] = rounds.measure(
                        name,
                        peers=args.peers,
                        methods=args.methods,
                        goal=args.goal,
                        rounds=args.rounds,
                        limit=args.limit,
                        threads=args.threads,
                    )
                except GfsimError as exc:  # a reference that is refused loses its problem only
                    results["failures"][name] = str(exc)
                with stop.held():
                    out.write_json("results.json", results)
                if stop.is_set():
                    raise KeyboardInterrupt
            wanted = [*extras.EXTRAS, "batch"] if args.extras is None else args.extras
            for name in wanted:
                results["extras"][name] = (
                    extras.batch(args.batch_threads, starts=args.starts, limit=5.0 * args.limit)
                    if name == "batch"
                    else extras.measured(name, args.threads)
                )
        except KeyboardInterrupt:
            interrupted = True
        with stop.held():
            results["targets"] = targets.rows(results)
            out.write_json("results.json", results)
    print(ratios(results))
    print()
    print(target_table(results["targets"]))
    print(f"\nresults are in {out.path / 'results.json'}")
    return 130 if interrupted else 0


def _known(path: Path) -> dict[str, Any]:
    try:
        return load(path)
    except (OSError, ValueError) as exc:
        raise InvalidInput(f"--known {path} holds no results ({exc}); give a results.json of an earlier run") from None


def _take_over(results: dict[str, Any], known: dict[str, Any]) -> None:
    """Problems and extras of an earlier run, which are measured again where they are asked for now; ratios are taken
    within a problem, so that they may come from several runs."""
    for name in ("problems", "extras", "failures"):
        results[name].update(known[name])
    before = {name: known.get(name) for name in ("command", "machine", "versions", "rounds", "repeats", "limit")}
    results["before"] = [*known.get("before", []), before]


def machine(threads: int) -> dict[str, Any]:
    """What the numbers were measured on."""
    model = ""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
    except OSError:
        model = platform.processor()
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": threads,
        "load_at_start": list(os.getloadavg()) if hasattr(os, "getloadavg") else [],
        "date": time.strftime("%Y-%m-%d"),
    }


def _peer_versions() -> dict[str, str]:
    found = {}
    for name in ("torchdiffeq", "torchode", "diffrax", "jax", "scikit-sundae"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "absent"
    return found


def ratios(results: dict[str, Any]) -> str:
    """Wall time of every method over that of the best plain scipy method, problem by problem."""
    lines = []
    for name, record in results["problems"].items():
        timed = sorted(
            (row for row in record["timed"] if row["wall"] == row["wall"]), key=lambda row: float(row["wall"])
        )
        base = next((row["wall"] for row in timed if row["library"] == "scipy"), None)
        lines.append(f"{name}  (error <= {record['goal']:g}; over the best plain scipy method)")
        for row in timed:
            over = f"{row['wall'] / base:8.2f}x" if base else "       - "
            compiled = f"  compile {row['compile_seconds']:.3g} s" if row["compile_seconds"] else ""
            lines.append(
                f"  {row['id']:24} {over}  wall {row['wall']:.4g} s  cpu {row['cpu']:.4g} s  "
                f"error {row['error']:.1e}{compiled}"
            )
        lines += [f"  not taking part: {text}" for text in record["skipped"]]
    return "\n".join(lines)


def target_table(rows: list[dict[str, Any]]) -> str:
    word = {True: "met", False: "MISSED", None: "not measured"}
    width = max(len(row["name"]) for row in rows)
    return "\n".join(
        f"{row['name']:{width}}  {row['target']:>12}  {row['measured']:>10.4g}  {word[row['met']]:12}  {row['note']}"
        for row in rows
    )


def load(path: Path) -> dict[str, Any]:
    """A results file, with the strings "nan" and "inf" as numbers again."""

    def number(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: number(entry) for key, entry in value.items()}
        if isinstance(value, list):
            return [number(entry) for entry in value]
        return float(value) if value in ("nan", "inf", "-inf") else value

    found: dict[str, Any] = number(json.loads(path.read_text(encoding="utf-8")))
    return found


if __name__ == "__main__":
    sys.exit(main())
