"""Figure 7 of [BEYOND]: a four-layer ReLU net, labels of a smaller one, from a small start to its first saddle.

The authors' sizes and recipe; their data, start and step are not known.
"""

from __future__ import annotations

from paper_repro.figure import Context, Outcome
from paper_repro.origin import Recipe, shares_stay

RECIPE = Recipe(
    activation="relu",
    hidden=(20, 20, 20),
    teacher=(3, 3, 3),
    reduction="sum",
    scale=0.3,
    step=5e-4,
    iterations=40_000,
    data_seed=21,
    smaller=2.0,
    longer=4,
    coarse=1,
)


def run(ctx: Context) -> Outcome:
    return RECIPE.outcome(ctx, shares_stay)
