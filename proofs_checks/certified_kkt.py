"""KKT points of the neural correlation function, proved in interval arithmetic.

Hypotheses.  N the NCF at the origin of a net with polynomial activation (z^2, linear), or max(z, alpha z)^p off its
kinks, or the one-neuron NCF; float64 data, taken exactly; a KKT point u* on the unit sphere with a second-order gap.

Conclusion.  Near the point that the library finds there is one exact KKT point, and only one; the sign of N(u*) and the
size of the gap Delta are what the library says.  For one neuron with s(z) = z^2, N = 2 m_1/(3 sqrt 3) and
Delta = (2/sqrt 3) min(m_1 - m_2, 2 m_1), with m_1 > m_2 >= ... the eigenvalues of sum_i G_i x_i x_i'.

Source.  [BEYOND], section 2, for the definitions; existence and uniqueness by Krawczyk's test (gfsim/rigor).

Control.  Certificates that claim something else are refused: a centre out of the ball, a radius too small or too large,
the other sign, another gap, other data.  Each carries a fitting digest, so that it is the mathematics that refuses.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from gfsim.errors import CertificateRefused, NotCertified
from gfsim.models.feedforward import FeedForward
from gfsim.models.linear import DiagonalLinear
from gfsim.ncf.kkt import KKTPoint
from gfsim.ncf.neuron import NeuronNCF, neuron_ncfs
from gfsim.ncf.neuron import maximise as maximise_neuron
from gfsim.ncf.origin import OriginNCF, maximise
from gfsim.objective import Objective
from gfsim.rigor.certificate import digest
from gfsim.rigor.certify import Certificate, certify_kkt
from gfsim.rigor.verify import Report, verify
from proofs_checks.instances import random_objective
from proofs_checks.statement import Context, Ledger

NETS = (
    ((3, 2, 1), "square", 2, "square"),
    ((3, 2, 2, 1), "square", 2, "square"),
    ((3, 1, 2), "relu", 2, "square"),
    ((3, 1, 1, 1), "relu", 2, "square"),
    ((3, 1, 2), "leaky", 3, "logistic"),
    ((3, 1, 2), "linear", 1, "logistic"),
)

ISOLATED = 1e-3
"""Points whose gap is a smaller share of N are left out: how near to a tie they are is a matter of the draw."""

FLOAT = 1e-9
"""How far the library's float64 numbers may be off, relative to K N: rounding, over gaps of ISOLATED."""


def check(ctx: Context, ledger: Ledger) -> None:
    lost, widths, values, gaps, places, apart = [], [], [], [], [], []
    proved: list[Certificate] = []
    for rng in ctx.draws("points", 2):
        for ncf, point in instances(rng):
            made = attempt(lambda ncf=ncf, point=point: certify_kkt(ncf, point.u))  # type: ignore[misc]
            lost.append(float(made is None))
            if made is None:
                continue
            certificate, report = made
            proved.append(certificate)
            scale = ncf.degree * abs(point.value)
            (low, high), value = report.gaps[0], report.values[0]
            widths.append((high - low) / scale)
            values.append(outside(point.value, value) / abs(point.value))
            gaps.append(outside(point.gap, (low, high)) / scale)
            places.append(float(np.abs(point.u - centre(certificate["kkt"][0])).max()))
            apart.append(float(certificate_ratio(certificate["kkt"][0])))
    ledger.at_most("KKT points without an accepted certificate", lost, 0.0, "a count")
    ledger.at_most("width of the interval of Delta, over K N", widths, 1e-6, "centre and radius are float64")
    ledger.at_most("the library's N outside its interval, relative", values, FLOAT, "rounding of the library")
    ledger.at_most("the library's Delta outside its interval, over K N", gaps, FLOAT, "rounding of the library")
    ledger.at_most("the library's u from the certified centre", places, 1e-8, "Newton's method; gaps of 1e-3 at least")
    ledger.at_least("radius of uniqueness over radius of existence", apart, 1e3, "ours: a ball one can search")
    _closed_forms(ctx, ledger)
    for broken, tampered in TAMPERED.items():
        refused = [float(rejected(tampered(copy.deepcopy(c)))) for c in proved]
        ledger.control("certificates refused", refused, 0.0, broken)


def instances(rng: np.random.Generator) -> Iterator[tuple[OriginNCF | NeuronNCF, KKTPoint]]:
    """NCFs with the best KKT point that is isolated; at the origin and of one neuron."""
    for widths, name, p, loss in NETS:
        ncf = OriginNCF(random_objective(FeedForward(widths, name, p=p), rng, loss=loss))
        yield from ((ncf, point) for point in _isolated(maximise(ncf, starts=12, rng=rng, keep=3)))
    for name, layers in (("square", 2), ("relu", 1)):  # in layer 2, ReLU's inputs lie on axes, and maxima on kinks
        model = FeedForward((3, 2, 2, 1), name, p=2)
        objective = random_objective(model, rng)
        for one in neuron_ncfs(objective, rng.standard_normal(model.n_params))[:layers]:
            yield from ((one, point) for point in _isolated(maximise_neuron(one, starts=12, rng=rng)))


def _isolated(points: list[KKTPoint]) -> list[KKTPoint]:
    return [point for point in points if point.gap > ISOLATED * point.value][:1]


def attempt(make: Callable[[], Certificate]) -> tuple[Certificate, Report] | None:
    """A certificate with what the checker says of it; None if there is none."""
    try:
        certificate = make()
        return certificate, verify(certificate)
    except (NotCertified, CertificateRefused):
        return None


def outside(x: float, interval: tuple[float, float]) -> float:
    """The distance of x from the interval."""
    return max(interval[0] - x, x - interval[1], 0.0)


def centre(part: dict[str, Any]) -> np.ndarray:
    return np.array([float.fromhex(x) for x in part["centre"]])


def certificate_ratio(part: dict[str, Any]) -> float:
    return float.fromhex(part["unique_radius"]) / float.fromhex(part["radius"])


def _closed_forms(ctx: Context, ledger: Ledger) -> None:
    import mpmath  # type: ignore[import-untyped]

    toy = OriginNCF(Objective(DiagonalLinear(2, 2, tied=True), np.eye(2), np.array([4.0, 1.0])))
    report = verify(certify_kkt(toy, np.array([1.0, 1e-9])))
    misses = [outside(8.0, report.values[0]), outside(12.0, report.gaps[0])]
    ledger.at_most("w* = (1, 0): N* = 8 and Delta = 2 N* - 4 outside their intervals", misses, 0.0, "a closed form")
    misses = []
    for rng in ctx.draws("eigenvalues", 3):
        X, G = rng.standard_normal((6, 3)), rng.standard_normal((6, 1))
        ncf = OriginNCF(Objective(FeedForward((3, 1, 1), "square"), X, 0.5 * G))
        found = maximise(ncf, starts=12, rng=rng, keep=1)[0]
        report = verify(certify_kkt(ncf, found.u))
        with mpmath.workdps(50):
            M = mpmath.matrix(3, 3)
            for x, g in zip(X.tolist(), G[:, 0].tolist(), strict=True):
                v = mpmath.matrix(x)
                M += mpmath.mpf(g) * v * v.T
            m = sorted(mpmath.eigsy(M, eigvals_only=True))
            if abs(m[0]) > abs(m[-1]):  # the outgoing weight is negative then
                m = [-e for e in reversed(m)]
            value, gap = 2 * m[-1] / (3 * mpmath.sqrt(3)), 2 / mpmath.sqrt(3) * min(m[-1] - m[-2], 2 * m[-1])
            for number, (low, high) in ((value, report.values[0]), (gap, report.gaps[0])):
                misses.append(float(max(low - number, number - high, 0)))
    ledger.at_most("one z^2 neuron: eigenvalues (50 digits) outside the intervals", misses, 0.0, "a closed form")


# -- certificates that must be refused ------------------------------------------------------------------


def rejected(certificate: Certificate) -> bool:
    certificate["sha256"] = digest(certificate)
    try:
        verify(certificate)
    except CertificateRefused:
        return True
    return False


def _move(part: dict[str, Any]) -> None:
    """The centre off by twice the radius of uniqueness in its largest coordinate."""
    k = int(np.abs(centre(part)).argmax())
    part["centre"][k] = (centre(part)[k] + 2.0 * float.fromhex(part["unique_radius"])).hex()


def _moved(certificate: Certificate) -> Certificate:
    _move(certificate["kkt"][0])
    return certificate


def _shrunk(certificate: Certificate) -> Certificate:
    part = certificate["kkt"][0]
    part["radius"] = (2.0**-200).hex()
    return certificate


def _widened(certificate: Certificate) -> Certificate:
    certificate["kkt"][0]["unique_radius"] = (2.0).hex()  # it holds the opposite point, too
    return certificate


def _turned(certificate: Certificate) -> Certificate:
    part = certificate["kkt"][0]
    part["sign"] = {"positive": "negative", "negative": "positive"}[part["sign"]]
    return certificate


def _raised(certificate: Certificate) -> Certificate:
    part = certificate["kkt"][0]
    low, high = (float.fromhex(x) for x in part["gap"])
    part["gap"] = [(low + 3 * (high - low)).hex(), (high + 3 * (high - low)).hex()]
    return certificate


def scale_data(certificate: Certificate) -> Certificate:
    """Labels (of a neuron: its pull; of a logistic loss, whose labels are signs: the inputs) longer by 1e-3."""
    problem = certificate["problem"]
    key = "pull" if "pull" in problem else "y" if problem["loss"] == "square" else "X"
    problem[key] = [[(float.fromhex(x) * 1.001).hex() for x in row] for row in problem[key]]
    return certificate


TAMPERED: dict[str, Callable[[Certificate], Certificate]] = {
    "the centre is moved out of the ball": _moved,
    "the radius is too small for the centre's error": _shrunk,
    "uniqueness is claimed in a ball with two points": _widened,
    "the other sign is claimed": _turned,
    "another gap is claimed": _raised,
    "the data are scaled by 1.001": scale_data,
}
