"""Bars and lines as SVG, small enough to read in a diff, and right on a light and on a dark page."""

from __future__ import annotations

import math
from xml.sax.saxutils import escape

WIDTH, LABEL, VALUE, BAR, GAP, TOP = 760, 210, 130, 18, 8, 44
STYLE = """<style>
text { font: 13px system-ui, sans-serif; fill: #24292f }
.title { font-weight: 600; font-size: 15px }
.note { fill: #6e7781 }
.ours { fill: #0969da }
.peer { fill: #afb8c1 }
.limit { fill: #d4a72c }
.axis { stroke: #d0d7de }
path { fill: none; stroke-width: 2 }
.line0 { stroke: #0969da }
.line1 { stroke: #8250df }
.line2 { stroke: #bf8700 }
.line3 { stroke: #6e7781 }
.line4 { stroke: #1a7f37 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .note { fill: #8d96a0 }
  .peer { fill: #57606a }
  .axis { stroke: #3d444d }
}
</style>"""


def bars(
    title: str, unit: str, values: dict[str, float], *, ours: frozenset[str], limits: frozenset[str], less: bool
) -> str:
    """Horizontal bars on a logarithmic axis, best first: the figures lie a thousandfold apart."""
    shown = sorted(
        ((name, value) for name, value in values.items() if value > 0), key=lambda pair: pair[1], reverse=not less
    )
    if not shown:
        return ""
    height = TOP + len(shown) * (BAR + GAP) + 8
    low = math.log10(min(value for _, value in shown)) - 0.3
    high = math.log10(max(value for _, value in shown))
    room = WIDTH - LABEL - VALUE
    parts = [
        _text(0, 18, title, "title"),
        _text(0, 35, f"{unit}, logarithmic; {'less' if less else 'more'} is better", "note"),
    ]
    for n, (name, value) in enumerate(shown):
        y = TOP + n * (BAR + GAP)
        kind = "ours" if name in ours else "limit" if name in limits else "peer"
        length = max(2.0, room * (math.log10(value) - low) / max(high - low, 0.3))
        parts.append(_text(LABEL - 8, y + 14, name, anchor="end"))
        parts.append(f'<rect class="{kind}" x="{LABEL}" y="{y}" width="{length:.1f}" height="{BAR}" rx="2"/>')
        parts.append(_text(LABEL + length + 6, y + 14, number(value)))
    return _page(height, title, parts)


def lines(title: str, across: str, up: str, series: dict[str, list[tuple[float, float]]], *, log_up: bool = False) -> str:
    """One line for each name, the axis across logarithmic, labels at the lines' ends."""
    drawn = {name: sorted(points) for name, points in series.items() if points}
    if not drawn:
        return ""
    height, left, right, bottom = 300, 70, 190, 250
    xs = sorted({x for points in drawn.values() for x, _ in points})
    ys = [y for points in drawn.values() for _, y in points]
    scale = math.log10 if log_up else float
    low, high = (scale(min(ys)), scale(max(ys))) if log_up else (0.0, max(ys))
    span_x = math.log10(xs[-1] / xs[0]) or 1.0

    def place(x: float, y: float) -> tuple[float, float]:
        across_part = math.log10(x / xs[0]) / span_x
        return left + (WIDTH - left - right) * across_part, bottom - (bottom - TOP - 6) * (scale(y) - low) / (
            high - low or 1.0
        )

    parts = [_text(0, 18, title, "title"), _text(0, 35, f"{up}, by {across}", "note")]
    parts.append(f'<line class="axis" x1="{left}" y1="{bottom}" x2="{WIDTH - right}" y2="{bottom}"/>')
    parts += [_text(place(x, min(ys))[0], bottom + 18, number(x), "note", anchor="middle") for x in xs]
    ends: list[float] = []
    for name, points in sorted(drawn.items(), key=lambda pair: -pair[1][-1][1]):
        placed = [place(x, y) for x, y in points]
        path = " ".join(f"{'L' if i else 'M'}{x:.1f} {y:.1f}" for i, (x, y) in enumerate(placed))
        parts.append(f'<path class="line{list(drawn).index(name) % 5}" d="{path}"/>')
        y = placed[-1][1] + 4
        y = max(y, ends[-1] + 15) if ends else y  # labels do not cover each other
        ends.append(y)
        parts.append(_text(placed[-1][0] + 8, y, f"{name}: {number(points[-1][1])}"))
    return _page(height, title, parts)


def number(value: float) -> str:
    """Three digits are all that a benchmark is worth."""
    if value >= 1000:
        digits = 10 ** max(0, math.floor(math.log10(value)) - 2)
        return f"{round(value / digits) * digits:,}"
    return f"{value:.3g}"


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "") -> str:
    more = (f' class="{kind}"' if kind else "") + (f' text-anchor="{anchor}"' if anchor else "")
    return f'<text x="{x:.1f}" y="{y:.1f}"{more}>{escape(text)}</text>'


def _page(height: int, title: str, parts: list[str]) -> str:
    size = f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">'
    return "\n".join([head, f"<title>{escape(title)}</title>", STYLE, *parts, "</svg>"]) + "\n"
