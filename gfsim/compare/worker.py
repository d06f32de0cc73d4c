"""The process of one library: reads requests as JSON lines on standard input, answers with runs.

    python -m gfsim.compare.worker LIBRARY PROBLEM.pickle

The pickle is written by the parent, which is the same program (:mod:`gfsim.compare.peers`).  One library a process,
because JAX and torch fight over threads and a crash of one must not take the others along.
"""

from __future__ import annotations

import importlib
import json
import os
import pickle
import sys
from typing import IO, Any

from gfsim.compare.adapters import Session, Unsupported
from gfsim.compare.measure import Run, execute
from gfsim.compare.methods import choose
from gfsim.compare.peers import OWN, adapter_name
from gfsim.compare.problems import Problem
from gfsim.compare.reference import Reference
from gfsim.jsonable import to_jsonable

Answer = dict[str, Any]


def serve(library: str, path: str, requests: IO[str], answers: IO[str]) -> None:
    """Answer every request line until the input ends."""
    with open(path, "rb") as handle:
        problem, reference = pickle.load(handle)
    session: Session | None = None
    refusal = ""
    methods: dict[str, bool] = {}
    if library == OWN:
        methods = {m.id: m.fixed for m in choose(())}
    else:
        try:
            adapter = importlib.import_module(f"gfsim.compare.adapters.{adapter_name(library)}")
            methods = dict(adapter.METHODS)
            session = adapter.prepare(problem)
        except Unsupported as exc:
            refusal = str(exc)
        except Exception as exc:
            refusal = f"{type(exc).__name__}: {' '.join(str(exc).split())[:200]}"
    _say(answers, {"methods": methods, "refusal": refusal})
    for line in requests:
        request = json.loads(line)
        if library == OWN:
            run = _own(problem, reference, request)
        elif session is not None:
            run = _peer(library, session, methods, problem, reference, request)
        else:
            break
        _say(answers, {"run": run.to_json()})


def _own(problem: Problem, reference: Reference, request: Answer) -> Run:
    method = choose([request["method"]])[0]
    return method.run(problem, reference, request["setting"], limit=request["limit"])


def _peer(
    library: str, session: Session, methods: dict[str, bool], problem: Problem, reference: Reference, request: Answer
) -> Run:
    method, setting, limit = request["method"], float(request["setting"]), float(request["limit"])
    run = Run(library, method, "t", setting, methods[method])
    # compilation does not count against the limit, and what cannot be stopped from within the parent stops
    return execute(
        problem,
        reference,
        run,
        lambda _: session.solve(method, setting, reference, limit),
        limit=limit,
        alarm=False,
    )


def _say(answers: IO[str], content: Answer) -> None:
    answers.write(json.dumps(to_jsonable(content)) + "\n")
    answers.flush()


def main() -> None:
    library, path = sys.argv[1:3]
    # libraries print to standard output as they like; the answers have a channel of their own
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    serve(library, path, sys.stdin, channel)


if __name__ == "__main__":
    main()
