"""Output folders for the tests of the report, made by the commands themselves."""

from __future__ import annotations

import json
import re
from pathlib import Path

from gfsim.cli import main

ROOT = Path(__file__).parents[1]
STAIRS = (ROOT / "docs" / "report.md").read_text().partition("```toml\n")[2].partition("```")[0]
"""The request of docs/report.md."""

HOSTILE = (
    "</script><script>window.pwned = 1</script>",
    '"><img src=x onerror="window.pwned = 1">',
    "<svg onload='window.pwned = 1'>",
    "javascript:window.pwned=1//\u2028`${window.pwned = 1}`<!--",
)
"""Texts that run if a page lets any of them out of its quotes."""

DIAGONAL = """
seed = 1
[model]
kind = "diagonal"
inputs = 4
signed = true
[data]
kind = "random"
samples = 10
[start]
kind = "origin"
delta = 0.1
[flow]
t_end = 3.0
"""

DIVERGING = """
[model]
widths = [3, 4, 1]
activation = "square"
[data]
kind = "random"
samples = 12
[start]
kind = "origin"
delta = 3.0
[flow]
method = "euler"
step = 10.0
t_end = 200.0
"""


def simulate(folder: Path, text: str = STAIRS, expected: int = 0) -> Path:
    """Run ``gfsim simulate`` on a request; the folder it wrote."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    request = folder.parent / f"{folder.name}.toml"
    request.write_text(text, encoding="utf-8")
    assert main(["simulate", str(request), "--out", str(folder)]) == expected
    request.unlink()
    return folder


def figure(folder: Path, name: str = "made_up", **changes: object) -> Path:
    """A figure's files as ``gfsim reproduce`` writes them, with entries of its JSON changed."""
    record = {
        "name": name,
        "title": "A figure",
        "source": "nobody, 1900",
        "caption": "What is seen.",
        "convention": "mean",
        "full": False,
        "seed": 5,
        "claims": [claim()],
        "notes": ["a note"],
        "versions": {"gfsim": "0"},
        "seconds": 1.5,
        "numbers": {"error": 1e-9, "many": [1.0, 2.0]},
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(record | changes))
    (folder / f"{name}.svg").write_text(
        '<svg xmlns="http://www.w3.org/2000/svg" width="40" height="30" viewBox="0 0 40 30">'
        '<script>window.top.pwned = 1</script><rect id="a" width="40" height="30" style="fill:#0072b2"'
        ' onload="window.top.pwned = 1"/></svg>'
    )
    return folder


def claim(**changes: object) -> dict[str, object]:
    return {
        "name": "the error is small",
        "expected": "<= 1e-06",
        "measured": 1e-9,
        "holds": True,
        "relation": "<=",
        "bound": 1e-6,
        "source": "closed form",
        "of": ["error"],
    } | changes


def hostile_folder(folder: Path) -> Path:
    """Every kind of text that a user may choose, hostile."""
    words = " ".join(HOSTILE)
    text = (
        re.sub(r"title = .*", lambda _: f"title = {json.dumps(words)}", STAIRS)
        + f"\n# {words.replace(chr(0x2028), ' ')}\n"
    )
    simulate(folder / "flow", text)
    figure(
        folder / 'a"b<i>&',
        title=words,
        source=words,
        caption=words,
        notes=[words],
        claims=[claim(name=words, source=words, of=[words])],
        versions={words: words},
        numbers={words: words, "half": "\ud800"},
    )
    (folder / "<img src=x onerror=alert(1)>.error.txt").write_text(words)
    return folder
