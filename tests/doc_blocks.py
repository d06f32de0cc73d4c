"""Code blocks of the documentation: collected, run in order, their shown outputs compared with the real ones.

What a block is, by the first word after its fence:

    python   run; the blocks of a page share one namespace and one empty working folder
    sh       run line by line in that folder; an indented block of commands counts as sh
    output   what the block above printed; numbers may differ a little, "..." stands for anything
    toml, csv with a first line "# file: NAME"   written to NAME

Commands of make and pip, which make the environment itself, are not run; nor is a sh block whose first line is
"# not run: REASON", which readers see too.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = ("gfsim ", "make ", "pip ")
OUTSIDE = ("make ", "pip ")
"""Commands that make the environment itself; they are shown and not run."""
NOT_RUN = "# not run:"
FILE = re.compile(r"# file: (\S+)\n")
NUMBER = re.compile(r"(?<![\w.])[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?(?![\w])")


@dataclass
class Block:
    """A code block of a page and, where shown, what it prints."""

    page: Path
    line: int
    kind: str
    text: str
    output: str | None = None

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def left_out(self) -> bool:
        return self.text.startswith(NOT_RUN)


def pages() -> list[Path]:
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path) -> list[Block]:
    """The blocks of a page that mean something here; a kind that is not known is an error."""
    found: list[Block] = []
    for token in MarkdownIt("commonmark").parse(page.read_text(encoding="utf-8")):
        line = (token.map or [0])[0] + 1
        if token.type == "code_block":
            kind = "sh" if token.content.startswith((*COMMANDS, NOT_RUN)) else "text"
        elif token.type == "fence":
            kind = (token.info.split() or ["text"])[0]
        else:
            continue
        if kind == "output":
            if not found or found[-1].output is not None:
                raise ValueError(f"{page.name}:{line}: an output block with no block above it")
            found[-1].output = token.content
        elif kind in ("python", "sh") or (kind in ("toml", "csv") and FILE.match(token.content)):
            found.append(Block(page, line, kind, token.content))
        elif kind not in ("text",) and not kind.startswith("{"):
            raise ValueError(f"{page.name}:{line}: a block of kind {kind!r}; see tests/doc_blocks.py")
    return found


@dataclass
class Session:
    """Runs the blocks of one page in ``folder``."""

    folder: Path
    names: dict[str, Any] = field(default_factory=lambda: {"__name__": "__main__"})

    def run(self, block: Block) -> str:
        """What the block printed.  Raises whatever it raises."""
        if block.kind == "python":
            out = io.StringIO()
            # padded, so that a traceback names the line of the page
            code = compile("\n" * block.line + block.text, str(block.page), "exec")
            with contextlib.redirect_stdout(out):
                exec(code, self.names)
            return out.getvalue()
        if block.kind == "sh":
            left_out = not_run(block)
            return "".join(self._command(line, block) for line in commands(block.text) if line not in left_out)
        match = FILE.match(block.text)
        assert match
        (self.folder / match[1]).write_text(block.text, encoding="utf-8")
        return ""

    def _command(self, line: str, block: Block) -> str:
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        env = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "GFSIM_CACHE": str(self.folder / ".cache")}
        done = subprocess.run(
            ["bash", "-c", line], cwd=self.folder, env=env, capture_output=True, text=True, timeout=120, check=False
        )
        wanted = int(match[1]) if (match := re.search(r"# exit code (\d+)$", line)) else 0
        if done.returncode != wanted:
            raise AssertionError(f"{block}: {line!r} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
        return done.stdout + (done.stderr if wanted else "")


def commands(text: str) -> Iterator[str]:
    """The commands of a sh block; lines that end in a backslash go on."""
    for line in text.replace("\\\n", " ").splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            yield line.strip()


def not_run(block: Block) -> list[str]:
    """The commands of a block that are shown only."""
    if block.kind != "sh":
        return []
    return [line for line in commands(block.text) if block.left_out or line.startswith(OUTSIDE)]


def difference(shown: str, real: str) -> str | None:
    """How the real output differs from the one shown on the page, or None.

    Runs of blanks count as one.  A number agrees with another that is printed differently if it is
    - an integer below 20: equal;
    - any other integer (counts of steps and the like): within 10 %;
    - of size below 1e-6 in both (residuals, drifts): within a factor of 100, and below 1e-12 always;
    - else: within 1 %, or one unit of the last decimal shown.
    """
    wanted, got = (" ".join(text.split()) for text in (shown, real))
    pattern, numbers, last = "", [], 0
    for number in re.finditer(f"{NUMBER.pattern}|\\.\\.\\.", wanted):
        pattern += re.escape(wanted[last : number.start()])
        last = number.end()
        if number.group() == "...":
            pattern += ".*?"
        else:
            pattern += f"({NUMBER.pattern})"
            numbers.append(number.group())
    match = re.fullmatch(pattern + re.escape(wanted[last:]), got)
    if match is None:
        return f"shown:\n{shown}\nreal:\n{real}"
    for want, have in zip(numbers, match.groups(), strict=True):
        if not agree(want, have):
            return f"{want} is shown, {have} is real:\n{real}"
    return None


def agree(want: str, have: str) -> bool:
    """Whether two printed numbers agree in the sense of :func:`difference`."""
    a, b = float(want), float(have)
    if a == b:
        return True
    if re.fullmatch(r"[-+]?\d+", want):
        return abs(a) >= 20 and abs(a - b) <= 0.1 * abs(a)
    small, large = sorted((abs(a), abs(b)))
    if large < 1e-6:
        return large < 1e-12 or large <= 100 * small
    decimals = len(want.partition(".")[2]) if "e" not in want.lower() else 300
    return abs(a - b) <= max(1e-2 * large, 1.01 * 10.0**-decimals)


def main(names: list[str]) -> None:
    """Print what the blocks of the named pages print, to be pasted into their output blocks."""
    import tempfile

    os.environ.setdefault("MPLBACKEND", "Agg")
    for name in names:
        page = (Path.cwd() / name).resolve()
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            session = Session(Path(folder))
            for block in blocks(page):
                print(f"--- {block}\n{session.run(block)}", end="")


if __name__ == "__main__":
    main(sys.argv[1:])
