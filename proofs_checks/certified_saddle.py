"""Sparse saddles and the inertia of their Hessian, proved in interval arithmetic.

Hypotheses.  A net with polynomial activation, or max(z, alpha z)^p off its kinks; float64 data, taken exactly; a set of
active neurons whose loss has a critical point that is isolated but for the rescalings of its neurons.

Conclusion.  Near the point that the library finds there is one exact balanced critical point of the active net's loss,
and only one; its Hessian has a zero eigenvalue for each active neuron and no other; the wide net's has |w_z| further
ones for K = p + 1 > 2, and for linear nets (K = 2) those that stationarity explains.  No negative eigenvalue of the
active Hessian, and a KKT point with N(u*) > 0 on w_z, make it a sparse saddle.

Source.  [NP], section 3, in our reading; docs/theory.md, section 4.  Krawczyk's test and Sylvester's law (gfsim/rigor).

Control.  Certificates with another centre, curvature, inertia or other data are refused; a minimum that lies on a
larger continuum (two z^2 neurons into one output) has none; an active part that is no minimum is told.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np

from gfsim.errors import SaddleNotFound
from gfsim.models.feedforward import FeedForward
from gfsim.ncf.saddle import SaddleNCF
from gfsim.objective import Objective
from gfsim.rigor.certify import Certificate, certify_saddle
from gfsim.saddles.certificate import certify
from gfsim.saddles.find import find_saddle
from gfsim.saddles.saddle import SparseSaddle
from proofs_checks.certified_kkt import attempt, centre, certificate_ratio, outside, rejected, scale_data
from proofs_checks.instances import Search
from proofs_checks.saddle_starts import coordinate_saddle
from proofs_checks.statement import Context, Ledger

Case = tuple[tuple[int, ...], tuple[int, ...], str, int, str]

CASES: tuple[Case, ...] = (
    # widths, active, activation, p, loss
    ((3, 3, 1), (1,), "square", 2, "square"),
    ((3, 3, 3, 1), (1, 1), "square", 2, "square"),
    ((3, 3, 1), (1,), "square", 2, "logistic"),
    ((3, 3, 1), (1,), "relu", 2, "square"),
    ((3, 3, 2), (1,), "linear", 1, "square"),
)
TWO_NEURONS: Case = ((3, 3, 2), (2,), "square", 2, "square")
"""In the long form only: minima of two neurons take seconds to find."""

CURVED = 1e-3
"""Minima whose smallest nonzero curvature is a smaller share of the largest are drawn again."""


def check(ctx: Context, ledger: Ledger) -> None:
    lost, ways, inertias, places, apart, curvatures = [], [], [], [], [], []
    proved: list[Certificate] = []
    for rng in ctx.draws("saddles", 2, 8):
        for case in (*CASES, TWO_NEURONS) if ctx.full else CASES:
            saddle = draw(case, rng)
            escapes = SaddleNCF(saddle).neuron_maxima(starts=12, rng=rng)[:1]
            made = attempt(lambda saddle=saddle, escapes=escapes: certify_saddle(saddle, escapes))  # type: ignore[misc]
            lost.append(float(made is None))
            if made is None:
                continue
            certificate, report = made
            proved.append(certificate)
            part = certificate["saddle"]
            ways.append(float("positive" not in report.signs))
            inertias.append(float(report.inertia != certify(saddle, rng=rng, starts=2).inertia))
            places.append(float(np.abs(saddle.w_n - centre(part)).max()))
            apart.append(certificate_ratio(part))
            low, high = (float.fromhex(x) for x in part["curvature"])
            e = np.linalg.eigvalsh(saddle.active_objective.hessian(saddle.w_n))
            curvatures.append(outside(float(e[sum(saddle.active.widths)]), (low, high)) / float(e[-1]))
    ledger.at_most("saddles without an accepted certificate", lost, 0.0, "a count")
    ledger.at_most("saddles without a proved way out", ways, 0.0, "a count")
    ledger.at_most("inertias that differ from the library's", inertias, 0.0, "a count")
    ledger.at_most("the library's w_n from the certified centre", places, 1e-8, "Newton's method; curvatures of 1e-3")
    why = "rounding of the library's Hessian"
    ledger.at_most("the library's least curvature outside its interval, over the largest", curvatures, 1e-9, why)
    ledger.at_least("radius of uniqueness over radius of existence", apart, 1e3, "ours: a ball one can search")
    for broken, tampered in TAMPERED.items():
        refused = [float(rejected(tampered(copy.deepcopy(c)))) for c in proved]
        ledger.control("certificates refused", refused, 0.0, broken)
    _continuum(ctx, ledger)
    _no_minimum(ctx, ledger)


def draw(case: Case, rng: np.random.Generator) -> SparseSaddle:
    """A saddle of the case on a wider teacher's labels, curved enough off the balances, with a way out to be seen."""
    widths, active, name, p, loss = case
    model = FeedForward(widths, name, p=p)
    search = Search("a saddle that is curved off its balances")
    while True:
        search.draw()
        X = rng.standard_normal((10, widths[0]))
        teacher = FeedForward((widths[0], *[3] * (len(widths) - 2), widths[-1]), name, p=p)
        y = teacher.forward(rng.standard_normal(teacher.n_params), X)
        y = np.sign(y * rng.choice([-1, 1, 1], size=y.shape)) if loss == "logistic" else y / np.sqrt(np.mean(y**2))
        if loss == "logistic" and abs(y.sum()) == y.size:
            continue
        try:
            objective = Objective(model, X, y, loss=loss, reduction="mean")
            saddle = find_saddle(objective, active, rng=rng, starts=4)
        except SaddleNotFound:
            continue
        e = np.linalg.eigvalsh(saddle.active_objective.hessian(saddle.w_n))
        if saddle.loss > 1e-3 and e[sum(active)] > CURVED * e[-1]:
            return saddle


def _continuum(ctx: Context, ledger: Ledger) -> None:
    """Two z^2 neurons into one output: sum_j b_j (a_j.x)^2 is a quadratic form, which also rotations leave alone."""
    refused = []
    for rng in ctx.draws("continuum", 2, 4):
        X = rng.standard_normal((10, 3))
        o = Objective(FeedForward((3, 3, 1), "square"), X, rng.standard_normal(10), reduction="mean")
        search = Search("a saddle of a continuum")
        while True:
            search.draw()
            try:
                saddle = find_saddle(o, (2,), rng=rng, starts=6)
                break
            except SaddleNotFound:
                continue
        refused.append(float(attempt(lambda saddle=saddle: certify_saddle(saddle)) is None))  # type: ignore[misc]
    ledger.control("saddles without an accepted certificate", refused, 0.0, "a continuum beyond the balances")


def _no_minimum(ctx: Context, ledger: Ledger) -> None:
    negatives = []
    for rng in ctx.draws("no minimum", 2):
        saddle = coordinate_saddle((float(rng.uniform(0.5, 1.5)), float(rng.uniform(0.5, 1.5))))
        made = attempt(lambda saddle=saddle: certify_saddle(saddle))  # type: ignore[misc]
        negatives.append(0.0 if made is None else float(made[0]["saddle"]["active_inertia"][0]))
    ledger.control("certified negative eigenvalues of the active Hessian", negatives, 0.0, "wbar_n is no minimum")


def _moved(certificate: Certificate) -> Certificate:
    part = certificate["saddle"]
    k = int(np.abs(centre(part)).argmax())
    part["centre"][k] = (centre(part)[k] + 2.0 * float.fromhex(part["unique_radius"])).hex()
    return certificate


def _curvature(certificate: Certificate) -> Certificate:
    part = certificate["saddle"]
    low, high = (float.fromhex(x) for x in part["curvature"])
    part["curvature"] = [(low + 3 * (high - low)).hex(), (high + 3 * (high - low)).hex()]
    return certificate


def _negative(certificate: Certificate) -> Certificate:
    """One eigenvalue more below zero, one less above, in both inertias."""
    for key in ("active_inertia", "inertia"):
        below, flat, above = certificate["saddle"][key]
        certificate["saddle"][key] = [below + 1, flat, above - 1]
    return certificate


TAMPERED: dict[str, Callable[[Certificate], Certificate]] = {
    "the centre is moved out of the ball": _moved,
    "another curvature is claimed": _curvature,
    "a negative eigenvalue is claimed": _negative,
    "the data are scaled by 1.001": scale_data,
}
