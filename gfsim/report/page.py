"""Sections as one HTML page that needs nothing else and lets nothing in.

Every text goes through :func:`html.escape`; data for the script is JSON in which no character can end its
element; pictures are ``data:`` URIs in ``<img>``, where an SVG is a document of its own: its ids meet no others
and a script in it does not run.  The policy in the head allows this page's one style and one script, by their
hashes, and nothing from anywhere else.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable
from html import escape
from importlib import resources

from gfsim.provenance import versions
from gfsim.report.collect import Content
from gfsim.report.sections import Claim, Picture, Section, Table, Text, View

VERDICTS = {"held": "held", "failed": "NOT held", "unchecked": "not checked"}
MARKS = {"held": "✓", "failed": "✗", "unchecked": "?"}
SCRIPT = ("tools", "axes", "plot", "heatmap", "walk")
"""The parts of the page's script, in this order."""

LONGEST_PRINTED = 80
"""Lines of a folded text above which it stays folded on paper."""

HEADER = ("", "claim", "expected", "measured", "basis")


def render(content: Content) -> str:
    """The page."""
    style, script = _packaged("page.css"), _script()
    name = content.path.resolve().name or str(content.path)
    title = content.sections[0].title if len(content.sections) == 1 else f"Report on {name}"
    flows = [(number, section) for number, section in _numbered(content) if section.view is not None]
    body = [
        f"<header><h1>{escape(title)}</h1>{_verdict(content)}{_contents(content)}</header>",
        f"<main>{_claims(content)}{_outputs(content)}{''.join(_walk(n, s) for n, s in flows)}</main>",
        f"<footer>{_about(content, name)}</footer>",
    ]
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    page = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)}</title>\n<style>{style}</style>\n</head>\n<body>\n"
        + "\n".join(body)
        + f"\n<script>{script}</script>\n</body>\n</html>\n"
    )
    return page.encode("utf-8", errors="replace").decode("utf-8")  # JSON can hold halves of characters


def tally(content: Content) -> str:
    """How many claims hold, in words."""
    claims = [claim for section in content.sections for claim in section.claims]
    held, failed = (sum(claim.verdict == verdict for claim in claims) for verdict in ("held", "failed"))
    rest = len(claims) - held - failed
    words = f"{held} of {len(claims)} claims held" if claims else "no claims are made here"
    return words + (f", {failed} did not" if failed else "") + (f", {rest} could not be checked" if rest else "")


def data_block(view: View, identifier: str) -> str:
    """JSON that no text in it can break out of: ``<``, ``>``, ``&`` and line separators are escaped."""
    text = json.dumps(view.data, allow_nan=False, separators=(",", ":"))  # ASCII: U+2028 and U+2029 are \\u escapes
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return f'<script type="application/json" id="{escape(identifier)}">{text}</script>'


# -- the parts of the page -------------------------------------------------------------------------------


def _verdict(content: Content) -> str:
    failed = [(n, s, c) for n, s in _numbered(content) for c in s.claims if c.verdict == "failed"]
    state = "failed" if failed else "held"
    out = f'<p class="verdict {state}">{escape(tally(content))}.</p>'
    if failed:
        rows = "".join(
            f'<li><a href="#claims-{n}">{escape(s.title)}</a>: {escape(c.name)} '
            f"(expected {escape(c.expected)}, measured {escape(c.measured)})</li>"
            for n, s, c in failed
        )
        out += f'<ul class="failures">{rows}</ul>'
    return out


def _contents(content: Content) -> str:
    if len(content.sections) == 1:
        return ""
    rows = []
    for number, section in _numbered(content):
        state = _state(section)
        badge = f' <span class="badge {state}">{_count(section)}</span>' if section.claims else ""
        walk = f' · <a href="#flow-{number}">walk through it</a>' if section.view is not None else ""
        rows.append(f'<li><a href="#output-{number}">{escape(section.title)}</a> {_kind(section)}{badge}{walk}</li>')
    return f'<nav aria-label="Contents"><ol>{"".join(rows)}</ol></nav>'


def _claims(content: Content) -> str:
    groups = [_claim_group(number, section) for number, section in _numbered(content) if section.claims]
    if not groups:
        return ""
    head = "".join(f'<th scope="col">{escape(word) or _hidden("verdict")}</th>' for word in HEADER)
    return (
        '<section aria-labelledby="claims"><h2 id="claims">Claims</h2>'
        f'<table class="claims"><thead><tr>{head}</tr></thead>{"".join(groups)}</table></section>'
    )


def _claim_group(number: int, section: Section) -> str:
    heading = f'<a href="#output-{number}">{escape(section.title)}</a> {_kind(section)}'
    rows = "".join(_claim_row(claim) for claim in section.claims)
    group = f'<tr><th class="group" colspan="5" scope="rowgroup">{heading}</th></tr>'
    return f'<tbody id="claims-{number}">{group}{rows}</tbody>'


def _claim_row(claim: Claim) -> str:
    detail = f'<div class="detail">{escape(claim.detail)}</div>' if claim.detail else ""
    cells = (
        ("expected", escape(claim.expected)),
        ("measured", escape(claim.measured)),
        ("basis", escape(claim.basis)),
    )
    return (
        f'<tr class="{claim.verdict}"><td class="mark"><span aria-hidden="true">{MARKS[claim.verdict]}</span> '
        f'{VERDICTS[claim.verdict]}</td><th scope="row">{escape(claim.name)}{detail}</th>'
        + "".join(f'<td data-label="{label}">{text}</td>' for label, text in cells)
        + "</tr>"
    )


def _outputs(content: Content) -> str:
    parts = [_output(number, section) for number, section in _numbered(content)]
    return f'<section aria-labelledby="outputs"><h2 id="outputs">Figures and numbers</h2>{"".join(parts)}</section>'


def _output(number: int, section: Section) -> str:
    subtitle = (
        f'<p class="subtitle">{escape(section.subtitle)}</p>' if section.subtitle not in ("", section.title) else ""
    )
    notes = f"<ul>{''.join(f'<li>{escape(note)}</li>' for note in section.notes)}</ul>" if section.notes else ""
    pictures = "".join(map(_picture, section.pictures))
    if section.view is not None and pictures:  # the walk through the flow shows the same curves
        pictures = f"<details><summary>Pictures</summary>{pictures}</details>"
    return (
        f'<article id="output-{number}"><h3>{escape(section.title)} {_kind(section)}</h3>'
        f"{subtitle}{pictures}{notes}{''.join(map(_table, section.tables))}{''.join(map(_text, section.texts))}"
        f"{_provenance(section)}</article>"
    )


def _text(text: Text) -> str:
    printed = ' class="printed"' if text.body.count("\n") < LONGEST_PRINTED else ""
    return (
        f"<details{printed}><summary>{escape(text.title)}</summary>"
        f'<pre tabindex="0" role="region" aria-label="{escape(text.title)}">{escape(text.body)}</pre></details>'
    )


def _picture(picture: Picture) -> str:
    source = f"data:{picture.media};base64,{base64.b64encode(picture.content).decode('ascii')}"
    words = picture.caption or picture.file
    return (
        '<figure><div class="scroll">'
        f'<img src="{source}" alt="{escape(words)}"></div><figcaption>{escape(words)}</figcaption></figure>'
    )


def _table(table: Table) -> str:
    if not table.rows:
        return ""
    head = "".join(f'<th scope="col">{escape(word)}</th>' for word in table.header)
    rows = "".join(
        f'<tr><th scope="row">{escape(first)}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in rest)}</tr>'
        for first, *rest in table.rows
    )
    return (
        f'<details class="printed"><summary>{escape(table.title)}</summary>'
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(table.title)}">'
        f'<table class="plain"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div></details>'
    )


def _provenance(section: Section) -> str:
    rows = [(key, value) for key, value in section.provenance]
    rows += [(source.path, f"{source.size} bytes, SHA-256 {source.sha256}") for source in section.sources]
    body = "".join(f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>" for key, value in rows)
    return f'<details class="printed"><summary>Provenance</summary><dl>{body}</dl></details>'


def _walk(number: int, section: Section) -> str:
    if section.view is None:
        return ""
    return (
        f'<section id="flow-{number}" class="walk" data-source="flow-data-{number}" '
        f'aria-labelledby="flow-title-{number}"><h2 id="flow-title-{number}">Walk through the flow: '
        f"{escape(section.title)}</h2><noscript><p>This part needs JavaScript, which is off; the page has all "
        f"else.</p></noscript>{data_block(section.view, f'flow-data-{number}')}</section>"
    )


def _about(content: Content, name: str) -> str:
    found = ", ".join(f"{key} {value}" for key, value in versions().items())
    others = ""
    if content.others:
        listed = ", ".join(content.others[:40]) + (" ..." if len(content.others) > 40 else "")
        others = f"<p>Not shown, as no command of gfsim is known to write them: {escape(listed)}.</p>"
    return f"<p>Made by <code>gfsim report {escape(name)}</code> with {escape(found)}.</p>{others}"


# -- small things ------------------------------------------------------------------------------------------


def _numbered(content: Content) -> Iterable[tuple[int, Section]]:
    return enumerate(content.sections, start=1)


def _state(section: Section) -> str:
    verdicts = {claim.verdict for claim in section.claims}
    return "failed" if "failed" in verdicts else "unchecked" if "unchecked" in verdicts else "held"


def _count(section: Section) -> str:
    held = sum(claim.verdict == "held" for claim in section.claims)
    return f"{held} of {len(section.claims)} held"


def _kind(section: Section) -> str:
    where = f" in {section.where}/" if section.where else ""
    return f'<span class="kind">{escape(section.kind + where)}</span>'


def _hidden(word: str) -> str:
    return f'<span class="hidden">{escape(word)}</span>'


def _script() -> str:
    """The parts of the script in a scope of their own."""
    parts = "\n".join(_packaged("script", f"{name}.js") for name in SCRIPT)
    return f'"use strict";\n(() => {{\n{parts}}})();\n'


def _packaged(*path: str) -> str:
    return resources.files("gfsim.report").joinpath(*path).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
