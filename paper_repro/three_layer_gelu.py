"""Figure 13 of [BEYOND]: a three-layer GELU net from a small start to its first saddle.

GELU is not homogeneous: after the escape the sparsity increases.
The authors' sizes and recipe; their data, start and step are not known.
"""

from __future__ import annotations

from paper_repro.figure import Context, Outcome
from paper_repro.origin import Recipe, sparsity_increases

RECIPE = Recipe(
    activation="gelu",
    hidden=(20, 30),
    teacher=(2, 2),
    reduction="sum",
    scale=2e-2,
    step=1e-3,
    iterations=34_000,
    data_seed=2,
    smaller=2.0,
    longer=2,
)


def run(ctx: Context) -> Outcome:
    return RECIPE.outcome(ctx, sparsity_increases)
