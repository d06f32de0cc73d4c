"""Figure 9 of [BEYOND]: a two-layer tanh net from a small start to its first saddle.

tanh is not homogeneous but linear at zero: the sparsity with which the net leaves the origin is preserved.
The authors' sizes and recipe; their data, start and step are not known.
"""

from __future__ import annotations

from paper_repro.figure import Context, Outcome
from paper_repro.origin import Recipe, sparsity_preserved

RECIPE = Recipe(
    activation="tanh",
    hidden=(50,),
    teacher=(2,),
    reduction="mean",
    scale=1e-4,
    step=4e-3,
    iterations=10_000,
    data_seed=1,
    smaller=10.0,
    longer=2,
)


def run(ctx: Context) -> Outcome:
    return RECIPE.outcome(ctx, sparsity_preserved)
