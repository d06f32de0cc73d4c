"""Figure 6 of [BEYOND]: a three-layer ReLU net from the authors' start to its first saddle.

Their arrays (100 inputs of dimension 20, 20 and 30 hidden units, weights of norm 0.01, labels times 10), their SUM of
squares, and their descent: 200,000 iterations with step 1e-4.
"""

from __future__ import annotations

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

PRINTED_LOSSES = {0: 191.11114, 180_000: 191.10982}
SNAPSHOTS = (183_510, 189_510)
"""The authors' own."""


def training(ctx: Context) -> Training:
    objective, w0 = authors(ctx, "three_layer_relu", "relu", "sum")
    return Training(objective, w0, step=1e-4, iterations=200_000, printed=PRINTED_LOSSES, snapshots=SNAPSHOTS)


def run(ctx: Context) -> Outcome:
    done = train(ctx, training(ctx))
    numbers = measure(done)
    return Outcome(
        figure=draw(ctx, done),
        claims=[
            *printed_claims(numbers, half_digit=5e-6, flow_rtol=1e-6),
            *accuracy_claims(numbers),
            *small_stay_small(numbers),
        ],
        numbers=numbers,
        caption=caption(
            done,
            numbers,
            "A 20-20-30-1 ReLU net on the authors' data (100 inputs, labels times 10), SUM of squared errors, from "
            "their start of norm 0.01.",
        ),
        convention="sum",
    )
