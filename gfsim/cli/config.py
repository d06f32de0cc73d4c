"""The TOML file of ``gfsim simulate``: read strictly, every key checked before anything is computed.

A key that a table does not know is an error that names the nearest right one; so is a key that belongs
to another ``kind`` of the same table.  Relative paths are relative to the file itself.
"""

from __future__ import annotations

import difflib
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gfsim.errors import InvalidInput, unreadable

_REQUIRED: Any = ...
"""The default of a key that has none."""

EXAMPLE = """\
# gfsim simulate near-saddle.toml --out out/near-saddle
#
# A three-layer net with s(z) = z^2 starts a distance delta from the sparse saddle at which one neuron of
# each hidden layer is active, and escapes from it.

title = "Escape from a one-neuron saddle"   # of the report's page; may be left out
seed = 0                    # of everything that is drawn, unless a table has its own

[model]
kind = "feedforward"        # or: diagonal, factorisation
widths = [10, 10, 10, 1]    # inputs, hidden layers ..., outputs
activation = "square"       # relu, leaky, linear, square, tanh, gelu; p = 2 and alpha = 0.1 refine them

[data]
kind = "teacher"            # or: random, low_rank, published, file
samples = 100
teacher_hidden = [2, 2]     # labels of a random net of the same activation
inputs = "sphere"           # unit vectors; or: normal, signs (-1 and +1)

[loss]
name = "square"             # (q - y)^2; or: logistic, with labels -1 and +1
reduction = "sum"           # or: mean; a mean makes time run slower by the number of samples

[start]
kind = "saddle"             # or: origin, published, file
active = [1, 1]             # active neurons of each hidden layer (a count, or a list of units)
delta = 1e-3                # start at (wbar_n + delta n, delta z), n and z random unit vectors
direction = "random"        # or: kkt, which puts z on the best KKT point of the NCF

[flow]
method = "LSODA"            # or: auto, ndf, rkc, dp5, dp8; RK23, RK45, DOP853, BDF, Radau;
                            # or euler, heun, rk4 with step = ... instead of rtol and clock
clock = "auto"              # ds = |w_z|^(K-2) dt at a saddle; or: t, rescaled (ds = |w|^(D-2) dt)
t_end = inf                 # physical time; inf when an event stops the flow
rtol = 1e-8

[[event]]
kind = "norm"               # |w_z| rises through level; or: loss, exit, stationary, slow
of = "small"
level = 0.5
stop = true
"""

MODEL_KINDS = ("feedforward", "diagonal", "factorisation")
DATA_KINDS = ("teacher", "random", "low_rank", "published", "file")
START_KINDS = ("origin", "saddle", "published", "file")
EVENT_KINDS = ("loss", "norm", "exit", "stationary", "slow")
FIXED_STEP = ("euler", "heun", "rk4")
METHODS = ("auto", "ndf", "rkc", "dp5", "dp8", "RK23", "RK45", "DOP853", "BDF", "Radau", "LSODA", *FIXED_STEP)
ACTIVATIONS = ("relu", "leaky", "linear", "square", "tanh", "gelu")


@dataclass(frozen=True)
class ModelSpec:
    kind: str
    widths: tuple[int, ...] = ()
    activation: str = "relu"
    p: int | None = None
    alpha: float | None = None
    depth: int = 2
    tied: bool = False
    signed: bool = False
    rank: int = 1
    symmetric: bool = False


@dataclass(frozen=True)
class DataSpec:
    kind: str
    seed: int
    samples: int = 0
    inputs: str = "normal"
    teacher_hidden: tuple[int, ...] = ()
    label_rms: float = 1.0
    noise: float = 0.0
    rank: int = 1
    name: str = ""
    path: Path | None = None
    target: str | None = None
    samples_are_columns: bool = False


@dataclass(frozen=True)
class StartSpec:
    kind: str
    seed: int
    delta: float = 0.0
    direction: str = "random"
    active: tuple[int | tuple[int, ...], ...] = ()
    starts: int = 12
    rank: int = 0
    path: Path | None = None
    factor: float = 1.0


@dataclass(frozen=True)
class FlowSpec:
    method: str
    clock: str
    t_end: float
    rtol: float | None
    step: float | None
    device: str | None
    rows: int | None
    max_steps: int


@dataclass(frozen=True)
class EventSpec:
    kind: str
    level: float
    of: str
    stop: bool


@dataclass(frozen=True)
class Simulation:
    """A whole request, checked as far as that is possible without computing; ``text`` is the file itself."""

    text: str
    model: ModelSpec
    data: DataSpec
    loss: str
    reduction: str
    start: StartSpec
    flow: FlowSpec
    events: tuple[EventSpec, ...]
    seed: int
    title: str = ""


def read(path: Path, *, seed: int | None = None) -> Simulation:
    """The request in a TOML file; ``seed`` replaces the file's own top-level seed."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as exc:
        raise unreadable(path, exc, "give a request in TOML (gfsim simulate --example prints one)") from None
    except UnicodeDecodeError:
        raise InvalidInput(f"{path} is not UTF-8 text; a TOML file is expected (gfsim simulate --example)") from None
    return parse(text, str(path), folder=path.parent, seed=seed)


def parse(text: str, source: str = "config", *, folder: Path = Path("."), seed: int | None = None) -> Simulation:
    """The request in a TOML text; messages call it ``source``.

    Raises
    ------
    InvalidInput
        For text that is not TOML, unknown tables or keys, wrong types, values out of range and
        combinations that make no sense.  One problem at a time.
    """
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise InvalidInput(f"{source} is not valid TOML: {exc}") from None
    top = Table(content, source, "")
    title = top.maybe_text("title") or ""
    base = top.whole("seed", 0, least=0)
    base = base if seed is None else seed
    model = _model(top.table("model"))
    data = _data(top.table("data"), model, base, folder)
    loss_table = top.table("loss", optional=True)
    loss = loss_table.choice("name", ("square", "logistic"), "square")
    reduction = loss_table.choice("reduction", ("sum", "mean"), "sum")
    loss_table.finish()
    start = _start(top.table("start"), model, data, base, folder)
    flow = _flow(top.table("flow"))
    events = tuple(_event(table, start) for table in top.tables("event"))
    top.finish()
    if math.isinf(flow.t_end) and not any(event.stop for event in events):
        raise InvalidInput(f"{source}: t_end = inf and no [[event]] has stop = true; give a finite t_end or a stop")
    return Simulation(text, model, data, loss, reduction, start, flow, events, base, title)


def _model(t: Table) -> ModelSpec:
    kind = t.choice("kind", MODEL_KINDS, "feedforward")
    if kind == "feedforward":
        spec = ModelSpec(
            kind,
            widths=t.wholes("widths", least=1, length=2),
            activation=t.choice("activation", ACTIVATIONS, "relu"),
            p=t.maybe_whole("p", least=1),
            alpha=t.maybe_number("alpha"),
        )
    elif kind == "diagonal":
        spec = ModelSpec(
            kind,
            widths=(t.whole("inputs", least=1), 1),
            depth=t.whole("depth", 2, least=1),
            tied=t.flag("tied", False),
            signed=t.flag("signed", False),
        )
    else:
        rows, cols = t.whole("rows", least=1), t.whole("cols", least=1)
        spec = ModelSpec(
            kind,
            widths=(rows, cols),
            rank=t.whole("rank", min(rows, cols), least=1),
            symmetric=t.flag("symmetric", False),
        )
    t.finish(f" for kind = {kind!r}")
    return spec


def _data(t: Table, model: ModelSpec, base: int, folder: Path) -> DataSpec:
    kind = t.choice("kind", DATA_KINDS)
    seed = t.whole("seed", base, least=0)
    if kind == "low_rank":
        if model.kind != "factorisation":
            raise t.misplaced("kind", kind, "model kind 'factorisation'")
        spec = DataSpec(kind, seed, rank=t.whole("rank", least=1), label_rms=t.number("label_rms", 1.0, above=0))
    elif kind in ("teacher", "random"):
        if kind == "teacher" and model.kind != "feedforward":
            raise t.misplaced("kind", kind, "model kind 'feedforward'; use 'random'")
        spec = DataSpec(
            kind,
            seed,
            samples=t.whole("samples", least=1),
            inputs=t.choice("inputs", ("normal", "sphere", "signs"), "normal"),
            teacher_hidden=_teacher(t, model) if kind == "teacher" else (),
            label_rms=t.number("label_rms", 1.0, above=0),
            noise=t.number("noise", 0.0, least=0) if kind == "teacher" else 0.0,
        )
    elif kind == "published":
        spec = DataSpec(kind, seed, name=t.text("name"))
    else:
        path = folder / t.text("path")
        if path.suffix not in (".npz", ".csv"):
            raise t.wrong("path", str(path), "a .npz (arrays X and y) or a .csv (with target = its label column)")
        spec = DataSpec(
            kind,
            seed,
            path=path,
            target=t.text("target") if path.suffix == ".csv" else None,
            samples_are_columns=t.flag("samples_are_columns", False) if path.suffix == ".npz" else False,
        )
    t.finish(f" for kind = {kind!r}")
    return spec


def _teacher(t: Table, model: ModelSpec) -> tuple[int, ...]:
    hidden = t.wholes("teacher_hidden", least=1, length=1)
    if len(hidden) != len(model.widths) - 2:
        raise t.wrong(
            "teacher_hidden", list(hidden), f"one width for each of the {len(model.widths) - 2} hidden layers"
        )
    return hidden


def _start(t: Table, model: ModelSpec, data: DataSpec, base: int, folder: Path) -> StartSpec:
    kind = t.choice("kind", START_KINDS)
    seed = t.whole("seed", base, least=0)
    if kind in ("origin", "saddle"):
        if kind == "saddle" and model.kind != "feedforward":
            raise t.misplaced("kind", kind, "model kind 'feedforward': sparse saddles are defined by its neurons")
        direction = t.choice("direction", ("random", "kkt"), "random")
        spec = StartSpec(
            kind,
            seed,
            delta=t.number("delta", above=0),
            direction=direction,
            active=t.units("active", len(model.widths) - 2) if kind == "saddle" else (),
            starts=t.whole("starts", 12, least=1) if kind == "saddle" or direction == "kkt" else 12,
            rank=t.whole("rank", 0, least=0) if kind == "saddle" else 0,
        )
    elif kind == "published":
        if data.kind != "published":
            raise t.misplaced("kind", kind, "data kind 'published', whose initial weights it takes")
        spec = StartSpec(kind, seed, factor=t.number("factor", 1.0, above=0))
    else:
        path = folder / t.text("path")
        if path.suffix != ".npz":
            raise t.wrong("path", str(path), "a .npz with the flat weights w, or the matrices W1, W2, ...")
        spec = StartSpec(kind, seed, path=path, factor=t.number("factor", 1.0, above=0))
    t.finish(f" for kind = {kind!r}")
    return spec


def _flow(t: Table) -> FlowSpec:
    method = t.choice("method", METHODS, "LSODA")
    fixed = method in FIXED_STEP
    clock = "t" if fixed else t.choice("clock", ("auto", "t", "rescaled"), "auto")
    spec = FlowSpec(
        method,
        clock,
        t_end=t.number("t_end", above=0, infinite=True),
        rtol=None if fixed else t.number("rtol", 1e-6, above=0),
        step=t.number("step", above=0) if fixed else None,
        device=t.maybe_text("device") if fixed else None,
        rows=t.maybe_whole("rows", least=1),
        max_steps=t.whole("max_steps", 200_000, least=1),
    )
    t.finish(f" for method = {method!r}")
    if spec.rows is not None and math.isinf(spec.t_end):
        raise t.misplaced("rows", spec.rows, "a finite t_end: rows are equally spaced times up to it")
    return spec


def _event(t: Table, start: StartSpec) -> EventSpec:
    kind = t.choice("kind", EVENT_KINDS)
    of = "all"
    if kind == "norm":
        of = t.choice("of", ("all", "small"), "all")
        if of == "small" and start.kind != "saddle":
            raise t.misplaced("of", of, "a start of kind 'saddle', whose inactive weights it means")
    key = {"exit": "radius", "stationary": "tolerance"}.get(kind, "level")
    spec = EventSpec(kind, t.number(key, above=0), of, t.flag("stop", True))
    t.finish(f" for kind = {kind!r}")
    return spec


class Table:
    """One TOML table, read key by key; :meth:`finish` refuses whatever was not asked for."""

    def __init__(self, content: Mapping[str, Any], source: str, name: str) -> None:
        self._content, self._source, self._name = content, source, name
        self._known: list[str] = []

    @property
    def _where(self) -> str:
        return f"{self._source}: {self._name}".rstrip(": ")

    def wrong(self, key: str, value: object, rule: str) -> InvalidInput:
        return InvalidInput(f"{self._where}: {key} = {value!r} is not allowed; it must be {rule}")

    def misplaced(self, key: str, value: object, partner: str) -> InvalidInput:
        return InvalidInput(f"{self._where}: {key} = {value!r} goes only with {partner}")

    def finish(self, circumstance: str = "") -> None:
        for key in self._content:
            if key not in self._known:
                near = difflib.get_close_matches(key, self._known, n=1, cutoff=0.5)
                hint = f" Did you mean {near[0]!r}?" if near else ""
                raise InvalidInput(
                    f"{self._where} has no key {key!r}{circumstance}.{hint} Known: {', '.join(sorted(self._known))}."
                )

    def _get(self, key: str, default: Any, rule: str) -> Any:
        self._known.append(key)
        if key in self._content:
            return self._content[key]
        if default is not _REQUIRED:
            return default
        near = difflib.get_close_matches(key, [k for k in self._content if k not in self._known], n=1, cutoff=0.6)
        hint = f" (the file has {near[0]!r}: a misspelling?)" if near else ""
        raise InvalidInput(f"{self._where}: {key} is missing; it must be {rule}{hint}")

    # -- one method a type ---------------------------------------------------------------------------

    def text(self, key: str, default: Any = _REQUIRED) -> str:
        value = self._get(key, default, "a text in quotes")
        if not isinstance(value, str) or not value:
            raise self.wrong(key, value, "a text in quotes")
        return value

    def maybe_text(self, key: str) -> str | None:
        self._known.append(key)
        return self.text(key) if key in self._content else None

    def choice(self, key: str, options: Sequence[str], default: Any = _REQUIRED) -> str:
        rule = f"one of {', '.join(options)}"
        value = self._get(key, default, rule)
        if value not in options:
            near = difflib.get_close_matches(str(value), options, n=1, cutoff=0.4)
            raise self.wrong(key, value, rule + (f"; did you mean {near[0]!r}?" if near else ""))
        return str(value)

    def flag(self, key: str, default: bool) -> bool:
        value = self._get(key, default, "true or false")
        if not isinstance(value, bool):
            raise self.wrong(key, value, "true or false")
        return value

    def whole(self, key: str, default: Any = _REQUIRED, *, least: int) -> int:
        rule = f"a whole number >= {least}"
        return self._whole(key, self._get(key, default, rule), least, rule)

    def _whole(self, key: str, value: object, least: int, rule: str) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise self.wrong(key, value, rule)
        return value

    def maybe_whole(self, key: str, *, least: int) -> int | None:
        self._known.append(key)
        return self.whole(key, least=least) if key in self._content else None

    def number(
        self,
        key: str,
        default: Any = _REQUIRED,
        *,
        above: float | None = None,
        least: float | None = None,
        infinite: bool = False,
    ) -> float:
        rule = "a number" if infinite else "a finite number"
        rule += f" > {above:g}" if above is not None else f" >= {least:g}" if least is not None else ""
        value = self._get(key, default, rule)
        if (
            isinstance(value, bool)
            or not isinstance(value, (int, float))
            or math.isnan(value)
            or (math.isinf(value) and not infinite)
            or (above is not None and value <= above)
            or (least is not None and value < least)
        ):
            raise self.wrong(key, value, rule)
        return float(value)

    def maybe_number(self, key: str) -> float | None:
        self._known.append(key)
        return self.number(key) if key in self._content else None

    def wholes(self, key: str, *, least: int, length: int) -> tuple[int, ...]:
        rule = f"a list of at least {length} whole numbers >= {least}"
        value = self._get(key, _REQUIRED, rule)
        if not isinstance(value, list) or len(value) < length:
            raise self.wrong(key, value, rule)
        return tuple(self._whole(key, entry, least, rule) for entry in value)

    def units(self, key: str, layers: int) -> tuple[int | tuple[int, ...], ...]:
        rule = f"a list with one count or list of units for each of the {layers} hidden layer(s)"
        value = self._get(key, _REQUIRED, rule)
        if not isinstance(value, list) or len(value) != layers:
            raise self.wrong(key, value, rule)
        return tuple(
            tuple(self._whole(key, unit, 0, rule) for unit in entry)
            if isinstance(entry, list)
            else self._whole(key, entry, 0, rule)
            for entry in value
        )

    def table(self, key: str, *, optional: bool = False) -> Table:
        value = self._get(key, {} if optional else _REQUIRED, f"a table: start it with a line [{key}]")
        if not isinstance(value, dict):
            raise self.wrong(key, value, f"a table: start it with a line [{key}]")
        return Table(value, self._source, f"[{key}]")

    def tables(self, key: str) -> list[Table]:
        value = self._get(key, [], "")
        if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
            raise self.wrong(key, value, f"a list of tables: start each with a line [[{key}]]")
        return [Table(entry, self._source, f"[[{key}]] number {n}") for n, entry in enumerate(value, start=1)]
