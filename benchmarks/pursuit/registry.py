"""All methods, in the order of the page."""

from __future__ import annotations

from benchmarks.pursuit import boosting, fixed_width, gromo_peer, growing, scikit
from benchmarks.pursuit.method import Method
from benchmarks.pursuit.tasks import Task


def all_methods() -> dict[str, Method]:
    """Every method by name."""
    found: list[Method] = [
        *growing.variants(),
        *fixed_width.methods(),
        *scikit.methods(),
        *boosting.methods(),
        *gromo_peer.methods(),
    ]
    return {method.name: method for method in found}


ABLATIONS = (
    "np-random",
    "np-no-paths",
    "np-no-ascent",
    "np-no-retreat",
    "np-no-restart",
    "np-no-trials",
    "np-random-no-trials",
    "np-no-paths-no-trials",
)
"""Neuron Pursuit with a part taken away."""

OURS = ("np", "np-mean", *ABLATIONS, "np-paper")
"""Neuron Pursuit in all its variants."""

SLOW = ("np-paper", "gd", "adam", "lm", "gromo-tiny", "gromo-gradmax")
"""Methods that take seconds a fit: the first ``--slow-seeds`` seeds only."""

NEURAL = ("gd", "adam", "lm", "mlp-adam", "mlp-lbfgs", "gromo-tiny", "gromo-gradmax")
"""The baselines among which the best neural one is looked for."""


def belongs(method: Method, task: Task) -> bool:
    """Whether a method is meant for a task: parts of Neuron Pursuit are compared on functions with a known answer, and
    at d = 30 only what has a chance at least at d = 15."""
    if method.name == "np-mean":  # without noise it is np
        return task.group in ("noise", "real")
    if method.name in ABLATIONS:
        return task.group in ("example", "core", "d30", "noise")
    if task.group == "d30":
        return method.name in ("np", "lm", "mlp-lbfgs", "linear")
    return True


def every_seed(method: Method, task: Task) -> bool:
    """Whether a method is fitted to all seeds of a task, or to the first few."""
    if method.name in ("lightgbm", "xgboost"):
        return task.group == "real"
    if task.group == "d30":
        return method.name in ("np", "np-no-trials")
    return method.name not in SLOW
