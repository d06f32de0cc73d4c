"""Neuron Pursuit against other ways to fit a function: ``make bench-pursuit``, or ``python -m benchmarks.pursuit --help``.

    tasks, tables   what is to be learned: functions with a known answer, and real tables
    method          what a method must deliver; the clock, CPU seconds with one limit for all
    growing         Neuron Pursuit and its ablations
    fixed_width     gradient descent, Adam, Levenberg-Marquardt on networks of fixed width
    scikit, boosting, gromo_peer    other packages
    cells           one fit, one file
    run             the loop over tasks, methods and seeds
    summary, page   docs/pursuit_comparison.md and its plots, from the files alone
"""
