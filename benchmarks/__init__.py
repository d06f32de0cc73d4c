"""Benchmarks of gfsim against other packages: ``make bench``, or ``python -m benchmarks.run --help``.

    run       the whole of it: sweeps, interleaved rounds, extras, targets; writes results.json
    rounds    one problem: find the setting that reaches the goal, then time it in interleaved rounds
    extras    what the suite does not hold: imports, overhead of a step, batches, a net of a million weights
    batch     many starts at once, one process a library
    targets   what is asked for, and whether it is met
    page      docs/benchmarks.md and its plots, from results.json alone

Times are medians on whatever machine runs them; only ratios within one run mean anything.
"""
