"""Make certificates: float64 finds the point and guesses the numbers, the checker's tests say which guesses hold.

Nothing is certified here: :func:`gfsim.rigor.verify.verify` decides, and a certificate is returned only if it accepts.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import flint
import numpy as np
from flint import arb, arb_mat

from gfsim.errors import CertificateRefused, InvalidInput, NotCertified
from gfsim.models.activation import HomogeneousActivation
from gfsim.models.feedforward import FeedForward
from gfsim.models.linear import DiagonalLinear
from gfsim.ncf.neuron import NeuronNCF
from gfsim.ncf.origin import OriginNCF
from gfsim.ncf.saddle import NeuronDirection
from gfsim.objective import Objective
from gfsim.rigor.ball import Undecided, displacement, middle, signature
from gfsim.rigor.certificate import FORMAT, Problem, digest
from gfsim.rigor.enclosure import unknowns
from gfsim.rigor.systems import KKTSystem, System, cube, prove_smallest, prove_zero, small_block_rank
from gfsim.rigor.verify import verify
from gfsim.saddles.saddle import SparseSaddle

PRECISION = 128
"""Bits of the ball arithmetic: rounding is then far below the error of a float64 centre."""

Certificate = dict[str, Any]


def certify_kkt(ncf: OriginNCF | NeuronNCF, *points: np.ndarray, precision: int = PRECISION) -> Certificate:
    """A certificate of the KKT points near the given unit vectors.

    Parameters
    ----------
    ncf : OriginNCF of a FeedForward net or of H = sum_k u_k^depth x_k, or NeuronNCF
    points : (size,) each, one at least
        Accurate to a few digits at least, as :func:`gfsim.ncf.origin.maximise` and its like return it.

    Raises
    ------
    NotCertified
        If the point is not isolated (ties, continua), on a kink, not near a KKT point, or has N too near 0.
    InvalidInput
        For a model that the checker does not know.
    """
    problem = _neuron(ncf) if isinstance(ncf, NeuronNCF) else _problem(ncf.objective)
    certificate = _empty(problem, precision)
    with flint.ctx.workprec(precision), _undecided():
        system = Problem.read(problem).correlation()
        certificate["kkt"] = [_kkt(system, u, None) for u in points]
    return _signed(certificate)


def certify_saddle(
    saddle: SparseSaddle, escapes: Sequence[NeuronDirection] = (), *, precision: int = PRECISION
) -> Certificate:
    """A certificate of a sparse saddle with its inertia, and of KKT points of the one-neuron NCFs there.

    Parameters
    ----------
    saddle : SparseSaddle
        With an active neuron in every layer, balanced, as :func:`gfsim.saddles.find.find_saddle` returns it.  The
        active net's critical points near it must form no larger continuum than that of its balances.
    escapes : sequence of NeuronDirection
        As ``SaddleNCF.neuron_maxima`` returns them.  A positive one proves that the point is no minimum.

    Raises
    ------
    NotCertified, InvalidInput
        As :func:`certify_kkt`.
    """
    if saddle.active.origin:
        raise InvalidInput("no neuron is active at the origin, which is critical anyway; certify_kkt(OriginNCF, u)")
    data = _problem(saddle.objective)
    certificate = _empty(data, precision)
    with flint.ctx.workprec(precision), _undecided():
        problem = Problem.read(data)
        system = problem.active(saddle.active.widths)
        neurons = len(system.neurons())
        size = int(saddle.w_n.size)
        zero = _zero(system, [*map(float, saddle.w_n), *[0.0] * neurons], neurons, "the saddle")
        w = cube(zero.pop("point")[:size], [zero["radius"]] * size)
        negative, positive = signature(system.lifted_hessian(w, 0.0))
        inertia = [negative, neurons, positive - neurons]
        try:
            ways = small_block_rank(system, problem.widths, w)
            rest = problem.size - size
            whole = [inertia[0] + ways, inertia[1] + rest - 2 * ways, inertia[2] + ways]
        except Undecided:  # a kink, or a rank that no structure explains: then this is not claimed
            whole = None
        certificate["saddle"] = {
            "active": [list(units) for units in saddle.active.units],
            **_hexed(zero),
            "active_inertia": inertia,
            "curvature": _smallest(lambda reach: system.lifted_hessian(w, reach), "the active Hessian"),
            "inertia": whole,
        }
        certificate["kkt"] = [
            _kkt(problem.neuron(system, w, escape.layer), escape.point.u, escape.layer) for escape in escapes
        ]
    return _signed(certificate)


@contextlib.contextmanager
def _undecided() -> Iterator[None]:
    try:
        yield
    except Undecided as exc:
        raise NotCertified(f"not certified: {exc}") from None


# -- the problem as data --------------------------------------------------------------------------------


def _hex(values: Any) -> Any:
    """Nested lists of floats as hexadecimal text."""
    return [_hex(v) for v in values] if isinstance(values, (list, np.ndarray)) else float(values).hex()


def _hexed(fields: dict[str, Any]) -> dict[str, Any]:
    return {key: _hex(value) for key, value in fields.items()}


def _activation(activation: object) -> dict[str, Any]:
    if not isinstance(activation, HomogeneousActivation):
        raise InvalidInput(f"the checker knows activations max(z, alpha z)^p; {activation!r} is another")
    return {"p": activation.p, "alpha": _hex(activation.alpha)}


def _problem(objective: Objective) -> dict[str, Any]:
    model, loss = objective.model, objective.loss.name
    if loss not in ("square", "logistic"):
        raise InvalidInput(f"the checker knows the square and the logistic loss; {loss!r} is another")
    shape: dict[str, Any]
    if isinstance(model, FeedForward) and model.depth >= 2:
        shape = {"kind": "network", "widths": list(model.widths), **_activation(model.activation)}
    elif isinstance(model, DiagonalLinear) and model.tied and not model.signed and model.depth >= 2:
        shape = {"kind": "diagonal", "depth": model.depth}
    else:
        raise InvalidInput(
            f"the checker knows feed-forward nets with a hidden layer, and diagonal ones sum_k w_k^depth x_k (tied, "
            f"unsigned); {model.name} is another"
        )
    data = {"X": _hex(objective.X), "y": _hex(objective.y)}
    return {**shape, "loss": loss, "reduction": objective.reduction, **data}


def _neuron(ncf: NeuronNCF) -> dict[str, Any]:
    return {"kind": "neuron", **_activation(ncf.activation), "inputs": _hex(ncf.inputs), "pull": _hex(ncf.pull)}


def _empty(problem: dict[str, Any], precision: int) -> Certificate:
    return {"format": FORMAT, "precision": precision, "problem": problem, "saddle": None, "kkt": []}


def _signed(certificate: Certificate) -> Certificate:
    certificate["sha256"] = digest(certificate)
    try:
        verify(certificate)
    except CertificateRefused as exc:
        raise NotCertified(f"the checker does not accept what was prepared: {exc}") from None
    return certificate


# -- guesses, tried out on the checker's tests ----------------------------------------------------------


def _kkt(system: KKTSystem, u: np.ndarray, layer: int | None) -> dict[str, Any]:
    unit = np.asarray(u, dtype=float) / np.linalg.norm(u)
    level = float((system.correlation(_jets(unit)).value * system.degree).mid())
    zero = _zero(system, [*map(float, unit), level], 1, "the KKT point")
    *centre, level = zero.pop("point")
    box = cube([*centre, level], [zero["radius"]] * len(centre) + [zero["radius"] * zero["stretch"]])
    value = [_below(box[-1] / system.degree), _above(box[-1] / system.degree)]
    if value[0] <= 0 <= value[1]:
        raise NotCertified(f"N lies in [{value[0]:.3g}, {value[1]:.3g}]: its sign cannot be certified")
    return {
        "layer": layer,
        **_hexed(zero),
        "multiplier": _hex(level),
        "value": _hex(value),
        "sign": "positive" if value[0] > 0 else "negative",
        "gap": _smallest(lambda reach: system.gap_matrix(box, reach), "the gap's matrix"),
    }


def _jets(u: Sequence[float] | np.ndarray) -> Any:
    return unknowns([arb(float(x)) for x in u])


def _zero(system: System, guess: list[float], multipliers: int, what: str) -> dict[str, Any]:
    """Centre, radii and stretch, and ``point``, the centre with the multipliers (those of a saddle stay 0)."""
    size = len(guess) - multipliers
    fixed = [False] * size + [not isinstance(system, KKTSystem)] * multipliers
    point = guess
    for _ in range(4):  # Newton from the centre, each step rounded to float64
        F = system.residual([arb(x) for x in point])
        J = system.jacobian([arb(x) for x in point])
        try:
            moves = displacement(F, J, [0.0] * len(point))
        except Undecided as exc:  # singular to the last bit: the same finding as a box that never passes
            raise _refused(what, str(exc)) from None
        point = [
            x if still else float((arb(x) + move).mid()) for x, move, still in zip(point, moves, fixed, strict=True)
        ]
    stretch = _stretch(system, point, size)

    def radii(r: float) -> list[float]:
        return [r] * size + [r * stretch] * multipliers

    left = displacement(system.residual([arb(x) for x in point]), J, [0.0] * len(point))
    error = max(float(abs(m).upper()) / s for m, s in zip(left, radii(1.0), strict=True))
    start = math.ceil(math.log2(max(error, 2.0**-60))) + 1
    failure = "it is not near a zero"
    for exponent in range(start, min(start + 30, 0)):
        failure = _fails(system, point, radii(2.0**exponent))
        if not failure:
            break
    else:
        raise _refused(what, failure)
    # the widest power of two that still passes, by bisection: a box that fails makes all wider ones fail
    low, high = exponent, 1
    while high - low > 1:
        trial = (low + high) // 2
        if _fails(system, point, radii(2.0**trial)):
            high = trial
        else:
            low = trial
    return {
        "centre": point[:size],
        "radius": 2.0**exponent,
        "unique_radius": 2.0**low,
        "stretch": stretch,
        "point": point,
    }


def _refused(what: str, failure: str) -> NotCertified:
    return NotCertified(
        f"{what} is not certified: {failure}; it must be isolated (no ties, no continuum beyond the balances) and "
        "off all kinks"
    )


def _stretch(system: System, point: list[float], size: int) -> float:
    """How much wider the multipliers' intervals are: as much as they can vary with the weights, a power of two."""
    J = middle(system.jacobian([arb(x) for x in point]))
    if isinstance(system, KKTSystem):
        slope = middle(system.correlation(_jets(point[:size])).slope)
        most = 2.0 * system.degree * float(np.abs(slope).sum())
    else:
        most = float(np.abs(J[:size, :size]).max()) / max(float(np.abs(J[:size, size:]).max()), 1e-300)
    return 2.0 ** math.ceil(math.log2(max(most, 2.0**-40)))


def _fails(system: System, point: list[float], radii: list[float]) -> str:
    try:
        prove_zero(system, point, radii)
    except Undecided as exc:
        return str(exc)
    return ""


def _smallest(M: Callable[[float], arb_mat], what: str) -> list[str]:
    """An interval for the smallest eigenvalue, as narrow as can be proved with few tries."""
    guess = float(np.linalg.eigvalsh(middle(M(0.0)))[0])
    size = float(np.abs(middle(M(0.0))).max())
    width = size * 2.0**-50
    while width < size:
        try:
            prove_smallest(M, guess - width, guess + width)
        except Undecided:
            width *= 4
        else:
            return [(guess - width).hex(), (guess + width).hex()]
    raise NotCertified(f"the smallest eigenvalue of {what} cannot be enclosed")


def _below(x: arb) -> float:
    return math.nextafter(float(x.lower()), -math.inf)


def _above(x: arb) -> float:
    return math.nextafter(float(x.upper()), math.inf)
