"""Basins: which KKT point of the constrained NCF attracts which start, for the NCF flow and for the training flow.

Near a sparse saddle the NCF is a sum of one-neuron functions, so its flow phi is a race: every inactive neuron
moves by itself, and the one that blows up first takes all of the direction (docs/theory.md, section 4, K > 2).
The race is run from the same random starts by phi and by the training flow.  The two may differ only where it
is close: blow-up times move by a share of order delta.

Two saddles, both ours.  The maps: a two-layer ReLU^2 net with three inputs and one inactive neuron (a, b).  Balance,
|a|^2 = 2 b^2, is conserved, so the balanced starts are two spheres of directions a, one for each sign of b, and the
whole of both can be shown.  The races: a wide net at the same saddle, and the three-layer z^2 net of
:mod:`paper_repro.near_saddle` with two active neurons in layer 1 and one in layer 2, where two kinds of
KKT points of layer 1 and one of layer 2 compete.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from gfsim.flow.batch import simulate_batch
from gfsim.flow.clock import RescaledTime
from gfsim.flow.events import norm_level
from gfsim.models.activation import make_activation
from gfsim.models.feedforward import FeedForward
from gfsim.ncf.phi import ncf_field
from gfsim.ncf.saddle import NeuronDirection, SaddleNCF
from gfsim.objective import Objective
from gfsim.saddles.find import find_saddle
from gfsim.saddles.saddle import SparseSaddle
from paper_repro.claims import OURS, READING, Claim
from paper_repro.figure import Context, Outcome
from paper_repro.near_saddle import blow_up, check
from paper_repro.near_saddle import saddle as deep_saddle

STARTS = 1000
DELTA = 1e-2
CLOSEST = 100
"""The races that phi wins by the least are run again at other delta: only they can end differently."""
DELTAS = (3e-2, 1e-2, 3e-3, 1e-3)

GROWTH = 1e4
"""phi is followed until |u| has grown so much; what is left of its time then is a share of 1e-4, and is added."""

ESCAPED = 0.3
"""The training flow is followed until |w_z| reaches this, a few times the largest delta: the winner is alone then."""

LEAD = 0.3
"""The runner-up of a race is looked for up to (1 + LEAD) times the winner's time."""

DATA_SEED, SAMPLES = 6, 12
"""Of the two-layer net: the draw, among the first twelve, whose NCF has two maxima for either sign of b."""

WIDE = 10


def flat_saddle(width: int) -> SparseSaddle:
    """One active neuron in a 3-width-1 ReLU^2 net: 12 inputs on the sphere, standard normal labels, MEAN loss."""
    rng = np.random.default_rng(DATA_SEED)
    X = rng.normal(size=(SAMPLES, 3))
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    y = rng.normal(size=SAMPLES)
    model = FeedForward((3, width, 1), make_activation("relu", p=2))
    return find_saddle(Objective(model, X, y, reduction="mean"), (1,), rng=rng)


@dataclass(frozen=True)
class Race:
    """Who won from each start: ``layer``, ``unit``, and the kind of KKT point, an index into ``kinds``; all (B,).

    Where nobody did, because the small weights collapsed, ``kind`` is -1.
    """

    layer: np.ndarray
    unit: np.ndarray
    kind: np.ndarray
    cosine: np.ndarray
    """Cosine of the winning neuron's weights with that KKT point."""
    time: np.ndarray
    """Blow-up time of phi; escape time of the training flow."""

    def of(self, rows: np.ndarray) -> Race:
        return Race(self.layer[rows], self.unit[rows], self.kind[rows], self.cosine[rows], self.time[rows])

    def same(self, other: Race) -> np.ndarray:
        """Where both were won by the same neuron, with the same KKT point: (B,) of bool."""
        same: np.ndarray = (self.layer == other.layer) & (self.unit == other.unit) & (self.kind == other.kind)
        return same


def winners(ncf: SaddleNCF, kinds: list[NeuronDirection], U: np.ndarray, gone: np.ndarray, time: np.ndarray) -> Race:
    """The largest neuron of each row of ``U`` (B, size of w_z), and the KKT point of its layer closest to it.

    ``gone`` (B,) says which rows escaped.
    """
    flip = ncf.saddle.model.activation.flips_sign
    layer, unit, kind, best = [], [], [], []
    for u, escaped in zip(U, gone, strict=True):
        l, j = ncf.neuron_of(u)
        units = ncf.saddle.active.inactive(ncf.saddle.model)[l - 1]
        part = u[ncf.places[l - 1][units.index(j)]]
        part = part / np.linalg.norm(part)
        cosines = [_cosine(part, k, flip) if k.layer == l else -1.0 for k in kinds]
        layer.append(l if escaped else 0)
        unit.append(j if escaped else -1)
        kind.append(int(np.argmax(cosines)) if escaped else -1)
        best.append(max(cosines))
    return Race(np.array(layer), np.array(unit), np.array(kind), np.array(best), time)


def _cosine(part: np.ndarray, kind: NeuronDirection, flip: int) -> float:
    """Up to the neuron's sign symmetry: for z^2, (a, b) and (-a, b) are one."""
    a, b = part[: kind.a.size], part[kind.a.size :]
    straight, turned = float(a @ kind.a + b @ kind.b), float(-a @ kind.a + flip * (b @ kind.b))
    return max(straight, turned) if flip else straight


def race_of_phi(ncf: SaddleNCF, kinds: list[NeuronDirection], Z: np.ndarray, horizon: float = math.inf) -> Race:
    """phi from each row of ``Z`` (B, size of w_z), up to time ``horizon``: for ever if every start is to escape."""
    run = simulate_batch(
        ncf_field(ncf),
        Z,
        t_end=horizon,
        method="dp8",
        clock=RescaledTime(ncf.degree - 2.0),
        rtol=1e-7,
        events=[norm_level(GROWTH)],
    )
    return winners(ncf, kinds, run.final, *blow_up(ncf, run))


def leads(ncf: SaddleNCF, Z: np.ndarray, winner: Race) -> np.ndarray:
    """By what share of the winner's blow-up time each race of phi is won: (B,), at most LEAD."""
    second = np.full(len(Z), math.inf)
    inactive = ncf.saddle.active.inactive(ncf.saddle.model)
    for one, places, units in zip(ncf.neurons, ncf.places, inactive, strict=True):
        losers = [
            (k, z[place])
            for k, z in enumerate(Z)
            for unit, place in zip(units, places, strict=True)
            if (one.layer, unit) != (winner.layer[k], winner.unit[k]) and z[place].any()
        ]
        race = np.array([k for k, _ in losers])
        run = simulate_batch(
            ncf_field(one),
            np.array([z for _, z in losers]),
            t_end=(1 + LEAD) * winner.time[race],
            method="dp8",
            clock=RescaledTime(one.degree - 2.0),
            rtol=1e-7,
            events=[norm_level(GROWTH)],
        )
        np.minimum.at(second, race, blow_up(one, run)[1])
    return np.minimum(second / winner.time - 1.0, LEAD)


def race_of_training(
    saddle: SparseSaddle,
    ncf: SaddleNCF,
    kinds: list[NeuronDirection],
    delta: float,
    Z: np.ndarray,
    n: np.ndarray,
    horizon: float = math.inf,
) -> Race:
    """The training flow from (wbar_n + delta n, delta z) for rows of ``Z`` and ``n``, up to ``horizon`` / delta."""
    starts = np.stack([saddle.start(delta, z, m) for z, m in zip(Z, n, strict=True)])
    run = simulate_batch(
        saddle.objective,
        starts,
        t_end=horizon / delta,
        method="ndf",
        clock=saddle.clock,
        blocks=saddle.blocks,
        rtol=1e-5,
        events=[norm_level(ESCAPED, saddle.index_z)],
    )
    check(run)
    gone = np.array([bool(trace.events) for trace in run.traces])
    return winners(ncf, kinds, run.final[:, saddle.index_z], gone, run.t)


# -- the maps of one inactive neuron -------------------------------------------------------------------


def sphere_grid(columns: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Edges of longitude and latitude, and the centres as unit vectors (rows * columns, 3), rows = columns / 2."""
    longitude = np.linspace(-math.pi, math.pi, columns + 1)
    latitude = np.linspace(-math.pi / 2, math.pi / 2, columns // 2 + 1)
    lon, lat = np.meshgrid(0.5 * (longitude[1:] + longitude[:-1]), 0.5 * (latitude[1:] + latitude[:-1]))
    points = np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=-1)
    return longitude, latitude, points.reshape(-1, 3)


def spread(count: int) -> np.ndarray:
    """Points spread evenly over the sphere (a Fibonacci lattice): (count, 3)."""
    k = np.arange(count) + 0.5
    z = 1 - 2 * k / count
    angle = math.pi * (1 + math.sqrt(5)) * k
    return np.stack([np.sqrt(1 - z**2) * np.cos(angle), np.sqrt(1 - z**2) * np.sin(angle), z], axis=1)


def where(a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Longitude and latitude of directions (..., 3)."""
    return np.arctan2(a[..., 1], a[..., 0]), np.arcsin(a[..., 2] / np.linalg.norm(a, axis=-1))


def balanced(ncf: SaddleNCF, directions: np.ndarray, sign: float) -> np.ndarray:
    """Unit (a, b) of the one inactive neuron with |a|^2 = 2 b^2: (B, 4)."""
    Z = np.empty((len(directions), ncf.size))
    Z[:, ncf.places[0][0]] = np.column_stack(
        [math.sqrt(2 / 3) * directions, np.full(len(directions), sign * math.sqrt(1 / 3))]
    )
    return Z


def maps(ctx: Context) -> tuple[dict[str, Any], list[NeuronDirection]]:
    """Where phi goes from every balanced (a, b), and the training flow from some of them, for b > 0 and b < 0."""
    saddle = flat_saddle(2)
    ncf = SaddleNCF(saddle)
    kinds = ncf.neuron_maxima(rng=ctx.rng("kinds"))
    horizon = 40.0 / (3.0 * kinds[-1].value)  # forty blow-up times of the slowest KKT point
    longitude, latitude, points = sphere_grid(180 if ctx.full else 72)
    dots = spread(400 if ctx.full else 120)
    out: dict[str, Any] = {"longitude": longitude, "latitude": latitude, "points": dots}
    for name, sign in (("positive", 1.0), ("negative", -1.0)):
        ctx.note(f"map of b {'>' if sign > 0 else '<'} 0")
        field = race_of_phi(ncf, kinds, balanced(ncf, points, sign), horizon).kind
        Z = balanced(ncf, dots, sign)
        told = race_of_phi(ncf, kinds, Z, horizon).kind
        went = race_of_training(saddle, ncf, kinds, DELTA, Z, np.zeros((len(Z), saddle.index_n.size)), horizon).kind
        out |= {f"map_{name}": field.reshape(len(latitude) - 1, -1), f"told_{name}": told, f"went_{name}": went}
    return out, kinds


# -- the races -----------------------------------------------------------------------------------------


def races(ctx: Context, name: str, saddle: SparseSaddle) -> dict[str, Any]:
    """STARTS random starts by phi and by the training flow at DELTA; the closest ones at all DELTAS."""
    ncf = SaddleNCF(saddle)
    kinds = ncf.neuron_maxima(rng=ctx.rng("kinds", name))
    pairs = [saddle.directions(ctx.rng("start", name, k)) for k in range(STARTS)]
    n, Z = np.stack([a for a, _ in pairs]), np.stack([b for _, b in pairs])
    ctx.note(f"{name}: {STARTS} starts by the NCF flow")
    told = race_of_phi(ncf, kinds, Z)
    lead = leads(ncf, Z, told)
    ctx.note(f"{name}: {STARTS} starts by the training flow")
    went = race_of_training(saddle, ncf, kinds, DELTA, Z, n)
    table = np.zeros((len(kinds), len(kinds)), dtype=int)
    np.add.at(table, (told.kind, went.kind), 1)
    close = np.argsort(lead)[: STARTS if ctx.full else CLOSEST]
    differ = []
    for delta in DELTAS:
        ctx.note(f"{name}: the closest races, delta = {delta:g}")
        again = race_of_training(saddle, ncf, kinds, delta, Z[close], n[close])
        differ.append(~told.of(close).same(again))
    lost = [float(lead[close][d].max()) if d.any() else 0.0 for d in differ]
    first = told.unit[told.layer == 1]
    units = [int((first == unit).sum()) for unit in saddle.active.inactive(saddle.model)[0]]
    expected = len(first) / len(units)
    return {
        "loss": saddle.loss,
        "kind_layer": [k.layer for k in kinds],
        "kind_value": [k.value for k in kinds],
        "table": table,
        "frequency_phi": table.sum(1) / STARTS,
        "frequency_training": table.sum(0) / STARTS,
        "agreement": float(told.same(went).mean()),
        "cosine": went.cosine,
        "cosine_median": float(np.median(went.cosine)),
        "lead": lead,
        "closest_lead": lead[close],
        "differ": np.array(differ),
        "largest_lead_lost_over_delta": [a / d for a, d in zip(lost, DELTAS, strict=True)],
        "share_lost": [float(d.mean()) for d in differ],
        "wins_of_layer_1_units": units,
        "chi_square": float(sum((k - expected) ** 2 / expected for k in units)),
        "chi_square_bound": float(_chi_square_quantile(len(units) - 1)),
    }


def _chi_square_quantile(freedom: int) -> float:
    """Exceeded by chance once in ten thousand draws."""
    from scipy.stats import chi2

    return float(chi2.ppf(1 - 1e-4, freedom))


SADDLES = {"two_layer": "two-layer ReLU² net", "three_layer": "three-layer z² net"}


def run(ctx: Context) -> Outcome:
    mapped, kinds = maps(ctx)
    numbers: dict[str, Any] = {
        "maps": mapped,
        "delta": DELTA,
        "deltas": DELTAS,
        "two_layer": races(ctx, "two_layer", flat_saddle(WIDE)),
        "three_layer": races(ctx, "three_layer", deep_saddle((2, 1))),
    }
    told = np.concatenate([mapped["told_positive"], mapped["told_negative"]])
    went = np.concatenate([mapped["went_positive"], mapped["went_negative"]])
    numbers["map_agreement"] = float(np.mean(told == went))
    claims = [
        Claim.at_least(
            f"maps: share of starts whose training flow (delta = {DELTA:g}) goes where phi goes",
            numbers["map_agreement"],
            0.97,
            of=["maps.told_positive", "maps.told_negative", "maps.went_positive", "maps.went_negative"],
            source=READING,
        )
    ]
    for name, words in SADDLES.items():
        found = numbers[name]
        claims += [
            Claim.at_least(
                f"{words}: share of {STARTS} starts in which the neuron and KKT point of phi win (delta = {DELTA:g})",
                found["agreement"],
                0.98,
                of=f"{name}.agreement",
                source=READING,
            ),
            Claim.at_least(
                f"{words}: median cosine of the winning neuron with its KKT point",
                found["cosine_median"],
                0.99,
                of=f"{name}.cosine",
                source=READING,
            ),
            Claim.at_most(
                f"{words}: largest lead of a race of phi that the training flow decides otherwise, over delta",
                found["largest_lead_lost_over_delta"],
                3.0,
                of=f"{name}.largest_lead_lost_over_delta",
                source=OURS,
            ),
            Claim.at_most(
                f"{words}: chi-square of the wins of layer 1's inactive neurons, which symmetry makes equal",
                found["chi_square"],
                found["chi_square_bound"],
                of=[f"{name}.chi_square", f"{name}.wins_of_layer_1_units"],
                source="symmetry",
            ),
        ]
    return Outcome(
        figure=_draw(ctx, numbers, kinds),
        claims=claims,
        numbers=numbers,
        caption=(
            "Top: a 3-2-1 ReLU^2 net (12 inputs on the sphere, standard normal labels, mean square loss) at the saddle "
            f"with one active neuron, loss {numbers['two_layer']['loss']:.3f}. Colours: the KKT point that the NCF "
            "flow phi reaches from the balanced start (a, b), |a|^2 = 2 b^2, as a map (Mollweide) of the direction of "
            "a, for b > 0 and for b < 0; grey: |u| collapses. Stars: the KKT points. Dots: where the training "
            f"flow goes from (wbar_n, delta z), delta = {DELTA:g}. Below left and middle: {STARTS} starts with random "
            f"unit n and z, delta = {DELTA:g}, near the same saddle of a 3-10-1 net and near the saddle with 2 and 1 "
            f"active neurons of the 10-10-10-1 z^2 net (100 samples, loss {numbers['three_layer']['loss']:.4f}): the "
            "KKT point predicted by phi from the same z (rows) against the one that the training flow reached "
            f"(columns, read off where |w_z| = {ESCAPED}), counts, and frequencies with their standard errors. Below "
            f"right: the {len(numbers['two_layer']['closest_lead'])} races that phi decides by the least, at four "
            "delta; lead: by what share of the winner's blow-up time the second neuron of phi is later; crosses: "
            "the training flow decides otherwise. phi: dp8, rtol 1e-7; training: ndf, rtol 1e-5, in the "
            "clock ds = |w_z| dt."
        ),
        convention="mean",
    )


def _draw(ctx: Context, numbers: dict[str, Any], kinds: list[NeuronDirection]) -> Any:
    from matplotlib.colors import ListedColormap, to_rgb
    from matplotlib.lines import Line2D

    fig: Any = ctx.figure(size=(10.0, 7.6))
    top, bottom = fig.subfigures(2, 1, height_ratios=[1.0, 1.1])
    colours = [f"C{k}" for k in range(len(kinds))]
    pale = ListedColormap(np.array([to_rgb("0.88"), *[0.6 + 0.4 * np.array(to_rgb(colour)) for colour in colours]]))
    drawn = numbers["maps"]
    for place, (name, sign) in enumerate((("positive", 1), ("negative", -1)), start=1):
        ax = top.add_subplot(1, 2, place, projection="mollweide")
        ax.grid(visible=False)
        ax.pcolormesh(
            drawn["longitude"],
            drawn["latitude"],
            drawn[f"map_{name}"],
            cmap=pale,
            vmin=-1.5,
            vmax=len(kinds) - 0.5,
            rasterized=True,
        )
        lon, lat = where(drawn["points"])
        went = drawn[f"went_{name}"]
        ax.scatter(lon, lat, s=16, c=[colours[k] if k >= 0 else "0.6" for k in went], edgecolors="k", linewidths=0.4)
        for k, kind in enumerate(kinds):
            if float(kind.b[0]) * sign > 0:
                x, y = where(kind.a)
                ax.plot(x, y, "*", ms=17, mfc=colours[k], mec="white", mew=1.2)
        ax.set(xticklabels=[], yticklabels=[])
        ax.set_title(f"Direction of $a$, $b {'>' if sign > 0 else '<'} 0$", loc="center")
    handles = [
        Line2D([], [], ls="", marker="*", ms=13, mfc=c, mec="white", label=f"KKT point, $N_*$ = {kind.value:.3f}")
        for c, kind in zip(colours, kinds, strict=True)
    ]
    handles += [
        Line2D([], [], ls="", marker="s", ms=9, mfc="0.88", mec="none", label="collapse"),
        Line2D([], [], ls="", marker="o", ms=4.5, mfc="w", mec="k", label="training flow"),
    ]
    top.legend(handles=handles, loc="outside lower center", ncols=3)
    axes = bottom.subplots(1, 3, width_ratios=[1.0, 1.0, 1.05])
    for ax, (name, words) in zip(axes, SADDLES.items(), strict=False):
        _contingency(ax, numbers[name], words)
    closest = axes[2]
    for (name, words), colour, shift in zip(SADDLES.items(), ("C0", "C1"), (0.88, 1.13), strict=True):
        found = numbers[name]
        lead, differ = np.array(found["closest_lead"]), np.array(found["differ"])
        for delta, other in zip(numbers["deltas"], differ, strict=True):
            closest.plot(np.full((~other).sum(), shift * delta), lead[~other], "_", color=colour, alpha=0.35, ms=9)
            closest.plot(np.full(other.sum(), shift * delta), lead[other], "x", color=colour, ms=6, mew=1.6)
        closest.plot([], [], "x", color=colour, label=f"{words.removesuffix(' net')}: other winner")
    closest.plot([], [], "_", color="0.5", ms=9, label="winner as predicted")
    d = np.array([min(numbers["deltas"]) / 1.6, max(numbers["deltas"]) * 1.6])
    closest.plot(d, 3 * d, "k--", lw=1, label=r"lead $= 3\delta$ (claimed bound)")
    low = min(float(np.min(numbers[name]["closest_lead"])) for name in SADDLES)
    closest.set(xscale="log", yscale="log", xlabel=r"$\delta$", ylabel=r"lead of the winner of $\phi$")
    closest.set_ylim(0.5 * low, 60 * float(np.max(d)))
    closest.set_title("The closest races")
    closest.legend(loc="upper left", fontsize=8)
    return fig


def _contingency(ax: Any, found: dict[str, Any], words: str) -> None:
    table = np.array(found["table"])
    ax.imshow(np.log10(1 + table), cmap="Blues", vmin=0, vmax=1.15 * math.log10(1 + STARTS), aspect="auto")
    ax.grid(visible=False)
    for (i, j), count in np.ndenumerate(table):
        ax.text(j, i, f"{count}", ha="center", va="center", color="white" if count > 300 else "black")

    def words_for(share: float) -> str:
        return f"{100 * share:.1f} ± {100 * math.sqrt(share * (1 - share) / STARTS):.1f} %"

    points = [f"layer {l}, {v:.2g}" for l, v in zip(found["kind_layer"], found["kind_value"], strict=True)]
    ticks = range(len(points))
    ax.set_xticks(ticks, [words_for(s).replace(" ± ", "\n± ") for s in found["frequency_training"]], fontsize=8)
    ax.set_yticks(ticks, [f"{p}\n{words_for(s)}" for p, s in zip(points, found["frequency_phi"], strict=True)])
    ax.tick_params(axis="y", labelsize=8)
    ax.set(xlabel="reached by the training flow", ylabel=r"predicted by $\phi$: layer, $N_*$", title=words)
