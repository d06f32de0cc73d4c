"""Figure 5 of [BEYOND]: a two-layer ReLU net from the authors' start to its first saddle.

Their arrays (100 inputs of dimension 20, 50 hidden units, weights of scale 5e-5), their mean square loss, and their
descent with step 2e-4, 300,000 iterations (220,000 in the quick form, which ends on the same plateau).  Degree 2 and
no smoothness: several neurons escape together, each keeping its share, because all those that are alive on the same
inputs grow at one rate; the small ones stay small.
"""

from __future__ import annotations

from paper_repro.claims import PRINTED, Claim
from paper_repro.figure import Context, Outcome
from paper_repro.origin import (
    Training,
    accuracy_claims,
    authors,
    caption,
    draw,
    measure,
    printed_claims,
    small_stay_small,
    train,
)

PRINTED_LOSSES = {0: 1.99954}
SNAPSHOTS = (90_000, 200_000)
"""The authors' own."""


def training(ctx: Context) -> Training:
    objective, w0 = authors(ctx, "two_layer_relu", "relu", "mean")
    iterations = 300_000 if ctx.full else 220_000
    return Training(objective, w0, step=2e-4, iterations=iterations, printed=PRINTED_LOSSES, snapshots=SNAPSHOTS)


def run(ctx: Context) -> Outcome:
    done = train(ctx, training(ctx))
    numbers = measure(done)
    large = [sum(size >= 0.1 for size in numbers[key][0]) for key in ("sizes_before", "sizes_at_saddle")]
    numbers["large_neurons"] = large
    claims = [
        *printed_claims(numbers, half_digit=5e-6, flow_rtol=1e-5),
        *accuracy_claims(numbers),
        Claim.at_least(
            "neurons of at least a tenth of the largest at the authors' snapshots (several rows of W1)",
            large,
            2,
            of="large_neurons",
            source=PRINTED,
        ),
        *small_stay_small(numbers),
    ]
    return Outcome(
        figure=draw(ctx, done),
        claims=claims,
        numbers=numbers,
        caption=caption(
            done,
            numbers,
            "A 20-50-1 ReLU net on the authors' data (100 inputs), MEAN square loss, from their start of norm 5e-5.",
        ),
        convention="mean",
    )
