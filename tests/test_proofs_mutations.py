"""A wrong library turns the right rows of ``gfsim check`` red, by measurement and not by a crash: one mutation each.

The cheap ones run in the normal suite.  Every statement is turned red by at least one of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import gfsim.ncf.phi
import gfsim.ncf.saddle
import gfsim.saddles.certificate
import proofs_checks.first_saddle
import proofs_checks.logistic_infinity
import proofs_checks.ncf_flow
import proofs_checks.near_saddle
import proofs_checks.origin_starts
import proofs_checks.partial_homogeneity
import proofs_checks.registry as registry
import proofs_checks.saddle_starts
from gfsim.flow.clock import PhysicalTime
from gfsim.flow.scipy_stepper import ScipyStepper
from gfsim.losses import LogisticLoss, SquareLoss
from gfsim.models.activation import HomogeneousActivation
from gfsim.models.feedforward import FeedForward
from gfsim.models.linear import DiagonalLinear, MatrixFactorisation
from gfsim.ncf.neuron import NeuronNCF
from gfsim.ncf.origin import OriginNCF
from gfsim.ncf.saddle import SaddleNCF
from gfsim.objective import Objective
from gfsim.saddles.neurons import ActiveNeurons
from gfsim.saddles.saddle import SparseSaddle
from proofs_checks.report import problems
from proofs_checks.statement import Context

Patch = Callable[[pytest.MonkeyPatch], None]


def scaled(owner: type, name: str, factor: float) -> Patch:
    """The method's result times ``factor``."""

    def patch(mp: pytest.MonkeyPatch) -> None:
        right = getattr(owner, name)
        mp.setattr(owner, name, lambda self, *args, **kwargs: factor * right(self, *args, **kwargs))

    return patch


def degree_by_layers(mp: pytest.MonkeyPatch) -> None:
    """1 + p (L - 1) in place of 1 + p + ... + p^(L-1)."""
    mp.setattr(FeedForward, "degree", property(lambda self: float(self.activation.power * (self.depth - 1) + 1)))


def balance_without_p(mp: pytest.MonkeyPatch) -> None:
    def conserved(self: FeedForward, w: np.ndarray) -> np.ndarray:
        return np.concatenate([(W * W).sum(-1) - (V * V).sum(-2) for W, V in pairwise(self.unpack(w))], -1)

    mp.setattr(FeedForward, "conserved", conserved)


def balance_with_plus(mp: pytest.MonkeyPatch) -> None:
    def conserved(self: FeedForward, w: np.ndarray) -> np.ndarray:
        p = self.activation.power or 1
        return np.concatenate([(W * W).sum(-1) + p * (V * V).sum(-2) for W, V in pairwise(self.unpack(w))], -1)

    mp.setattr(FeedForward, "conserved", conserved)


def bent_activation(mp: pytest.MonkeyPatch) -> None:
    """s(z) (1 + z/1000): a remainder of the wrong order."""
    right = HomogeneousActivation.value
    mp.setattr(HomogeneousActivation, "value", lambda self, z: right(self, z) + right(self, z) * z / 1000)
    mp.setattr(proofs_checks.partial_homogeneity, "_symbols", lambda _: None)  # they see it too, slowly


def leaking_slope(mp: pytest.MonkeyPatch) -> None:
    """s'(z) = 1e-9 where it is 0."""
    right = HomogeneousActivation.value_and_slope

    def leaky(self: HomogeneousActivation, z: np.ndarray) -> Any:
        value, slope = right(self, z)
        return value, slope + 1e-9 * (slope == 0)

    mp.setattr(HomogeneousActivation, "value_and_slope", leaky)


def wrong_g(mp: pytest.MonkeyPatch) -> None:
    """H1 with g of the first layer a tenth too large."""
    right = gfsim.ncf.saddle.neuron_ncfs

    def bent(*args: Any) -> list[NeuronNCF]:
        first, *rest = right(*args)
        return [dataclasses.replace(first, pull=1.1 * first.pull), *rest]

    mp.setattr(gfsim.ncf.saddle, "neuron_ncfs", bent)


def saddle_degree_of_p(mp: pytest.MonkeyPatch) -> None:
    """K = p + 2."""
    right = SaddleNCF.__init__

    def init(self: SaddleNCF, saddle: SparseSaddle) -> None:
        right(self, saddle)
        self.degree += 1.0

    mp.setattr(SaddleNCF, "__init__", init)


def late_blow_up(mp: pytest.MonkeyPatch) -> None:
    """1/(D (D-1)) in place of 1/(D (D-2)) in every blow-up time: all of it, not the remainder alone."""
    right = gfsim.ncf.phi.limit

    def late(ncf: Any, z: np.ndarray, **options: Any) -> Any:
        found = right(ncf, z, **options)
        K = ncf.degree
        return dataclasses.replace(found, time=found.time * (K - 2) / (K - 1) if K > 2 else found.time)

    for module in (proofs_checks.ncf_flow, proofs_checks.origin_starts, proofs_checks.saddle_starts):
        mp.setattr(module, "limit", late)


def slow_quadrature(mp: pytest.MonkeyPatch) -> None:
    """The integrator steps in a clock whose exponent is not the one that time is recovered with: |w|^1.01 (D-2)."""
    right = ScipyStepper._rhs

    def rhs(self: ScipyStepper, s: float, w: np.ndarray) -> np.ndarray:
        v = right(self, s, w)
        return v if isinstance(self.clock, PhysicalTime) else v * self.clock.rate(w) ** 0.01

    mp.setattr(ScipyStepper, "_rhs", rhs)


def loose_solver(mp: pytest.MonkeyPatch) -> None:
    """Tolerances a million times those asked for."""
    right = ScipyStepper.__init__

    def init(self: ScipyStepper, *args: Any, **options: Any) -> None:
        options["rtol"], options["atol"] = 1e6 * options["rtol"], 1e6 * options["atol"]
        right(self, *args, **options)

    mp.setattr(ScipyStepper, "__init__", init)


def first_weight_forgotten(mp: pytest.MonkeyPatch) -> None:
    """w_z without its first weight."""
    right = ActiveNeurons.index_z
    mp.setattr(ActiveNeurons, "index_z", lambda self, model: right(self, model)[1:])


def small_gauss_newton(mp: pytest.MonkeyPatch) -> None:
    """A Hessian of the net with a Gauss-Newton part that is a twentieth too small: Newton's method still arrives."""
    right = FeedForward.curvature

    def curvature(self: FeedForward, w: np.ndarray, X: np.ndarray, C: np.ndarray, B: Any = None) -> Any:
        return 0.95 * right(self, w, X, C, B) + 0.05 * right(self, w, X, C, None)

    mp.setattr(FeedForward, "curvature", curvature)


def kinks_pass(mp: pytest.MonkeyPatch) -> None:
    """The NCF of a net with an active neuron on its kink is not refused."""
    mp.setattr(gfsim.ncf.saddle, "_refuse_kinks", lambda _: None)


def pull_without_reduction(mp: pytest.MonkeyPatch) -> None:
    """ybar without the factor 1/n of a mean."""
    mp.setattr(Objective, "pull", lambda self, out: -self.loss.slope(out, self.y))


def limit_elsewhere(mp: pytest.MonkeyPatch) -> None:
    """phi said to go to the twin of its limit that has its coordinates moved on by one."""
    right = gfsim.ncf.phi.limit

    def moved(ncf: Any, z: np.ndarray, **options: Any) -> Any:
        found = right(ncf, z, **options)
        if found.point is None:
            return found
        model = getattr(ncf, "model", None)
        u = found.point.u
        turned = proofs_checks.first_saddle.rolled(model, u) if isinstance(model, FeedForward) else np.roll(u, 1)
        return dataclasses.replace(found, point=dataclasses.replace(found.point, u=turned))

    for module in (proofs_checks.origin_starts, proofs_checks.logistic_infinity, proofs_checks.saddle_starts):
        mp.setattr(module, "limit", moved)
    # the starts are taken as they come: their directions do not settle where they are said to
    mp.setattr(proofs_checks.origin_starts, "cosine_deficit", lambda *_: 0.0)
    mp.setattr(proofs_checks.saddle_starts, "cosine_deficit", lambda *_: 0.0)


def next_unit(mp: pytest.MonkeyPatch) -> None:
    """The neuron of a direction is said to be its neighbour: of a KKT point only, not of weights on their way."""
    right = SaddleNCF.neuron_of

    def moved(self: SaddleNCF, u: np.ndarray) -> tuple[int, int]:
        layer, unit = right(self, u)
        if abs(float(u @ u) - 1.0) > 1e-9:
            return layer, unit
        units = self.saddle.active.inactive(self.saddle.model)[layer - 1]
        return layer, units[(units.index(unit) + 1) % len(units)]

    mp.setattr(SaddleNCF, "neuron_of", moved)


def tied_power(mp: pytest.MonkeyPatch) -> None:
    """The gradient of w^L without its factor L."""
    right = DiagonalLinear.pull
    mp.setattr(DiagonalLinear, "pull", lambda self, w, g: right(self, w, g) / (self.depth if self.tied else 1))


def sign_of_one_factor(mp: pytest.MonkeyPatch) -> None:
    """The gradient with respect to V of U V' with the wrong sign; half of it where U is V."""
    right = MatrixFactorisation._pack
    mp.setattr(MatrixFactorisation, "_pack", lambda self, to_U, to_V: right(self, to_U, -to_V * (not self.symmetric)))


def unpolished(mp: pytest.MonkeyPatch) -> None:
    """Newton's method on the KKT equations does nothing, and the ascent stops early."""
    import gfsim.ncf.origin

    mp.setattr(gfsim.ncf.origin, "polish", lambda _, u, **__: u)
    right = gfsim.ncf.origin._ascend
    mp.setattr(gfsim.ncf.origin, "_ascend", lambda ncf, U, iterations: right(ncf, U, min(iterations, 12)))


@dataclass(frozen=True)
class Mutation:
    """A patch, the rows that it must turn red (with a word of the evidence that sees it), and one that it must not."""

    patch: Patch
    red: dict[str, str]
    green: str = ""


FAST = {
    "wrong degree": Mutation(degree_by_layers, {"homogeneity": "declared degree"}, "zero_preserving"),
    "balance without p": Mutation(balance_without_p, {"balance": "rate of change"}, "kkt"),
    "balance with a plus": Mutation(balance_with_plus, {"balance": "rate of change"}, "dead_neuron"),
    "sign of grad N": Mutation(
        scaled(OriginNCF, "gradient", -1.0), {"kkt": "points found", "ncf_flow": "2 D N"}, "balance"
    ),
    "sign of ytilde": Mutation(scaled(Objective, "pull", -1.0), {"origin_critical": "delta^D N"}, "balance"),
    "half of the square loss's slope": Mutation(
        scaled(SquareLoss, "slope", 0.5),
        {"origin_critical": "delta^D N", "not_minimum": "against -4 y"},
        "zero_preserving",
    ),
    "twice the logistic loss's slope": Mutation(
        scaled(LogisticLoss, "slope", 2.0), {"origin_critical": "delta^D N"}, "balance"
    ),
    "remainder of the wrong order": Mutation(
        bent_activation, {"partial_homogeneity": "fitted degree of R against 2p + 1"}, "balance"
    ),
    "ReLU leaks": Mutation(leaking_slope, {"dead_neuron": "speed"}, "toy"),
    "wrong g in H1": Mutation(
        wrong_g, {"partial_homogeneity": "<ybar, H1>", "one_neuron": "library's N"}, "zero_preserving"
    ),
    "K = p + 2": Mutation(saddle_degree_of_p, {"partial_homogeneity": "declared degree of N"}, "kkt"),
    "kinks pass": Mutation(kinks_pass, {"relu_kinks": "accepts", "partial_homogeneity": "lets pass"}, "one_neuron"),
    "wrong blow-up constant": Mutation(
        late_blow_up, {"ncf_flow": "time scale", "origin_escape": "blow-up time"}, "toy"
    ),
    "wrong clock exponent": Mutation(
        slow_quadrature, {"ncf_flow": "blow-up time of aligned", "origin_escape": "blow-up time"}, "greedy_modes"
    ),
    "a weight of w_z forgotten": Mutation(first_weight_forgotten, {"zero_preserving": "places where"}, "balance"),
    "the origin NCF's Hessian by a hundredth": Mutation(
        scaled(OriginNCF, "hessian", 1.01), {"certified_kkt": "Delta outside"}, "zero_preserving"
    ),
    "twice the NCF's Hessian": Mutation(
        scaled(NeuronNCF, "hessian", 2.0), {"hessian_blocks": "block of w_z plus"}, "zero_preserving"
    ),
    "a small Gauss-Newton part": Mutation(
        small_gauss_newton,
        {"hessian_blocks": "differences of gradients", "certified_saddle": "least curvature"},
        "balance",
    ),
    "a mean taken for a sum": Mutation(pull_without_reduction, {"origin_escape": "blow-up time"}, "balance"),
    "loose solver": Mutation(loose_solver, {"toy": "closed form", "balance": "drift"}, "zero_preserving"),
    "gradient of w^L without L": Mutation(tied_power, {"homogeneity": "D H", "toy": "closed form"}, "dead_neuron"),
    "sign of one factor": Mutation(sign_of_one_factor, {"homogeneity": "D H", "balance": "linear families"}, "kkt"),
    "KKT points not polished": Mutation(unpolished, {"kkt": "|grad N - D N u|"}, "dead_neuron"),
}

SLOW = {
    "half of the square loss's slope": Mutation(
        scaled(SquareLoss, "slope", 0.5),
        {
            "toy": "closed form",
            "greedy_modes": "closed form",
            "deep_modes": "own equation",
            "diagonal_jumps": "jump times",
            "greedy_rank": "departure time",
            "orthogonal_relu": "times of the two signs",
            "escape_path": "gap to p(t)",
        },
        "logistic_infinity",
    ),
    "grad N a tenth too large": Mutation(
        scaled(OriginNCF, "gradient", 1.1),
        {"early_direction": "1 - cos(w, w*)", "origin_escape": "over delta^D"},
        "balance",
    ),
    "half of Hess N": Mutation(
        scaled(OriginNCF, "hessian", 0.5), {"sparsity": "slowest part", "escape_path": "slowest direction"}, "toy"
    ),
    "phi's limit elsewhere": Mutation(
        limit_elsewhere,
        {
            "first_saddle": "lim p(t)",
            "sparsity": "|w_z|",
            "logistic_infinity": "|w_z|",
            "early_direction": "1 - cos(w, w*)",
        },
        "toy",
    ),
    "slope of the square loss for the logistic one": Mutation(
        lambda mp: mp.setattr(LogisticLoss, "slope", lambda _, q, y: 2.0 * (q - y)),
        {"logistic_infinity": "margin"},
        "sparsity",
    ),
    "wrong g in H1": Mutation(wrong_g, {"near_saddle": "phi"}, "first_saddle"),
    "wrong blow-up constant": Mutation(late_blow_up, {"near_saddle": "blow-up time, K > 2"}, "sparsity"),
    "the neighbour of the neuron": Mutation(next_unit, {"next_saddle": "the neuron that grows first"}, "first_saddle"),
    "a small Gauss-Newton part": Mutation(small_gauss_newton, {"not_minimum": "eigenvalue"}, "toy"),
}


def run(name: str) -> registry.Row:
    (statement,) = registry.select([name])
    return registry.run(statement, Context())


def assert_red(mutation: Mutation, mp: pytest.MonkeyPatch, name: str) -> None:
    with mp.context() as here:
        mutation.patch(here)
        outcome = run(name)
    assert not outcome.holds
    # seen by a measurement; what comes after it in the check may well stumble
    wrong = [e.what for e in outcome.evidence if e.kind != "control" and not e.met]
    assert any(mutation.red[name] in what for what in wrong), (wrong, outcome.error)


def cases(table: dict[str, Mutation]) -> list[Any]:
    return [pytest.param(m, row, id=f"{what}: {row}") for what, m in table.items() for row in m.red]


@pytest.mark.parametrize(("mutation", "name"), cases(FAST))
def test_mutation_turns_its_row_red(mutation: Mutation, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_red(mutation, monkeypatch, name)


@pytest.mark.slow
@pytest.mark.parametrize(("mutation", "name"), cases(SLOW))
def test_mutation_turns_its_long_row_red(mutation: Mutation, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_red(mutation, monkeypatch, name)


@pytest.mark.slow
@pytest.mark.parametrize("what", [*FAST, *SLOW])
def test_mutation_leaves_another_row_green(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for mutation in [table[what] for table in (FAST, SLOW) if what in table]:
        with monkeypatch.context() as here:
            mutation.patch(here)
            outcome = run(mutation.green)
        assert outcome.holds, problems([outcome])


def test_every_statement_can_be_turned_red() -> None:
    reached = {row for table in (FAST, SLOW) for m in table.values() for row in m.red}
    assert {s.name for s in registry.STATEMENTS} - reached == set()
