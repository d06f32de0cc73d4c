"""Neuron Pursuit against other ways to fit a function: ``make bench-pursuit``.

``python -m benchmarks.pursuit --help`` says how to run a part of it.

    tasks, tables   what is to be learned: functions with a known answer, and real tables
    method          what a method must deliver; the clock, CPU seconds with one limit for all
    growing         Neuron Pursuit and its ablations
    fixed_width     gradient descent, Adam, Levenberg-Marquardt on networks of fixed width
    scikit, boosting, gromo_peer    other packages
    registry        all methods, and which of them are fitted to what
    run, cells      the loop over tasks, methods and seeds; one fit, one file
    results         all cells and the conditions of the run, as one file
    summary         medians, intervals, pairs of methods
    claims, losses  what holds, and where others do better, found by rule
    page, plots     docs/pursuit_comparison.md and its pictures, from the results alone
    scale           apart from the comparison: seconds and memory against the number of samples
"""
