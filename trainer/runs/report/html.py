"""Pages that stand alone: no file beside them, no network, light or dark as the reader has it.

Every text is escaped here, and cleaned of what nobody would see; the page's own policy forbids the
browser to load anything.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence

from trainer.runs.report import svg
from trainer.text.printable import in_html as escape

Cell = tuple[str, float | str]  # a cell of a table as it is shown, and what it is sorted by


def page(title: str, body: Sequence[str], script: str = "") -> str:
    """A whole document. script: plain text of ours, the only one that may run."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    scripts = f"; script-src 'sha256-{digest}'" if script else ""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        f"img-src data:; style-src 'unsafe-inline'{scripts}\">\n"
        f"<title>{escape(title)}</title>\n<style>{CSS}</style></head>\n<body><main>\n"
        + "\n".join(part for part in body if part)
        + (f"\n<script>{script}</script>" if script else "")
        + "\n</main></body></html>\n"
    )


def heading(title: str, status: str = "", below: str = "") -> str:
    return f"<header><h1>{escape(title)} {badge(status)[0] if status else ''}</h1>{below}</header>"


def badge(status: str) -> Cell:
    return f'<span class="badge {escape(status)}">{escape(status)}</span>', status


def section(title: str, *parts: str) -> str:
    """Empty without content."""
    inside = "".join(parts)
    return f"<section><h2>{escape(title)}</h2>{inside}</section>" if inside else ""


def folded(title: str, inside: str, kind: str = "") -> str:
    """Shown at a click. kind: "top" for one that stands between sections."""
    if not inside:
        return ""
    return f'<details class="{kind}"><summary>{escape(title)}</summary>{inside}</details>'


def text(words: str, kind: str = "") -> str:
    return f'<p class="{kind}">{escape(words)}</p>' if kind else f"<p>{escape(words)}</p>"


def code(words: str) -> str:
    lines = escape(words, keep="\n\t")
    return f"<pre><code>{lines}</code></pre>"


def figures(rows: Sequence[tuple[str, str]]) -> str:
    """Large numbers, each over what it is."""
    cards = "".join(f"<div><b>{escape(value)}</b>{escape(name)}</div>" for name, value in rows)
    return f'<div class="figures">{cards}</div>' if rows else ""


def facts(rows: Sequence[tuple[str, str]]) -> str:
    lines = "".join(
        f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in rows
    )
    return f'<div class="scroll"><table class="facts">{lines}</table></div>' if rows else ""


def table(
    header: Sequence[str], rows: Sequence[Sequence[Cell]], left: Sequence[int] = (0,),
    sortable: bool = False, marked: int | None = None,
) -> str:  # fmt: skip
    """Columns numbered in `left` are words, the others numbers; row `marked` is the best. The cells
    are HTML already; see `cell` and `link`."""
    sides = ["l" if i in left else "r" for i in range(len(header))]
    kind = ' class="sortable"' if sortable else ""
    head = "".join(
        f'<th class="{side}">{escape(name)}</th>' for name, side in zip(header, sides, strict=True)
    )
    lines = "".join(
        f"<tr{' class=best' if i == marked else ''}>"
        + "".join(
            f'<td class="{side}" data-v="{escape(str(key))}">{shown}</td>'
            for (shown, key), side in zip(row, sides, strict=True)
        )
        + "</tr>"
        for i, row in enumerate(rows)
    )
    return (
        f'<div class="scroll"><table{kind}><thead><tr>{head}</tr></thead>'
        f"<tbody>{lines}</tbody></table></div>"
    )


def cell(shown: str, key: float | str | None = None) -> Cell:
    return escape(shown), shown if key is None else key


def link(target: str, shown: str) -> str:
    return f'<a href="{escape(target)}">{escape(shown)}</a>'


def swatch(style: int) -> str:
    """The colour of a line, for a legend."""
    return f'<svg class="swatch" viewBox="0 0 22 8"><g class="{svg.Line("", (), style).css}">' \
        '<path class="line" d="M1 4H21"/></g></svg>'  # fmt: skip


def names(lines: Sequence[svg.Line]) -> str:
    return "".join(f"<span>{swatch(line.style)} {escape(line.name)}</span>" for line in lines)


def chart(title: str, lines: Sequence[svg.Line], mark: float | None = None,
          legend: bool = True) -> str:  # fmt: skip
    lines = [line for line in lines if any(y is not None for _, y in line.points)]
    drawing = svg.line_chart(lines, title, mark)
    if not drawing:
        return ""
    caption = f"<b>{escape(title)}</b>{names(lines) if legend else ''}"
    return f"<figure><figcaption>{caption}</figcaption>{drawing}</figure>"


def charts(*drawn: str, legend: Sequence[svg.Line] = ()) -> str:
    """legend: the lines, where all charts have the same."""
    inside = "".join(drawn)
    above = f'<p class="legend">{names(legend)}</p>' if legend else ""
    return f'{above}<div class="charts">{inside}</div>' if inside else ""


# A click on a column's head sorts by it, a second one the other way round.
SORT = """
for (const table of document.querySelectorAll('table.sortable')) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  heads.forEach((head, i) => head.onclick = () => {
    const down = head.ariaSort === 'descending' ? 1 : -1;
    heads.forEach(other => other.ariaSort = null);
    head.ariaSort = down < 0 ? 'descending' : 'ascending';
    const key = row => row.cells[i].dataset.v;
    body.append(...[...body.rows].sort((a, b) => {
      const x = key(a), y = key(b), n = x - y;
      return down * (isNaN(n) ? x.localeCompare(y, undefined, {numeric: true}) : n);
    }));
  });
}
"""

CSS = """
:root { --ink: #1c2128; --faint: #667080; --line: #dfe3e8; --back: #f6f7f9; --card: #fff;
  --hue: #1d5fbf; --c0: #2563eb; --c1: #ea580c; --c2: #0a8f5f; --c3: #9333ea; --c4: #db2777;
  --c5: #a67c00; --c6: #0891b2; --c7: #64748b; --bad: #c92a2a; --warn: #a06000 }
@media (prefers-color-scheme: dark) { :root { --ink: #e3e7ec; --faint: #98a3b0; --line: #343b45;
  --back: #14171b; --card: #1d2126; --hue: #4c8dee; --c0: #6ea8ff; --c1: #ff9350; --c2: #3fcf97;
  --c3: #c58bff; --c4: #ff7ab8; --c5: #e5b93c; --c6: #4fd0e8; --c7: #a3b0c2; --bad: #ff8080;
  --warn: #f0b050 } }
* { box-sizing: border-box }
body { margin: 0; background: var(--back); color: var(--ink); line-height: 1.5;
  font: 15px/1.5 system-ui, sans-serif }
main { max-width: 1080px; margin: 0 auto; padding: 20px 16px 48px }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 10px; overflow-wrap: anywhere }
h2 { font-size: 1.1rem; margin: 0 0 12px } h3 { font-size: .95rem; margin: 22px 0 8px }
p { margin: 6px 0 12px } a { color: var(--c0) } .quiet { color: var(--faint) }
.bad { color: var(--bad) } .bad, .quiet, .legend { overflow-wrap: anywhere }
section, details.top { background: var(--card); border: 1px solid var(--line); padding: 16px;
  border-radius: 10px; margin: 16px 0 }
.badge { display: inline-block; font-size: .75rem; font-weight: 600; padding: 2px 10px;
  border: 1px solid; border-radius: 99px; vertical-align: middle; color: var(--faint) }
.finished { color: var(--c2) } .running { color: var(--c0) } .failed { color: var(--bad) }
.interrupted, .unfinished, .unreadable { color: var(--warn) }
pre { background: var(--back); border: 1px solid var(--line); border-radius: 6px; margin: 8px 0;
  padding: 10px 12px; overflow-x: auto; font-size: .85rem }
header pre { background: var(--card); white-space: pre-wrap; overflow-wrap: anywhere }
.figures { display: flex; flex-wrap: wrap; gap: 10px; margin: 16px 0 }
.figures div { flex: 1 1 130px; max-width: 250px; background: var(--card); padding: 10px 14px;
  border: 1px solid var(--line); border-radius: 10px; color: var(--faint); font-size: .85rem }
.figures b { display: block; color: var(--ink); font-size: 1.35rem; line-height: 1.3;
  font-variant-numeric: tabular-nums }
.charts { display: grid; gap: 20px;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 380px), 1fr)) }
figure { margin: 0; min-width: 0 }
.charts figcaption, .legend { display: flex; flex-wrap: wrap; gap: 2px 16px; margin-bottom: 4px }
.charts figcaption span, .legend span { color: var(--faint) } p.legend { margin-bottom: 14px }
svg { display: block; width: 100%; height: auto; font: 12px system-ui, sans-serif }
.swatch { display: inline-block; width: 22px; height: 8px; vertical-align: middle }
.axis { fill: var(--faint) } .grid, .frame { stroke: var(--line); fill: none }
.mark { stroke: var(--faint); stroke-dasharray: 2 4; fill: none }
.line { fill: none; stroke: currentColor; stroke-width: 2; stroke-linejoin: round }
circle { fill: currentColor }
.d1 .line { stroke-dasharray: 6 3 } .d2 .line { stroke-dasharray: 2 3 }
.c0 { color: var(--c0) } .c1 { color: var(--c1) } .c2 { color: var(--c2) } .c3 { color: var(--c3) }
.c4 { color: var(--c4) } .c5 { color: var(--c5) } .c6 { color: var(--c6) } .c7 { color: var(--c7) }
.cell { fill: var(--hue); shape-rendering: crispEdges } .on { fill: #fff } .off { fill: var(--ink) }
.scroll { overflow: auto; max-height: 85vh }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums }
th, td { padding: 5px 10px; border-bottom: 1px solid var(--line); text-align: right;
  white-space: nowrap }
th { color: var(--faint); font-weight: 600 } .l, .facts th { text-align: left }
.facts td { text-align: left; white-space: normal; overflow-wrap: anywhere; min-width: 180px }
thead th { position: sticky; top: 0; background: var(--card) }
.sortable td:first-child { white-space: normal; overflow-wrap: anywhere; min-width: 130px }
.sortable small { display: block; color: var(--faint) }
.sortable th { cursor: pointer } .sortable th::after { content: ' ↕'; opacity: .4 }
.sortable th[aria-sort=ascending]::after { content: ' ↑'; opacity: 1 }
.sortable th[aria-sort=descending]::after { content: ' ↓'; opacity: 1 }
.best { font-weight: 700 }
.beside { display: flex; flex-wrap: wrap; gap: 8px 40px }
.beside > .scroll { flex: 0 1 auto; max-height: none; max-width: 100% }
.beside > div { flex: 1 1 240px }
.matrix { width: auto; max-width: 100% }
.pairs { columns: 240px; padding: 0; margin: 0; list-style: none }
.pairs span { color: var(--faint); margin-left: 6px }
.mistakes { display: grid; gap: 14px 12px;
  grid-template-columns: repeat(auto-fill, minmax(100px, 1fr)) }
.mistakes img { width: 100%; display: block; border-radius: 4px; image-rendering: pixelated }
.mistakes figcaption { font-size: .82rem; line-height: 1.35; margin-top: 4px;
  overflow-wrap: anywhere; color: var(--faint) }
.mistakes b { color: var(--ink) }
summary { cursor: pointer; font-weight: 600; padding: 4px 0 } details { margin-top: 14px }
@media (max-width: 520px) { .chart { font-size: 14px } th, td { padding: 5px 6px }
  .sortable { font-size: .8rem } .sortable th::after { display: none } }
"""
