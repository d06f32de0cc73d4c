"""Compare integrators on gradient flows: error against cost, at equal loss or equal size, never at equal time.

Two runs of the same flow that differ by a thousandth in TIME can be far apart in state while a saddle is being
left, though both trace the same curve.  So every problem of the suite says where along the curve it is looked
at (:mod:`gfsim.compare.section`), and a state is compared with the reference solution at its own place on it.

    section     places along a flow: a loss level, or the size of a block of weights
    problems    the suite: a start, a flow, places to look at, all reproducible from a seed
    reference   two independent accurate solutions, cross-checked, cached
    measure     the error of a run, its cost, its failure in words, its time limit
    methods     plain scipy in physical time, everything that ``gfsim.simulate`` knows, gradient descent
    peers       other packages, each in a process of its own
    runner      sweeps of the tolerance, kept as far as they got
    advice      which method to use, in words, from the measurements
    report, plots   tables, JSON, work-precision diagrams

    from gfsim.compare import compare, problem
    result = compare(problem("saddle-relu2-1e-2"), rtols=(1e-3, 1e-6))
    print(result.table(), result.advice())
"""

from __future__ import annotations

from gfsim.compare.problems import Problem, problem
from gfsim.compare.reference import Reference, reference_for
from gfsim.compare.runner import Comparison, compare

__all__ = ["Comparison", "Problem", "Reference", "compare", "problem", "reference_for"]
