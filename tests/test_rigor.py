"""Certificates: the checker against independent oracles, and everything that it must refuse."""

from __future__ import annotations

import ast
import copy
import functools
import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import flint
import mpmath
import numpy as np
import pytest
from flint import arb, arb_mat
from hypothesis import given
from hypothesis import strategies as st

import gfsim.rigor
import proofs_checks.registry as registry
from gfsim.cli import main
from gfsim.cli.config import EXAMPLE
from gfsim.errors import CertificateRefused, InvalidInput, MissingExtra, NotCertified
from gfsim.models.feedforward import FeedForward
from gfsim.models.linear import DiagonalLinear, deep_linear
from gfsim.ncf.neuron import NeuronNCF
from gfsim.ncf.origin import OriginNCF, maximise
from gfsim.ncf.saddle import SaddleNCF
from gfsim.objective import Objective
from gfsim.rigor import enclosure
from gfsim.rigor.ball import Undecided, ball, krawczyk, lifted, signature
from gfsim.rigor.certificate import digest
from gfsim.rigor.certify import certify_kkt, certify_saddle
from gfsim.rigor.systems import KKTSystem, SaddleSystem, prove_zero
from gfsim.rigor.verify import verify
from gfsim.saddles.certificate import certify
from gfsim.saddles.find import find_saddle
from gfsim.saddles.saddle import SparseSaddle, origin
from proofs_checks.certified_saddle import CASES, TWO_NEURONS, draw
from proofs_checks.near_saddle import coordinate_saddle
from proofs_checks.statement import Context

CHECKER = ("ball", "enclosure", "systems", "certificate", "verify")
FOLDER = Path(gfsim.rigor.__file__).parent


def number(text: str) -> float:
    return float.fromhex(text)


def signed(certificate: dict[str, Any]) -> dict[str, Any]:
    """With a digest that fits, so that only the mathematics can refuse."""
    certificate["sha256"] = digest(certificate)
    return certificate


def refused(certificate: Any) -> str:
    with pytest.raises(CertificateRefused) as caught:
        verify(certificate)
    return str(caught.value)


# -- the two tests --------------------------------------------------------------------------------------


def root(c: float, r: float) -> None:
    """Krawczyk on x^2 - 2 = 0."""
    krawczyk(arb_mat(1, 1, [arb(c) * arb(c) - 2]), arb_mat(1, 1, [2 * ball(c, r)]), [r])


def test_krawczyk_finds_one_zero_and_refuses_none_or_two() -> None:
    root(1.414, 1e-3)
    root(1.4, 0.2)
    for c, r in ((1.5, 0.01), (1.414, 1e-6), (0.1, 3.0), (1.414, 1.5)):  # none; none; two; a singular derivative
        with pytest.raises(Undecided):
            root(c, r)


def test_krawczyk_needs_the_interior() -> None:
    """f = x with the zero on the border of the box: -Y f(c) reaches the border exactly."""
    with pytest.raises(Undecided):
        krawczyk(arb_mat(1, 1, [arb(0.5)]), arb_mat(1, 1, [arb(1)]), [0.5])


@given(st.integers(1, 6), st.integers(0, 10_000))
def test_signature_counts_the_signs_of_eigenvalues(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((n, n))
    A = A + A.T
    e = np.linalg.eigvalsh(A)
    assert signature(lifted(A)) == (int((e < 0).sum()), int((e > 0).sum()))
    # all matrices within a radius larger than the least eigenvalue: one of them is singular
    noise = float(np.abs(e).min()) * 1.01
    wide = arb_mat(n, n, [ball(A[i, j], noise if i == j else 0.0) for i in range(n) for j in range(n)])
    with pytest.raises(Undecided):
        signature(wide)


def test_signature_refuses_a_singular_matrix_and_what_is_not_finite() -> None:
    for M in (np.zeros((2, 2)), np.array([[1.0, 1.0], [1.0, 1.0]]), np.array([[np.nan]])):
        with pytest.raises(Undecided):
            signature(lifted(M))
    # the midpoint is the identity, but ((1, 2), (2, 1)) is enclosed, too
    with pytest.raises(Undecided):
        signature(arb_mat(2, 2, [arb(1), ball(0.0, 2.0), ball(0.0, 2.0), arb(1)]))


def test_the_multiplier_must_have_room_for_the_box_of_u() -> None:
    """A KKT point in u's box whose lambda = K N(u) lies outside lambda's would escape the count."""
    system = KKTSystem(
        lambda u: enclosure.diagonal_correlation(
            enclosure.Loss("square", arb(1)), 2, u, [[1.0, 0.0], [0.0, 1.0]], [[4.0], [1.0]]
        ),
        2,
    )
    prove_zero(system, [1.0, 0.0, 16.0], [0.01, 0.01, 0.5])
    with pytest.raises(Undecided, match="multiplier may leave"):  # although Krawczyk's test passes
        prove_zero(system, [1.0, 0.0, 16.0], [0.01, 0.01, 0.05])


@pytest.mark.parametrize(("widths", "p"), [((2, 2, 2), 2), ((2, 2, 1, 1), 3), ((2, 1, 1), 1)], ids=str)
def test_the_loss_does_not_change_along_the_generators(widths: tuple[int, ...], p: int) -> None:
    """<grad L, xi_j> = 0 for all weights: this makes a zero of the bordered system critical."""
    rng = np.random.default_rng(4)
    X, y = rng.standard_normal((3, widths[0])), rng.standard_normal((3, widths[-1]))
    loss = enclosure.Loss("square", arb(1))
    system = SaddleSystem(enclosure.Power(p, 1.0), loss, widths, X.tolist(), y.tolist())
    w = [arb(float(x)) for x in rng.standard_normal(sum(a * b for a, b in pairwise(widths)))]
    with flint.ctx.workprec(128):
        rates = system.generators(w).transpose() * system.loss_jet(w).slope
    assert rates.nrows() == sum(widths[1:-1])
    assert all(abs(rate) < 1e-25 for rate in rates.entries())


# -- enclosures against the library, and against 40 digits ----------------------------------------------

NETS = (
    ((3, 2, 2), "square", 2, -1.0),
    ((2, 3, 2, 1), "square", 2, -1.0),
    ((3, 2, 2), "relu", 2, 0.0),
    ((3, 3, 2, 1), "relu", 1, 0.0),
    ((2, 2, 2, 1), "leaky", 3, 0.1),
    ((3, 2, 2), "leaky", 2, 2.0),
    ((3, 2, 2), "leaky", 1, -0.5),
    ((3, 2, 2, 2), "linear", 1, 1.0),
    ((3, 2, 1), "linear", 3, 1.0),
)


@pytest.mark.parametrize(("widths", "name", "p", "alpha"), NETS, ids=str)
@pytest.mark.parametrize("loss", ["square", "logistic"])
def test_enclosures_hold_the_librarys_values_and_derivatives(
    widths: tuple[int, ...], name: str, p: int, alpha: float, loss: str
) -> None:
    """Value, gradient and Hessian of the loss and of N: library (backpropagation) inside, at points of the box."""
    rng = np.random.default_rng(3)
    model = FeedForward(widths, name, p=p, alpha=alpha)
    X, y = rng.standard_normal((5, widths[0])), rng.standard_normal((5, widths[-1]))
    if loss == "logistic":
        y = np.where(y > 0, 1.0, -1.0)
        y[0], y[1] = 1.0, -1.0
    objective = Objective(model, X, y, loss=loss)
    ncf = OriginNCF(objective)
    s = enclosure.Power(p, alpha)
    arguments = (s, enclosure.Loss(loss, arb(1)), widths)
    w = rng.standard_normal(model.n_params)
    for radius in (1e-12, 1e-6):
        box = enclosure.unknowns([ball(float(x), radius) for x in w])
        L = enclosure.training_loss(*arguments, box, X.tolist(), y.tolist())
        N = enclosure.network_correlation(*arguments, box, X.tolist(), y.tolist())
        for at in (w, w + radius * rng.uniform(-1, 1, w.size), w + radius):
            for jet, exact in ((L, objective), (N, ncf)):
                held(jet.value, float(exact.value(at)), 1e-10)
                for k, g in enumerate(exact.gradient(at)):
                    held(jet.slope[k, 0], float(g), 1e-9)
                H = exact.hessian(at)
                for i, j in np.ndindex(H.shape):
                    held(jet.bend[i, j], float(H[i, j]), 1e-9)
        # an enclosure of everything would pass the above
        assert float(L.bend[0, 0].rad()) < 1e4 * radius * max(1.0, float(abs(L.bend[0, 0]).upper()))


def held(x: arb, value: float, rounding: float) -> None:
    """The float64 value lies in the ball, but for rounding."""
    size = max(1.0, float(abs(x).upper()))
    assert (x + ball(0.0, rounding * size)).contains(arb(value)), f"{value} is not in {x}"


def test_a_sum_over_no_live_neuron_is_zero_and_a_kink_is_refused() -> None:
    s = enclosure.Power(2, 0.0)
    assert s(arb(-1)) is None
    assert s(None) is None
    with pytest.raises(Undecided):
        s(ball(0.0, 1e-30))
    assert enclosure.Power(2, -1.0)(ball(0.0, 1e-3)).contains(1e-6)  # type: ignore[union-attr]
    with pytest.raises(Undecided):
        enclosure.Power(1, 0.0).slope(None)


# -- closed forms and 50 digits -------------------------------------------------------------------------


def test_the_toy_has_n_8_and_gap_12() -> None:
    """[BEYOND], Example 1: N = 8 w1^2 + 2 w2^2; w* = (1, 0), N* = 8, Delta = 2 * 8 - 4."""
    toy = OriginNCF(Objective(DiagonalLinear(2, 2, tied=True), np.eye(2), np.array([4.0, 1.0])))
    report = verify(certify_kkt(toy, np.array([0.999, 0.02])))
    (value,), (gap,) = report.values, report.gaps
    assert value[0] <= 8 <= value[1] < value[0] + 1e-14
    assert gap[0] <= 12 <= gap[1] < gap[0] + 1e-11
    assert "strict local maximum" in report.summary()
    other = verify(certify_kkt(toy, np.array([0.01, 1.0])))  # N = 2 there: a minimum, Delta = 4 - 16
    assert other.gaps[0][0] <= -12 <= other.gaps[0][1] < -11
    assert "strict local maximum" not in other.summary()


@pytest.mark.parametrize("seed", range(6))
def test_one_square_neuron_is_an_eigenvalue_problem(seed: int) -> None:
    """N = b a'Ma: maxima at eigenvectors v of M with N = 2 m/(3 sqrt 3), a = sqrt(2/3) v, b = 1/sqrt 3."""
    rng = np.random.default_rng(seed)
    H, G = rng.standard_normal((6, 3)), rng.standard_normal((6, 1))
    G *= np.sign(G[:, 0] @ (H**2).sum(axis=1))  # a positive trace: there is a positive eigenvalue
    ncf = NeuronNCF(1, H, G, FeedForward((3, 1, 1), "square").activation)
    with mpmath.workdps(50):
        M = mpmath.matrix(3, 3)
        for x, g in zip(H.tolist(), G[:, 0].tolist(), strict=True):
            M += mpmath.mpf(g) * mpmath.matrix(x) * mpmath.matrix(x).T
        m, V = mpmath.eigsy(M)
        order = sorted(range(3), key=lambda k: m[k])
        top, v = m[order[-1]], V[:, order[-1]]
        u = [mpmath.sqrt(mpmath.mpf(2) / 3) * x for x in v] + [1 / mpmath.sqrt(3)]
        certificate = certify_kkt(ncf, np.array([float(x) for x in u]))
        part = certificate["kkt"][0]
        for text, exact in zip(part["centre"], u, strict=True):
            assert abs(number(text) - exact) <= number(part["radius"])
        value = 2 * top / (3 * mpmath.sqrt(3))
        gap = 2 / mpmath.sqrt(3) * min(top - m[order[-2]], 2 * top)
        assert number(part["value"][0]) <= value <= number(part["value"][1])
        assert number(part["gap"][0]) <= gap <= number(part["gap"][1])


def mp_loss(problem: dict[str, Any], widths: list[int], w: list[Any], pull: bool = False) -> Any:
    """L(w), or N(w) at the origin, by plain loops over mpmath numbers."""
    p, alpha = problem["p"], mpmath.mpf(number(problem["alpha"]))
    total, place = mpmath.mpf(0), 0
    W = []
    for cols, rows in pairwise(widths):
        W.append([w[place + r * cols : place + (r + 1) * cols] for r in range(rows)])
        place += rows * cols
    for x, y in zip(problem["X"], problem["y"], strict=True):
        h = [mpmath.mpf(number(t)) for t in x]
        for l, matrix in enumerate(W):
            z = [sum((a * b for a, b in zip(row, h, strict=True)), mpmath.mpf(0)) for row in matrix]
            h = z if l == len(W) - 1 else [max(t, alpha * t) ** p for t in z]
        for q, text in zip(h, y, strict=True):
            label = mpmath.mpf(number(text))
            if problem["loss"] == "square":
                total += 2 * label * q if pull else (q - label) ** 2
            else:
                total += label * q / 2 if pull else mpmath.log(1 + mpmath.exp(-label * q))
    return total / len(problem["X"]) if problem["reduction"] == "mean" else total


def mp_gradient(f: Any, w: list[Any]) -> list[Any]:
    """Central differences at 60 digits: errors near 1e-38."""
    h = mpmath.mpf(10) ** -20
    out = []
    for k in range(len(w)):
        up, down = list(w), list(w)
        up[k] += h
        down[k] -= h
        out.append((f(up) - f(down)) / (2 * h))
    return out


def mp_zero(F: Any, w: list[Any]) -> list[Any]:
    """Gauss-Newton from float64 accuracy with a Jacobian by differences; 3 steps give 1e-30 and better."""
    for _ in range(3):
        h = mpmath.mpf(10) ** -12
        base = F(w)
        J = mpmath.matrix(len(base), len(w))
        for k in range(len(w)):
            up = list(w)
            up[k] += h
            for i, value in enumerate(F(up)):
                J[i, k] = (value - base[i]) / h
        step = mpmath.lu_solve(J, -mpmath.matrix(base))  # overdetermined: least squares
        w = [a + b for a, b in zip(w, step, strict=True)]
    return w


@pytest.mark.parametrize(
    ("widths", "name", "p", "loss"),
    [((2, 2, 1), "square", 2, "square"), ((2, 1, 2), "relu", 2, "logistic"), ((2, 1, 1, 1), "leaky", 2, "square")],
)
def test_kkt_point_at_60_digits_is_in_the_ball(widths: tuple[int, ...], name: str, p: int, loss: str) -> None:
    rng = np.random.default_rng(5)
    X = rng.standard_normal((4, widths[0]))
    y = np.array([[1.0, -1.0] * 2] * widths[-1]).T if loss == "logistic" else rng.standard_normal((4, widths[-1]))
    objective = Objective(FeedForward(widths, name, p=p), X, y, loss=loss, reduction="mean")
    ncf = OriginNCF(objective)
    point = maximise(ncf, starts=12, rng=rng, keep=2)[0]
    certificate = certify_kkt(ncf, point.u)
    part, problem = certificate["kkt"][0], certificate["problem"]
    D = int(ncf.degree)
    with mpmath.workdps(60):

        def N(u: list[Any]) -> Any:
            return mp_loss(problem, list(widths), u, pull=True)

        def F(u: list[Any]) -> list[Any]:
            value = N(u)
            return [g - D * value * x for g, x in zip(mp_gradient(N, u), u, strict=True)]

        exact = mp_zero(F, [mpmath.mpf(number(t)) for t in part["centre"]])
        assert max(abs(r) for r in F(exact)) < mpmath.mpf(10) ** -25
        assert max(abs(number(t) - x) for t, x in zip(part["centre"], exact, strict=True)) <= number(part["radius"])
        assert number(part["value"][0]) <= N(exact) <= number(part["value"][1])
    assert point.gap == pytest.approx(number(part["gap"][0]), rel=1e-9)
    assert number(part["unique_radius"]) > 1e6 * number(part["radius"])


@functools.cache
def saddle_of(case: Any) -> SparseSaddle:
    return draw(case, np.random.default_rng(8))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_saddle_at_60_digits_is_in_the_ball(case: Any) -> None:
    saddle = saddle_of(case)
    certificate = certify_saddle(saddle)
    part, problem = certificate["saddle"], certificate["problem"]
    widths = list(saddle.active_objective.model.widths)  # type: ignore[attr-defined]
    p = problem["p"]
    with mpmath.workdps(60):

        def F(w: list[Any]) -> list[Any]:
            out = mp_gradient(lambda v: mp_loss(problem, widths, v), w)
            place = np.cumsum([0] + [a * b for a, b in pairwise(widths)])
            for l in range(1, len(widths) - 1):
                incoming = w[place[l - 1] : place[l]]
                outgoing = w[place[l] : place[l + 1]]
                for j in range(widths[l]):
                    a = incoming[j * widths[l - 1] : (j + 1) * widths[l - 1]]
                    out.append(sum(x * x for x in a) - p * sum(x * x for x in outgoing[j :: widths[l]]))
            return out

        exact = mp_zero(F, [mpmath.mpf(number(t)) for t in part["centre"]])
        assert max(abs(r) for r in F(exact)) < mpmath.mpf(10) ** -20
        assert max(abs(number(t) - x) for t, x in zip(part["centre"], exact, strict=True)) <= number(part["radius"])


@pytest.mark.parametrize("case", CASES, ids=str)
def test_certified_inertia_is_that_of_the_eigenvalues(case: Any) -> None:
    saddle = saddle_of(case)
    found = SaddleNCF(saddle).neuron_maxima(starts=12, rng=np.random.default_rng(0))
    report = verify(certify_saddle(saddle, found[:1]))
    assert report.inertia == certify(saddle, rng=np.random.default_rng(0), starts=2).inertia
    assert report.signs == ("positive",)
    low, high = report.values[0]
    assert low <= found[0].value * (1 + 1e-9)
    assert high >= found[0].value * (1 - 1e-9)
    assert report.gaps[0][0] == pytest.approx(found[0].point.gap, rel=1e-6)
    assert "so it is a sparse saddle" in report.summary()


def test_two_active_neurons_have_two_balance_directions() -> None:
    certificate = certify_saddle(saddle_of(TWO_NEURONS))
    assert certificate["saddle"]["active_inertia"] == [0, 2, 8]
    assert certificate["saddle"]["inertia"] == [0, 7, 8]


def test_an_active_part_that_is_no_minimum_is_told_and_not_called_a_saddle() -> None:
    saddle = coordinate_saddle((1.0, 1.5))
    escapes = SaddleNCF(saddle).neuron_maxima(starts=12, rng=np.random.default_rng(0))
    certificate = certify_saddle(saddle, escapes[:1])
    assert certificate["saddle"]["active_inertia"] == [2, 1, 1]
    assert "so it is a sparse saddle" not in verify(certificate).summary()


# -- what has no certificate ----------------------------------------------------------------------------


def test_ties_continua_and_kinks_have_no_certificate() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((6, 3)), rng.standard_normal((6, 2))
    linear = FeedForward((3, 2, 2), "linear")
    ncf = OriginNCF(Objective(linear, X, y))
    with pytest.raises(NotCertified, match="no ties"):  # a neuron can be split in two at no cost
        certify_kkt(ncf, maximise(ncf, starts=6, rng=rng, keep=1)[0].u)
    with pytest.raises(NotCertified):
        certify_kkt(ncf, rng.standard_normal(ncf.size))
    relu = OriginNCF(Objective(FeedForward((3, 2, 1), "relu", p=2), X, y[:, :1]))
    with pytest.raises(NotCertified, match="branch of the activation"):  # the second neuron is zero: on its kink
        certify_kkt(relu, maximise(relu, starts=12, rng=rng, keep=1)[0].u)
    square = Objective(FeedForward((3, 3, 1), "square"), X, y[:, 0], reduction="mean")
    pair = find_saddle(square, (2,), rng=np.random.default_rng(1), starts=12)
    with pytest.raises(NotCertified, match="no continuum beyond the balances"):
        certify_saddle(pair)


def test_points_far_from_a_zero_have_no_certificate() -> None:
    saddle = saddle_of(CASES[0])
    w = saddle.w.copy()
    w[saddle.index_n] *= 3.0
    with pytest.raises(NotCertified):
        certify_saddle(SparseSaddle(saddle.objective, saddle.active, w))


def test_models_that_the_checker_does_not_know_are_refused() -> None:
    X, y = np.eye(2), np.array([1.0, 2.0])
    with pytest.raises(InvalidInput, match="the checker knows"):
        certify_kkt(OriginNCF(Objective(DiagonalLinear(2, 2), X, y)), np.ones(4))
    with pytest.raises(InvalidInput, match="certify_kkt"):
        certify_saddle(origin(Objective(FeedForward((2, 2, 1), "square"), X, y)))
    deep = OriginNCF(Objective(deep_linear((2, 1, 1, 1)), X, y))
    point = maximise(deep, starts=6, rng=np.random.default_rng(0), keep=1)[0]
    assert verify(certify_kkt(deep, point.u)).signs == ("positive",)  # a deep linear net is a network


# -- tampering ------------------------------------------------------------------------------------------


@functools.cache
def sample(kind: str) -> dict[str, Any]:
    if kind == "saddle":
        saddle = saddle_of(CASES[1])
        return certify_saddle(saddle, SaddleNCF(saddle).neuron_maxima(starts=12, rng=np.random.default_rng(0))[:1])
    rng = np.random.default_rng(2)
    X, y = rng.standard_normal((4, 2)), rng.standard_normal((4, 1))
    ncf = OriginNCF(Objective(FeedForward((2, 2, 1), "square"), X, y))
    return certify_kkt(ncf, maximise(ncf, starts=12, rng=rng, keep=1)[0].u)


def leaves(content: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(content, dict):
        return [leaf for key, value in content.items() for leaf in leaves(value, (*path, key))]
    if isinstance(content, list):
        return [leaf for k, value in enumerate(content) for leaf in leaves(value, (*path, k))]
    return [path]


def replaced(certificate: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    out = copy.deepcopy(certificate)
    place = out
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return out


def at(certificate: dict[str, Any], path: tuple[Any, ...]) -> Any:
    return functools.reduce(lambda place, key: place[key], path, certificate)


KINDS = st.sampled_from(["kkt", "saddle"])


@given(KINDS, st.data())
def test_any_changed_leaf_is_refused_by_the_digest(kind: str, data: st.DataObject) -> None:
    certificate = sample(kind)
    path = data.draw(st.sampled_from(leaves(certificate)))
    old = at(certificate, path)
    new = old + 1 if isinstance(old, int) else "0x1.8p+3" if old != "0x1.8p+3" else "0x1p+3"
    refused(replaced(certificate, path, new))


def is_number(certificate: dict[str, Any], path: tuple[Any, ...]) -> bool:
    return isinstance(at(certificate, path), str) and "0x" in at(certificate, path)


@given(KINDS, st.data(), st.sampled_from([-1.0, 1.0]), st.floats(1e-5, 3.0))
def test_changed_data_are_refused_by_the_mathematics(kind: str, data: st.DataObject, sign: float, size: float) -> None:
    """Each sample of z^2 nets enters N, and the widths of N's and Delta's intervals are below 1e-8 of it."""
    certificate = sample(kind)
    paths = [p for p in leaves(certificate) if p[:2] in (("problem", "X"), ("problem", "y"))]
    path = data.draw(st.sampled_from(paths))
    new = number(at(certificate, path)) + sign * size
    assert "not proved" in refused(signed(replaced(certificate, path, new.hex())))


@given(KINDS, st.data(), st.sampled_from([-1.0, 1.0]), st.floats(3.0, 1e6))
def test_a_centre_out_of_its_ball_is_refused(kind: str, data: st.DataObject, sign: float, factor: float) -> None:
    certificate = sample(kind)
    part = "saddle" if kind == "saddle" else "kkt"
    where = (part,) if kind == "saddle" else (part, 0)
    names = ["centre"] if kind == "saddle" else ["centre", "multiplier"]
    path = data.draw(
        st.sampled_from([p for p in leaves(certificate) if p[: len(where)] == where and p[len(where)] in names])
    )
    step = number(at(certificate, where)["radius"]) * factor
    if path[-1] == "multiplier":
        step *= number(at(certificate, where)["stretch"])
    new = (number(at(certificate, path)) + sign * step).hex()
    assert "not proved" in refused(signed(replaced(certificate, path, new)))


@given(KINDS, st.data(), st.sampled_from([-1.0, 1.0]), st.floats(1.5, 1e6))
def test_moved_intervals_are_refused(kind: str, data: st.DataObject, sign: float, factor: float) -> None:
    certificate = sample(kind)
    paths = [("kkt", 0, "value"), ("kkt", 0, "gap")] + ([("saddle", "curvature")] if kind == "saddle" else [])
    path = data.draw(st.sampled_from(paths))
    low, high = (number(t) for t in at(certificate, path))
    shift = sign * factor * (high - low)
    refused(signed(replaced(certificate, path, [(low + shift).hex(), (high + shift).hex()])))


@pytest.mark.parametrize("kind", ["kkt", "saddle"])
def test_tampered_radii_are_refused(kind: str) -> None:
    certificate = sample(kind)
    where = ("saddle",) if kind == "saddle" else ("kkt", 0)
    for key, value in (
        ("radius", 2.0**-90),  # below the error of a float64 centre
        ("radius", 0.0),
        ("radius", -1.0),
        ("unique_radius", 2.0),  # for u: the opposite point is in it, too
        ("unique_radius", 2.0**-90),
        ("stretch", 2.0**-60),
        ("stretch", 2.0**60),
        ("stretch", 1e308),
    ):
        refused(signed(replaced(certificate, (*where, key), value.hex())))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("kkt", 0, "sign"), "negative"),
        (("kkt", 0, "sign"), "zero"),
        (("kkt", 0, "layer"), 2),
        (("kkt", 0, "layer"), None),
        (("kkt", 0, "layer"), True),
        (("saddle", "active"), [[0], [0, 1]]),
        (("saddle", "active"), [[0], []]),
        (("saddle", "active"), [[3], [0]]),
        (("saddle", "active_inertia"), [1, 2, 2]),
        (("saddle", "inertia"), [0, 17, 4]),
        (("saddle", "inertia"), [0, 18, 3.0]),
        (("problem", "p"), 3),
        (("problem", "alpha"), (0.0).hex()),
        (("problem", "loss"), "hinge"),
        (("problem", "loss"), "logistic"),
        (("problem", "reduction"), "sum"),
        (("problem", "widths"), [3, 3, 1]),
        (("precision",), 53),
        (("format",), "gfsim certificate 2"),
        (("kkt",), {}),
        (("saddle",), []),
        (("saddle", "radius"), 1e-10),
        (("saddle", "radius"), "1e-10"),
        (("saddle", "radius"), "nan"),
        (("saddle", "radius"), "inf"),
        (("saddle", "extra"), 1),
        (("extra",), 1),
    ],
    ids=str,
)
def test_wrong_claims_and_malformed_fields_are_refused(path: tuple[Any, ...], value: Any) -> None:
    refused(signed(replaced(sample("saddle"), path, value)))


def test_the_active_inertia_is_proved_even_where_the_whole_one_is_not_claimed() -> None:
    certificate = replaced(sample("saddle"), ("saddle", "inertia"), None)
    assert verify(signed(certificate)).inertia is None
    for claim in ([1, 2, 2], [0, 1, 4], [0, 3, 2]):
        assert "active_inertia" in refused(signed(replaced(certificate, ("saddle", "active_inertia"), claim)))


def test_units_may_be_renamed_but_not_repeated() -> None:
    """Which of the equal hidden units are active does not matter to the claims; how many does."""
    verify(signed(replaced(sample("saddle"), ("saddle", "active"), [[1], [2]])))
    refused(signed(replaced(sample("saddle"), ("saddle", "active"), [[1, 1], [2]])))


@given(
    KINDS,
    st.data(),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=5,
    ),
)
def test_no_content_makes_the_checker_fail_otherwise(kind: str, data: st.DataObject, junk: Any) -> None:
    """Any node replaced by anything: a refusal, or a certificate that still holds; never another exception."""
    certificate = sample(kind)
    path = data.draw(st.sampled_from([p for p in leaves(certificate) if p != ("sha256",)]))
    path = path[: data.draw(st.integers(1, len(path)))]
    if path == ("precision",) and type(junk) is int and junk in range(64, 4097):
        return  # another precision is no change of the claims
    try:
        broken = signed(replaced(certificate, path, junk))
    except ValueError:  # not JSON at all
        return
    if path == ("saddle", "inertia") and junk is None:
        assert verify(broken).inertia is None  # it claims less
    elif path == ("kkt",) and kind == "saddle" and junk == []:
        assert verify(broken).signs == ()
    else:
        refused(broken)


@pytest.mark.parametrize("junk", [None, 3, "text", [], {}])
def test_what_is_no_certificate_is_refused(junk: Any) -> None:
    refused(junk)


# -- independence ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CHECKER)
def test_the_checker_imports_nothing_of_what_it_checks(name: str) -> None:
    allowed = {"gfsim.errors", *(f"gfsim.rigor.{module}" for module in CHECKER)}
    outside = {"flint", "numpy", *sys.stdlib_module_names}
    for node in ast.walk(ast.parse((FOLDER / f"{name}.py").read_text())):
        found = []
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found = [node.module or ""]
        for module in found:
            assert module in allowed or module.split(".")[0] in outside, f"{name} imports {module}"


def test_checking_loads_no_solver() -> None:
    code = "import sys, gfsim.rigor.verify; print([m for m in sys.modules if m.startswith('gfsim.')])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert set(ast.literal_eval(out)) <= {"gfsim.errors", "gfsim.rigor", *(f"gfsim.rigor.{m}" for m in CHECKER)}


def test_the_callers_precision_is_left_alone() -> None:
    before = flint.ctx.prec
    verify(sample("kkt"))
    assert flint.ctx.prec == before


# -- commands -------------------------------------------------------------------------------------------

SMALL = (
    EXAMPLE.replace("[10, 10, 10, 1]", "[3, 3, 1]").replace("[1, 1]", "[1]").replace("samples = 100", "samples = 12")
)


def request(folder: Path, text: str = SMALL) -> str:
    (folder / "request.toml").write_text(text.replace("teacher_hidden = [2, 2]", "teacher_hidden = [3]"))
    return str(folder / "request.toml")


def test_certify_writes_what_verify_accepts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = str(tmp_path / "saddle.json")
    assert main(["certify", request(tmp_path), "--out", target]) == 0
    assert "so it is a sparse saddle" in capsys.readouterr().out
    assert main(["verify", target]) == 0
    assert "certificate holds" in capsys.readouterr().out
    certificate = json.loads(Path(target).read_text())
    certificate["kkt"][0]["sign"] = "negative"
    (tmp_path / "bad.json").write_text(json.dumps(signed(certificate)))
    assert main(["verify", target, str(tmp_path / "bad.json")]) == 1
    out = capsys.readouterr()
    assert "bad.json: REFUSED: kkt[0].sign = 'negative'" in out.out
    assert "1 of 2 certificates refused" in out.err


def test_certify_takes_the_origin_and_several_points(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = SMALL.replace(
        'kind = "saddle"             # or: origin, published, file\nactive = [1] ', 'kind = "origin"\n#'
    )
    text = text.replace('of = "small"\n', "")
    target = str(tmp_path / "origin.json")
    assert main(["certify", request(tmp_path, text), "--out", target, "--points", "2", "--seed", "3"]) == 0, (
        capsys.readouterr().err
    )
    assert len(json.loads(Path(target).read_text())["kkt"]) >= 1


def test_commands_refuse_what_they_cannot_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(tmp_path / "none.json")]) == 2
    (tmp_path / "text.json").write_text("{")
    assert main(["verify", str(tmp_path / "text.json")]) == 2
    assert "is not JSON" in capsys.readouterr().err
    assert main(["certify", request(tmp_path), "--out", str(tmp_path / "x.json"), "--points", "-1"]) == 2


WITHOUT = "import sys; sys.modules['flint'] = None; from gfsim.cli import main; sys.exit(main({!r}))"


def without_flint(*arguments: str) -> subprocess.CompletedProcess[str]:
    code = WITHOUT.format(list(arguments))
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_without_the_extra_statements_are_skipped_and_say_so(tmp_path: Path) -> None:
    done = without_flint("check", "certified_kkt", "dead_neuron", "--json", str(tmp_path / "out.json"))
    assert done.returncode == 1
    assert "certified_kkt: SKIPPED, not checked" in done.stdout
    assert "pip install 'gfsim[rigor]'" in done.stdout
    assert "1 of 2 statements hold; skipped: certified_kkt" in done.stdout
    record = json.loads((tmp_path / "out.json").read_text())
    assert record["holds"] is False
    assert "gfsim[rigor]" in record["statements"][1]["skipped"]


def test_without_the_extra_the_commands_say_how_to_get_it(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text("{}")
    done = without_flint("verify", str(tmp_path / "c.json"))
    assert done.returncode == 2
    assert "pip install 'gfsim[rigor]'" in done.stderr


def test_skipping_alone_does_not_fail_a_run_of_everything(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def absent(*_: object) -> None:
        raise MissingExtra("get it with pip")

    kept = tuple(s for s in registry.STATEMENTS if s.name in ("dead_neuron", "certified_kkt"))
    monkeypatch.setattr(registry, "STATEMENTS", kept)
    monkeypatch.setattr("proofs_checks.certified_kkt.check", absent)
    assert main(["check"]) == 0
    assert "certified_kkt: SKIPPED, not checked: get it with pip" in capsys.readouterr().out
    assert main(["check", "certified_kkt"]) == 1


# -- a wrong library turns the rows red ------------------------------------------------------------------


def failing(name: str) -> set[str]:
    (statement,) = registry.select([name])
    outcome = registry.run(statement, Context())
    assert not outcome.holds
    return {e.what for e in outcome.evidence if not e.as_it_should} | {outcome.error}


def test_a_wrong_gap_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    right = OriginNCF.hessian
    monkeypatch.setattr(OriginNCF, "hessian", lambda self, u: 0.999 * right(self, u))
    assert "the library's Delta outside its interval, over K N" in failing("certified_kkt")


def test_a_wrong_hessian_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Objective.hessian
    monkeypatch.setattr(Objective, "hessian", lambda self, w: 1.001 * right(self, w))
    assert "the library's least curvature outside its interval, over the largest" in failing("certified_saddle")


# -- the committed certificates --------------------------------------------------------------------------

COMMITTED = sorted((Path(__file__).parents[1] / "docs" / "certificates").glob("*.json"))


@pytest.mark.parametrize("file", COMMITTED, ids=lambda f: f.stem)
def test_committed_certificates_hold_and_are_what_their_request_gives(file: Path, tmp_path: Path) -> None:
    committed = json.loads(file.read_text())
    again = tmp_path / file.name
    assert main(["certify", str(file.with_suffix(".toml")), "--out", str(again)]) == 0
    made = json.loads(again.read_text())
    old, new = verify(committed), verify(made)
    assert old.inertia == new.inertia
    assert old.signs == new.signs
    # other machines may round data and centres otherwise in the last place
    assert np.allclose(old.values, new.values, rtol=1e-9)


def test_there_are_committed_certificates() -> None:
    assert {f.stem for f in COMMITTED} == {"origin", "saddle"}
