"""The gallery: every figure in figures/, with its caption and claims, read from its JSON file when the site is built.

A claim that does not hold is shown, in red, like the others.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from paper_repro.claims import show
from paper_repro.registry import FIGURES

ROOT = Path(__file__).resolve().parents[2]


def figures(folder: Path = ROOT / "figures") -> list[dict[str, Any]]:
    """What the JSON files say, in the order of the registry; a figure that it does not list comes last."""
    order = {entry.name: k for k, entry in enumerate(FIGURES)}
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    return sorted((f for f in found if "claims" in f), key=lambda f: order.get(f["name"], len(order)))


class Gallery(SphinxDirective):
    """``{gallery}``"""

    def run(self) -> list[nodes.Node]:
        out: list[nodes.Node] = []
        for figure in figures():
            out.append(self._section(figure))
        return out

    def _section(self, figure: dict[str, Any]) -> nodes.section:
        name = figure["name"]
        for kind in ("json", "png"):
            self.env.note_dependency(str(ROOT / "figures" / f"{name}.{kind}"))
        section = nodes.section(ids=[name], names=[name])
        section += nodes.title("", figure["title"])
        section += nodes.paragraph("", f"{figure['source']}.")
        image = nodes.image(uri=f"/../figures/{name}.png", alt=f"{figure['title']}: {figure['caption']}")
        frame = nodes.figure("", image)
        frame += nodes.caption("", figure["caption"])
        section += frame
        held = sum(claim["holds"] is True for claim in figure["claims"])
        where = nodes.paragraph()
        clock = f"Clock of the {figure['convention']} over samples. " if figure["convention"] else ""
        form = "the papers' own sizes" if figure["full"] else "quick form"
        where += nodes.Text(f"{held} of {len(figure['claims'])} claims hold. {clock}Seed {figure['seed']}, {form}. ")
        where += nodes.Text("Drawn by ")
        where += nodes.literal("", f"gfsim reproduce {name}")
        where += nodes.Text("; code: ")
        module = next((e.module for e in FIGURES if e.name == name), f"paper_repro.{name}").replace(".", "/") + ".py"
        link = nodes.reference(refuri=f"source:{module}")
        link += nodes.literal("", module)
        where += [link, nodes.Text(".")]
        section += where
        section += _table(figure["claims"])
        return section


class FailedClaims(SphinxDirective):
    """``{failed-claims}``: the claims of the gallery that do not hold."""

    def run(self) -> list[nodes.Node]:
        known = figures()
        for figure in known:
            self.env.note_dependency(str(ROOT / "figures" / f"{figure['name']}.json"))
        claims = [(figure["name"], claim) for figure in known for claim in figure["claims"]]
        failed = [(name, claim) for name, claim in claims if claim["holds"] is not True]
        if not failed:
            return [nodes.paragraph("", f"None: all {len(claims)} claims of {len(known)} figures hold.")]
        listed = nodes.bullet_list()
        for name, claim in failed:
            item = nodes.list_item()
            text = f"{claim['name']}: expected {claim['expected']}, measured {show(claim['measured'])}"
            item += nodes.paragraph("", f"{name}: {text}", classes=["failed"])
            listed += item
        return [nodes.paragraph("", f"{len(failed)} of {len(claims)}:"), listed]


def _table(claims: list[dict[str, Any]]) -> nodes.table:
    table = nodes.table(classes=["claims"])
    group = nodes.tgroup(cols=4)
    table += group
    for width in (40, 25, 20, 15):
        group += nodes.colspec(colwidth=width)
    head, body = nodes.thead(), nodes.tbody()
    group += [head, body]
    head += _row(["claim", "expected", "measured", "source"])
    for claim in claims:
        mark = "✓ " if claim["holds"] is True else "✗ does not hold: "
        row = _row([mark + claim["name"], str(claim["expected"]), show(claim["measured"]), str(claim["source"])])
        row["classes"] = ["held" if claim["holds"] is True else "failed"]
        body += row
    return table


def _row(texts: list[str]) -> nodes.row:
    row = nodes.row()
    for text in texts:
        entry = nodes.entry()
        entry += nodes.paragraph("", text)
        row += entry
    return row


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("gallery", Gallery)
    app.add_directive("failed-claims", FailedClaims)
    return {"parallel_read_safe": True}
