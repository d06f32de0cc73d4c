"""The package as its users get it: a built wheel, used far from any checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(*command: object, cwd: Path, **env: str) -> str:
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=os.environ | env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


@pytest.mark.slow
def test_a_built_wheel_works_in_any_folder(tmp_path: Path) -> None:
    source, site, away = tmp_path / "source", tmp_path / "site", tmp_path / "away"
    away.mkdir()
    source.mkdir()
    for name in ("gfsim", "paper_repro", "proofs_checks"):
        if (ROOT / name).exists():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
    run(*pip, "wheel", source, "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path, cwd=away)
    (wheel,) = tmp_path.glob("gfsim-*.whl")
    run(*pip, "install", wheel, "--no-deps", "--target", site, cwd=away)

    where = run(sys.executable, "-c", "import gfsim; print(gfsim.__file__)", cwd=away, PYTHONPATH=str(site))
    assert Path(where.strip()).is_relative_to(site), "another gfsim was imported"
    assert "first_saddle" in run(site / "bin" / "gfsim", "reproduce", "--list", cwd=away, PYTHONPATH=str(site))
    out = run(sys.executable, "-m", "gfsim", "reproduce", "toy", "--out", "figs", cwd=away, PYTHONPATH=str(site))
    assert "figs" in out
    assert {p.name for p in (away / "figs").iterdir()} == {"toy.png", "toy.svg", "toy.json", "claims.md"}
    run(sys.executable, "-m", "gfsim", "report", "figs", cwd=away, PYTHONPATH=str(site))  # its style and script are in
    assert "walk" in (away / "figs" / "report.html").read_text()
    loads = "from paper_repro.figure import load_data; print(load_data('two_layer_relu')['X'].shape)"
    assert run(sys.executable, "-c", loads, cwd=away, PYTHONPATH=str(site)).strip() == "(20, 100)"
