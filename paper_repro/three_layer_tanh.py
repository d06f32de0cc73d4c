"""Figure 10 of [BEYOND]: a three-layer tanh net from a small start to its first saddle.

tanh is not homogeneous but linear at zero: the sparsity with which the net leaves the origin is preserved.
The authors' sizes and recipe; their data, start and step are not known.
"""

from __future__ import annotations

from paper_repro.figure import Context, Outcome
from paper_repro.origin import Recipe, sparsity_preserved

RECIPE = Recipe(
    activation="tanh",
    hidden=(20, 30),
    teacher=(2, 2),
    reduction="sum",
    scale=5e-3,
    step=5e-4,
    iterations=44_000,
    data_seed=1,
    smaller=2.0,
    longer=2,
)


def run(ctx: Context) -> Outcome:
    return RECIPE.outcome(ctx, sparsity_preserved)
