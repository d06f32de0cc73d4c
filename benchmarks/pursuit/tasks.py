"""What the methods are compared on: functions whose error can be zero, and the real tables of :mod:`.tables`.

A task draws its own data from a seed.  Targets have variance one; ``n`` counts all rows that a method may see, those
that it holds out for itself included.  Inputs are standard normal or uniform on {-1, 1}^d.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from benchmarks.pursuit import tables

TEST_ROWS = 4000


@dataclass(frozen=True)
class Draw:
    """Data of one seed: rows for training (n, d), and rows that only the error is measured on."""

    X: np.ndarray = field(repr=False)
    y: np.ndarray = field(repr=False)
    X_test: np.ndarray = field(repr=False)
    y_test: np.ndarray = field(repr=False)


@dataclass(frozen=True)
class Task:
    """One row of the comparison.

    Attributes
    ----------
    name, group, title : str
    draw : function of seed -> Draw
    classes : bool
        Classification (error rate) or regression (mean square error over the variance of the training targets).
    hidden_layers : int
        For every network.
    p, alpha : int, float
        Activation max(z, alpha z)^p of the methods that have a choice; the others use ReLU.
    width : int
        Neurons a layer of Levenberg-Marquardt at fixed width.
    goal : float
        The error below which a seed counts as solved; NaN where no such thing is defined.
    bias : bool
        Whether networks have a constant input and an intercept.
    neurons : int
        Most hidden neurons of a network that grows.
    """

    name: str
    group: str
    title: str
    draw: Callable[[int], Draw] = field(repr=False)
    classes: bool = False
    hidden_layers: int = 1
    p: int = 1
    alpha: float = 0.0
    width: int = 8
    goal: float = float("nan")
    bias: bool = True
    neurons: int = 50


Target = Callable[[np.ndarray], np.ndarray]


# -- functions -----------------------------------------------------------------------------------------


def relu(z: np.ndarray) -> np.ndarray:
    return np.maximum(z, 0.0)


def published(X: np.ndarray) -> np.ndarray:
    """The target of the author's public example of Neuron Pursuit."""
    x1, x2, x3, x4 = X.T[:4]
    return 2 * relu(relu(2 * x1 + x3) - relu(x3 - x2)) - relu(relu(2 * x2 + x4) + relu(x4 + x3))


def staircase(X: np.ndarray) -> np.ndarray:
    """x1 + x1 x2 + x1 x2 x3."""
    return X[:, 0] * (1.0 + X[:, 1] * (1.0 + X[:, 2]))


def merged(X: np.ndarray) -> np.ndarray:
    """x1 x2 x3 + x4 x5."""
    return X[:, 0] * X[:, 1] * X[:, 2] + X[:, 3] * X[:, 4]


def parity(X: np.ndarray) -> np.ndarray:
    """x1 x2 x3 x4."""
    return np.prod(X[:, :4], axis=1)


def teacher(rng: np.random.Generator, d: int, hidden: tuple[int, ...], p: int) -> Target:
    """A random network with unit rows and outgoing weights of size 0.5 to 1.5."""
    matrices, inputs = [], d
    for width in hidden:
        V = rng.normal(size=(width, inputs))
        matrices.append(V / np.linalg.norm(V, axis=1, keepdims=True))
        inputs = width
    out = rng.choice([-1.0, 1.0], size=inputs) * rng.uniform(0.5, 1.5, size=inputs)

    def function(X: np.ndarray) -> np.ndarray:
        h = X
        for V in matrices:
            h = relu(h @ V.T) ** p
        return h @ out

    return function


def _inputs(rng: np.random.Generator, n: int, d: int, kind: str) -> np.ndarray:
    return rng.normal(size=(n, d)) if kind == "normal" else rng.choice([-1.0, 1.0], size=(n, d))


def _number(name: str) -> int:
    """A number of its own for each name, so that no two tasks share random numbers."""
    return int.from_bytes(name.encode(), "big") % (2**61 - 1)


def _drawn(
    name: str, n: int, d: int, kind: str, make: Callable[[np.random.Generator], Target], noise: float
) -> Callable[[int], Draw]:
    def draw(seed: int) -> Draw:
        rng = np.random.default_rng([_number(name), seed])
        target = make(rng)
        X, X_test = _inputs(rng, n, d, kind), _inputs(rng, TEST_ROWS, d, kind)
        scale = float(np.std(target(_inputs(rng, 20_000, d, kind))))
        # the error is that against the target itself: noise in the test rows would only add its variance
        return Draw(X, target(X) / scale + noise * rng.normal(size=n), X_test, target(X_test) / scale)

    return draw


def _function(
    name: str,
    group: str,
    title: str,
    n: int,
    d: int,
    kind: str,
    make: Callable[[np.random.Generator], Target],
    *,
    goal: float,
    noise: float = 0.0,
    hidden_layers: int = 2,
    p: int = 1,
    alpha: float = 0.0,
) -> Task:
    where = "N(0, I)" if kind == "normal" else "{-1, 1}^d"
    title = f"{title}; {where}, d = {d}, n = {n}" + (f", noise {noise:g}" if noise else "")
    return Task(
        name,
        group,
        title,
        _drawn(name, n, d, kind, make, noise),
        hidden_layers=hidden_layers,
        p=p,
        alpha=alpha,
        goal=goal,
    )


UNITS = {"relu": (1, 0.0), "relu2": (2, 0.0), "square": (2, -1.0)}
"""Activations by name: (p, alpha)."""

TITLES = {
    "staircase": "x1 + x1 x2 + x1 x2 x3",
    "merged": "x1 x2 x3 + x4 x5",
    "parity": "x1 x2 x3 x4",
}
FUNCTIONS = {"staircase": staircase, "merged": merged, "parity": parity}


def _teacher(group: str, unit: str, hidden: tuple[int, ...], n: int, d: int, goal: float, noise: float = 0.0) -> Task:
    p, alpha = UNITS[unit]
    name = f"teacher-{unit}-{'-'.join(map(str, hidden))}" + ("-noise" if noise else "")
    return _function(
        name,
        group,
        f"{unit} teacher {hidden}",
        n,
        d,
        "normal",
        lambda rng: teacher(rng, d, hidden, p),
        goal=goal,
        noise=noise,
        hidden_layers=len(hidden),
        p=p,
        alpha=alpha,
    )


def _sparse(
    group: str, function: str, unit: str, n: int, d: int, goal: float, kind: str = "cube", noise: float = 0.0
) -> Task:
    p, alpha = UNITS[unit]
    name = f"{function}-{unit}-d{d}-n{n}" + ("-normal" if kind == "normal" else "") + ("-noise" if noise else "")
    return _function(
        name,
        group,
        f"{TITLES[function]} by {unit}",
        n,
        d,
        kind,
        lambda _: FUNCTIONS[function],
        goal=goal,
        noise=noise,
        p=p,
        alpha=alpha,
    )


def _published() -> Task:
    name = "public-example"
    draw = _drawn(name, 1000, 20, "cube", lambda _: published, 0.0)
    return Task(name, "example", "the public example; {-1, 1}^20, n = 1000", draw, hidden_layers=2, goal=1e-10)


def fourteen() -> list[Task]:
    """Teachers and sparse functions; solved below 1e-3."""
    goal = 1e-3
    return [
        _teacher("core", "relu", (5,), 600, 15, goal),
        _teacher("core", "relu2", (5,), 600, 15, goal),
        _teacher("core", "relu", (3, 3), 600, 15, goal),
        _teacher("core", "relu2", (3, 3), 600, 15, goal),
        _sparse("core", "staircase", "relu2", 400, 15, goal),
        _sparse("core", "staircase", "relu", 400, 15, goal),
        _sparse("core", "merged", "relu2", 400, 15, goal),
        _sparse("core", "merged", "square", 400, 15, goal),
        _sparse("core", "parity", "relu2", 400, 15, goal),
        _sparse("core", "parity", "relu", 400, 15, goal),
        _sparse("core", "parity", "square", 400, 15, goal),
        _sparse("core", "staircase", "relu2", 200, 30, goal),
        _sparse("core", "staircase", "relu", 200, 30, goal),
        _sparse("core", "parity", "square", 600, 30, goal),
    ]


def seventeen() -> list[Task]:
    """d = 30; solved below 1e-2.  Some are below the number of samples at which anything is known to work."""
    goal = 1e-2
    tasks = [
        _sparse("d30", function, unit, n, 30, goal)
        for function, units, sizes in (
            ("staircase", ("relu", "relu2", "square"), (150, 300)),
            ("merged", ("relu2", "square"), (600, 1200)),
            ("parity", ("relu2", "square"), (800, 1200)),
        )
        for unit in units
        for n in sizes
    ]
    return [
        *tasks,
        _sparse("d30", "merged", "relu", 1200, 30, goal),
        _sparse("d30", "parity", "relu", 1200, 30, goal),
        _sparse("d30", "staircase", "square", 1200, 30, goal, kind="normal"),
    ]


def noisy() -> list[Task]:
    """Noise of deviation 0.3; solved when the error against the target is below a quarter of its variance."""
    noise = 0.3
    goal = noise**2 / 4
    return [
        _teacher("noise", "relu", (5,), 600, 15, goal, noise),
        _teacher("noise", "relu2", (3, 3), 600, 15, goal, noise),
        _sparse("noise", "staircase", "relu2", 400, 15, goal, noise=noise),
        _sparse("noise", "merged", "square", 600, 15, goal, noise=noise),
        _sparse("noise", "staircase", "square", 600, 15, goal, kind="normal", noise=noise),
    ]


def student_teacher() -> Task:
    """The protocol of GradMax's student and teacher: ReLU without biases, 10-10-10, weights U(-1, 1), 1000 normal rows.

    A student may have as many hidden neurons as the teacher.
    """

    def draw(seed: int) -> Draw:
        rng = np.random.default_rng([_number("gradmax"), seed])
        V, U = rng.uniform(-1, 1, size=(10, 10)), rng.uniform(-1, 1, size=(10, 10))
        X, X_test = rng.normal(size=(1000, 10)), rng.normal(size=(TEST_ROWS, 10))
        return Draw(X, relu(X @ V.T) @ U.T, X_test, relu(X_test @ V.T) @ U.T)

    return Task(
        "gradmax-student",
        "student",
        "GradMax's student-teacher protocol: ReLU, no biases, 10-10-10, n = 1000",
        draw,
        width=10,
        goal=1e-3,
        bias=False,
        neurons=10,
    )


def _table(table: tables.Table) -> Task:
    def draw(seed: int) -> Draw:
        return Draw(*table.split(seed))

    return Task(table.name, "real", table.title, draw, classes=table.classes)


def all_tasks() -> dict[str, Task]:
    """Every task by name, in the order of the page."""
    tasks = [_published(), *fourteen(), *seventeen(), *noisy(), student_teacher(), *map(_table, tables.TABLES)]
    named = {task.name: task for task in tasks}
    if len(named) != len(tasks):
        raise ValueError("two tasks share a name, and so would share their results")
    return named
