"""The checker of certificates: decides from the certificate alone, with its own formulas, in ball arithmetic.

A certificate is a JSON object.  Every real number in it is the hexadecimal text of a float64, so nothing is rounded on
the way, and the claims are about exactly these data.  docs/certificates.md describes the fields.  The mathematics is in
three modules beside this one: ``ball`` (existence in a box, signs of eigenvalues), ``enclosure`` (networks and NCFs
with derivatives) and ``systems`` (what is solved, and why that proves the claims); ``certificate`` reads the file.
None of them uses the float64 code that makes certificates.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import flint
from flint import arb

from gfsim.errors import CertificateRefused
from gfsim.rigor.ball import Undecided, signature
from gfsim.rigor.certificate import FORMAT, Problem, Reader, Zero, digest, weights
from gfsim.rigor.systems import SaddleSystem, prove_smallest, small_block_rank

PRECISION = range(64, 4097)
"""Bits.  Exact float64 data need 53."""


@dataclass(frozen=True)
class Report:
    """What has been proved, in sentences, and the numbers that they are about."""

    sentences: tuple[str, ...]
    inertia: tuple[int, int, int] | None
    values: tuple[tuple[float, float], ...]
    gaps: tuple[tuple[float, float], ...]
    signs: tuple[str, ...]

    def summary(self) -> str:
        return "\n".join(["certificate holds:", *(f"  {sentence}" for sentence in self.sentences)])


def verify(certificate: Any) -> Report:
    """Check every claim of a certificate; return what has been proved.

    Raises
    ------
    CertificateRefused
        If a field is malformed, the digest does not fit, or any claim is not proved.  The claim may still be true: a
        refusal says only that this certificate does not prove it.
    """
    r = Reader(certificate, "certificate", "format", "precision", "problem", "saddle", "kkt", "sha256")
    r.choice("format", FORMAT)
    precision = r.whole("precision", PRECISION)
    if certificate["sha256"] != digest(certificate):
        raise CertificateRefused("the SHA-256 does not fit the content: the certificate was changed after it was made")
    with flint.ctx.workprec(precision):
        return _verify(certificate)


def _verify(certificate: Mapping[str, Any]) -> Report:
    problem = Problem.read(certificate["problem"])
    sentences: list[str] = []
    place: tuple[SaddleSystem, list[arb]] | None = None
    inertia: tuple[int, int, int] | None = None
    rest = (0, 0)
    minimum = False
    if certificate["saddle"] is not None:
        system, zero, negatives, inertia, rest = _saddle(problem, certificate["saddle"], sentences)
        place = system, system.split(zero.box)[0]
        minimum = negatives == 0
    points = certificate["kkt"]
    if not isinstance(points, list) or (place is None and not points):
        raise CertificateRefused("certificate.kkt must be a list; without a saddle it needs one point at least")
    values, gaps, signs = [], [], []
    for k, content in enumerate(points):
        value, gap, sign = _kkt(problem, place, rest, content, f"kkt[{k}]", sentences)
        values.append(value)
        gaps.append(gap)
        signs.append(sign)
    if minimum and "positive" in signs:
        sentences.append(
            "so it is a sparse saddle: a local minimum of the active net's loss, but not of the wide net's"
        )
    return Report(tuple(sentences), inertia, tuple(values), tuple(gaps), tuple(signs))


def _saddle(
    problem: Problem, content: Any, sentences: list[str]
) -> tuple[SaddleSystem, Zero, int, tuple[int, int, int] | None, tuple[int, int]]:
    """System, zero, negatives, inertia of the wide net, and (inactive weights, hidden layers) for the KKT points."""
    if problem.kind != "network":
        raise CertificateRefused(f"problem.kind is {problem.kind!r}; only a network has sparse saddles")
    r = Reader(content, "saddle", "active", *Zero.FIELDS, "active_inertia", "curvature", "inertia")
    hidden = problem.widths[1:-1]
    active = content["active"]
    if not isinstance(active, list) or len(active) != len(hidden):
        raise r.refuse("active", f"{len(hidden)} lists of unit indices, one a hidden layer")
    for units, width in zip(active, hidden, strict=True):
        fine = isinstance(units, list) and units and all(type(j) is int and 0 <= j < width for j in units)
        if not fine or units != sorted(set(units)):
            raise r.refuse("active", "made of increasing unit indices, one at least in each hidden layer")
    system = problem.active([len(units) for units in active])
    neurons = len(system.neurons())
    size = weights(system.widths)
    zero = Zero.read(r, size, [0.0] * neurons)
    negative, flat, positive = r.wholes("active_inertia", 3)
    low, high = r.interval("curvature")
    try:
        w = system.split(zero.box)[0]
        zero.prove(system)
        found = signature(system.lifted_hessian(w, 0.0))
        prove_smallest(lambda reach: system.lifted_hessian(w, reach), low, high)
    except Undecided as exc:
        raise CertificateRefused(f"saddle: not proved: {exc}") from None
    if (negative, flat, positive) != (found[0], neurons, found[1] - neurons):
        raise CertificateRefused(
            f"saddle.active_inertia = {[negative, flat, positive]}; proved is {[found[0], neurons, found[1] - neurons]}"
        )
    inactive = problem.size - size
    whole = None if content["inertia"] is None else r.wholes("inertia", 3)
    if whole is not None:
        try:
            ways = small_block_rank(system, problem.widths, w)
        except Undecided as exc:
            raise CertificateRefused(f"saddle.inertia is claimed but not proved: {exc}") from None
        proved = (negative + ways, flat + inactive - 2 * ways, positive + ways)
        if whole != proved:
            raise CertificateRefused(f"saddle.inertia = {list(whole)}; proved is {list(proved)}")
    sentences += [
        f"saddle: exactly one critical point with balanced neurons within {zero.unique:.3g} of the centre (every "
        f"coordinate), and it is within {zero.radius:.3g}",
        f"its active Hessian has {negative} negative, {flat} zero (the balance directions) and {positive} positive "
        f"eigenvalues; off the zeros the smallest lies in [{low:.17g}, {high:.17g}]",
    ]
    if whole is not None:
        sentences.append(
            f"the wide net's Hessian has {whole[0]} negative, {whole[1]} zero and {whole[2]} positive eigenvalues"
        )
    return system, zero, negative, whole, (inactive, len(hidden))


def _kkt(
    problem: Problem,
    place: tuple[SaddleSystem, list[arb]] | None,
    rest: tuple[int, int],
    content: Any,
    where: str,
    sentences: list[str],
) -> tuple[tuple[float, float], tuple[float, float], str]:
    """Value, gap and sign of one KKT point."""
    r = Reader(content, where, "layer", *Zero.FIELDS, "multiplier", "value", "sign", "gap")
    layer = 0
    if place is None:
        if content["layer"] is not None:
            raise r.refuse("layer", "null at the origin")
        kkt, size = problem.correlation(), problem.size
    else:
        layer = r.whole("layer", range(1, rest[1] + 1))
        widths = place[0].widths
        if problem.widths[layer] == widths[layer]:
            raise r.refuse("layer", "a hidden layer that has an inactive neuron")
        size = widths[layer - 1] + widths[layer + 1]
    if size < 2:
        raise r.refuse("centre", "on a sphere of dimension one at least; this one has two points only")
    zero = Zero.read(r, size, [r.real("multiplier")])
    value, gap = r.interval("value"), r.interval("gap")
    sign = r.choice("sign", "positive", "negative")
    try:
        if place is not None:
            kkt = problem.neuron(*place, layer)
        zero.prove(kkt)
        N = zero.box[-1] / kkt.degree  # lambda = K N(u*)
        if not (arb(value[0]) <= N <= arb(value[1])):
            raise Undecided(f"N is enclosed by {N.str(20)} only, not by the claimed interval")
        prove_smallest(lambda reach: kkt.gap_matrix(zero.box, reach), *gap)
    except Undecided as exc:
        raise CertificateRefused(f"{where}: not proved: {exc}") from None
    if not (value[0] > 0 if sign == "positive" else value[1] < 0):
        raise r.refuse("sign", f"proved by the interval of N, which is [{value[0]:.17g}, {value[1]:.17g}]")
    of = "the NCF" if place is None and problem.kind != "neuron" else "the neuron's NCF"
    of += "" if place is None else f" in hidden layer {layer} at the saddle"
    sentences.append(
        f"{where}: {of} has exactly one KKT point within {zero.unique:.3g} of the centre (every coordinate), and it is "
        f"within {zero.radius:.3g}; {sign}, N in [{value[0]:.17g}, {value[1]:.17g}], "
        f"Delta in [{gap[0]:.17g}, {gap[1]:.17g}]" + (": a strict local maximum" if gap[0] > 0 else "")
    )
    if place is not None and problem.s.p >= 2 and rest[0] > size:
        # other inactive weights: Hess N vanishes on them for K > 2, which leaves K N
        low = min(gap[0], math.nextafter(kkt.degree * value[0], -math.inf))
        high = min(gap[1], math.nextafter(kkt.degree * value[1], math.inf))
        sentences.append(f"{where}: as a point of the whole w_z, Delta = min(Delta, K N) in [{low:.17g}, {high:.17g}]")
    return value, gap, sign
