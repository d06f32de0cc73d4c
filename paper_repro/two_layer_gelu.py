"""Figure 12 of [BEYOND]: a two-layer GELU net from a small start to its first saddle.

GELU is not homogeneous: after the escape the sparsity increases.
The authors' sizes and recipe; their data, start and step are not known.
"""

from __future__ import annotations

from paper_repro.figure import Context, Outcome
from paper_repro.origin import Recipe, sparsity_increases

RECIPE = Recipe(
    activation="gelu",
    hidden=(50,),
    teacher=(2,),
    reduction="mean",
    scale=1e-4,
    step=1e-2,
    iterations=10_000,
    data_seed=2,
    smaller=10.0,
    longer=2,
)


def run(ctx: Context) -> Outcome:
    return RECIPE.outcome(ctx, sparsity_increases)
