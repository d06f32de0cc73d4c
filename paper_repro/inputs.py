"""What a figure is computed from, as one fingerprint: equal fingerprints, equal numbers.

It covers the figure's module and every module of this project that it imports, directly or not, the shipped
arrays and the style, the seed, the form (quick or full), the user's own data files and the versions of the numerical
packages.  Imports are read from the source, so nothing is executed; those inside functions count, those for type
checkers do not.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
from collections.abc import Iterator
from functools import lru_cache
from importlib import resources
from pathlib import Path

from gfsim.errors import InvalidInput
from gfsim.provenance import versions

OURS = ("gfsim", "paper_repro")


def fingerprint(module: str, *, seed: int, full: bool, data: Path | None = None) -> str:
    """A hexadecimal digest of everything that the figure of ``module`` depends on.

    Parameters
    ----------
    module : str
        Dotted name of the figure's module.
    data : Path, optional
        The user's folder of data sets; its files count by name, size and time of change.
    """
    digest = hashlib.sha256(f"seed {seed}, full {full}".encode())
    for name, version in sorted(versions().items()):
        digest.update(f"\n{name} {version}".encode())
    for name, path in sorted(sources(module).items()):
        digest.update(f"\n{name} ".encode() + _hash(path.read_bytes()))
    package = resources.files("paper_repro")
    shipped = [package.joinpath("style.mplstyle"), *package.joinpath("data").iterdir()]
    for file in sorted(shipped, key=lambda f: f.name):
        if file.is_file():
            digest.update(f"\n{file.name} ".encode() + _hash(file.read_bytes()))
    if data is not None:
        for path in sorted(p for p in data.iterdir() if p.is_file()):
            digest.update(f"\n{path.resolve()} {path.stat().st_size} {path.stat().st_mtime_ns}".encode())
    return digest.hexdigest()


def sources(module: str) -> dict[str, Path]:
    """Dotted name -> file of ``module`` and of everything of this project that it imports.

    ``import gfsim``, whose names are found when they are used, counts as all of gfsim.
    """
    found: dict[str, Path] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in found or (path := _file(name)) is None:
            continue
        found[name] = path
        for wanted in _imports(path.read_text(encoding="utf-8")):
            parts = wanted.split(".")
            if parts[0] not in (*OURS, module.split(".")[0]):
                continue
            waiting += [".".join(parts[: k + 1]) for k in range(len(parts))]
            lazy = len(parts) == 2 and not parts[1].startswith("__") and _file(wanted) is None
            if parts[0] == "gfsim" and (len(parts) == 1 or lazy):
                root = path_of_package("gfsim")
                found |= {f"gfsim/{file.relative_to(root)}": file for file in root.rglob("*.py")}
    return found


def path_of_package(name: str) -> Path:
    """The folder of an importable package, which is not imported."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise InvalidInput(f"{name} is not an installed package; install it with pip")
    return Path(next(iter(spec.submodule_search_locations)))


@lru_cache(maxsize=512)
def _imports(text: str) -> tuple[str, ...]:
    """Names that may be modules; a name that is none is simply not found."""
    names: list[str] = []
    for node in _walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return tuple(names)


def _walk(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those under ``if TYPE_CHECKING:``."""
    yield node
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING":
            continue
        yield from _walk(child)


def _file(name: str) -> Path | None:
    """The source of a module or package, or None; found by its path, so that nothing below the top is imported."""
    top, *rest = name.split(".")
    spec = importlib.util.find_spec(top)
    if spec is None:
        return None
    if not rest:
        return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None
    for folder in spec.submodule_search_locations or ():
        base = Path(folder, *rest)
        for path in (base.with_name(base.name + ".py"), base / "__init__.py"):
            if path.is_file():
                return path
    return None


def _hash(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()
