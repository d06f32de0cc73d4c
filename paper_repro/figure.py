"""What a figure module is given and what it returns (the contract is in :mod:`paper_repro`)."""

from __future__ import annotations

import contextlib
import io
import textwrap
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from gfsim.errors import unknown_name
from paper_repro.claims import Claim, show

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Convention = Literal["sum", "mean", ""]

AS_TAKEN = "as_taken"
"""Entry of ``numbers`` for curves at an adaptive integrator's own steps: drawn, but not compared between runs."""


@dataclass
class Context:
    """What a figure is made with.

    Attributes
    ----------
    name : str
    seed : int
    full : bool
    report : callable
        Takes one line for the progress display.
    stopping : callable
        Whether the user has asked to stop.
    data_folder : Path or None
        The user's own copies of data sets, if they gave a folder.
    """

    name: str
    seed: int = 0
    full: bool = False
    report: Callable[[str], None] = lambda _: None
    stopping: Callable[[], bool] = lambda: False
    data_folder: Path | None = None

    def rng(self, *purpose: str | int) -> np.random.Generator:
        """A generator of its own for each purpose, fixed by seed, figure name and purpose."""
        key = [zlib.crc32(str(part).encode()) for part in (self.name, *purpose)]
        return np.random.default_rng([self.seed, *key])

    def note(self, text: str) -> None:
        """Show what is being done; raises ``KeyboardInterrupt`` if the user has asked to stop."""
        self.report(text)
        if self.stopping():
            raise KeyboardInterrupt

    def data(self, name: str) -> dict[str, np.ndarray]:
        """The arrays of a shipped data set, as float64.

        The authors' X is (n_features, n_samples) on file; see ``paper_repro/data/README.md``.
        """
        return load_data(name)

    def figure(self, *, size: tuple[float, float] = (7.0, 4.2), **options: Any) -> Figure:
        """An empty figure of ``size`` inches, outside pyplot."""
        from matplotlib.figure import Figure

        options.setdefault("layout", "constrained")
        return Figure(figsize=size, **options)

    def subplots(
        self, rows: int = 1, columns: int = 1, *, size: tuple[float, float] = (7.0, 4.2), **options: Any
    ) -> tuple[Figure, Any]:
        """A figure and its axes, as ``matplotlib.figure.Figure.subplots`` returns them."""
        fig = self.figure(size=size)
        return fig, fig.subplots(rows, columns, **options)


@dataclass(frozen=True)
class Outcome:
    """A figure with the claims it makes and the numbers it is made of."""

    figure: Figure
    claims: Sequence[Claim]
    numbers: Mapping[str, object]
    caption: str
    convention: Convention = ""
    notes: Sequence[str] = field(default=())
    animation: bytes | None = field(default=None, repr=False)
    """A GIF that the runner writes beside the stills; see :func:`gif`."""


def gif(
    figure: Figure,
    show: Callable[[int], None],
    count: int,
    *,
    dpi: int = 80,
    milliseconds: int = 140,
    hold: int = 2500,
) -> bytes:
    """``figure`` as ``show(0)`` .. ``show(count - 1)`` leave it, one picture each; the last one stays for ``hold`` ms.

    Equal pictures make equal bytes: no dates, and one palette of 64 colours, that of the last picture.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    canvas = FigureCanvasAgg(figure)
    figure.set_dpi(dpi)
    pictures = []
    for k in range(count):
        show(k)
        canvas.draw()
        pictures.append(Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy()))
    palette = pictures[-1].quantize(64)
    flat = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    buffer = io.BytesIO()
    durations = [milliseconds] * (count - 1) + [hold]
    flat[0].save(buffer, "GIF", save_all=True, append_images=flat[1:], duration=durations, loop=0, optimize=True)
    return buffer.getvalue()


FAILED = "#b00020"
"""The red of a claim that does not hold."""


def mark_failures(figure: Figure, claims: Sequence[Claim]) -> None:
    """Write the claims that do not hold over the figure, in red: it must not be mistaken for one that agrees."""
    failed = [claim for claim in claims if not claim.holds]
    if not failed:
        return
    lines = [f"NOT HELD: {c.name}: {show(c.measured, digits=c.digits)}, expected {show(c.expected)}" for c in failed]
    columns = int(figure.get_size_inches()[0] * 13)
    text = "\n".join(piece for line in lines for piece in textwrap.wrap(line, columns, subsequent_indent="    "))
    figure.suptitle(text, color=FAILED, fontsize=9, ha="left", x=0.01, weight="bold", parse_math=False)


def load_data(name: str) -> dict[str, np.ndarray]:
    folder = resources.files("paper_repro").joinpath("data")
    known = sorted(p.name.removesuffix(".npz") for p in folder.iterdir() if p.name.endswith(".npz"))
    if name not in known:
        raise unknown_name("data set", name, known)
    with np.load(io.BytesIO(folder.joinpath(f"{name}.npz").read_bytes()), allow_pickle=False) as arrays:
        return {key: arrays[key].astype(np.float64) for key in arrays.files}


@contextlib.contextmanager
def styled() -> Iterator[None]:
    """The project's matplotlib style, on a canvas that needs no display."""
    import matplotlib

    style = resources.files("paper_repro").joinpath("style.mplstyle")
    with resources.as_file(style) as path, matplotlib.rc_context(fname=path):
        yield
