"""Draw how the time for one change grows with the number of files: an SVG on two logarithmic axes."""

import math
from collections.abc import Callable, Mapping, Sequence
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 860, 480
LEFT, RIGHT, TOP, BOTTOM = 76, 240, 70, 42
LABEL_APART = 17.0
Scale = Callable[[float], float]
OURS = "backup-agent, running"
STYLE = """
  text { font: 13px system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; fill: #57606a }
  .title { font-size: 16px; font-weight: 600; fill: #1f2328 }
  .grid { stroke: #d0d7de; stroke-width: 1 }
  .line { fill: none; stroke-width: 2; stroke: #8c959f; stroke-linejoin: round; stroke-linecap: round }
  .dot { fill: #8c959f }
  .lead { stroke: #8c959f; stroke-width: 1; fill: none; opacity: .5 }
  .ours.line { stroke: #0969da; stroke-width: 3.5 }
  .ours.dot { fill: #0969da }
  text.ours { fill: #0969da; font-weight: 600 }
  .floor.line { stroke-dasharray: 2 5 }
  @media (prefers-color-scheme: dark) {
    text { fill: #9198a1 }
    .title { fill: #f0f6fc }
    .grid { stroke: #30363d }
    .line { stroke: #6e7681 } .dot { fill: #6e7681 } .lead { stroke: #6e7681 }
    .ours.line { stroke: #4493f8 } .ours.dot { fill: #4493f8 } text.ours { fill: #4493f8 }
  }
"""


def draw(curves: Mapping[str, Mapping[int, float]]) -> str:
    """Return the picture; `curves` are milliseconds by number of files, by name."""
    counts = sorted({count for curve in curves.values() for count in curve})
    values = [ms for curve in curves.values() for ms in curve.values()]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))

    def x(count: float) -> float:
        span = math.log10(counts[-1] / counts[0]) or 1.0
        return LEFT + math.log10(count / counts[0]) / span * (WIDTH - LEFT - RIGHT)

    def y(ms: float) -> float:
        return HEIGHT - BOTTOM - (math.log10(ms) - low) / (high - low) * (HEIGHT - BOTTOM - TOP)

    parts = [_frame(counts, range(low, high + 1), x, y)]
    ordered = sorted(curves.items(), key=lambda item: item[0] == OURS)  # ours on top
    for name, curve in ordered:
        points = [(x(count), y(ms)) for count, ms in sorted(curve.items())]
        kind = _kind(name)
        path = " ".join(f"{px:.1f},{py:.1f}" for px, py in points)
        parts.append(f'<polyline class="line{kind}" points="{path}"/>')
        parts += [f'<circle class="dot{kind}" cx="{px:.1f}" cy="{py:.1f}" r="4"/>' for px, py in points]
    parts.append(_labels(curves, x, y))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="t d">\n'
        f'<title id="t">One changed file of 2 MB to a durable copy</title>\n<desc id="d">{escape(_told(curves))}</desc>\n'
        f"<style>{STYLE}</style>\n" + "\n".join(parts) + "\n</svg>\n"
    )


def _kind(name: str) -> str:
    return " ours" if name == OURS else " floor" if name.startswith("floor") else ""


def _frame(counts: Sequence[int], decades: range, x: Scale, y: Scale) -> str:
    parts = [f'<text class="title" x="{LEFT}" y="28">One changed file of 2 MB to a durable copy</text>',
             f'<text x="{LEFT}" y="48">median, by the number of files in the tree; both axes are logarithmic</text>']  # fmt: skip
    for decade in decades:
        at = y(10.0**decade)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text x="{LEFT - 10}" y="{at + 4.5:.1f}" text-anchor="end">{duration(10.0**decade)}</text>')
    for count in counts:
        at = x(count)
        parts.append(f'<text x="{at:.1f}" y="{HEIGHT - BOTTOM + 24}" text-anchor="middle">{count:,} files</text>')
    return "\n".join(parts)


def _labels(curves: Mapping[str, Mapping[int, float]], x: Scale, y: Scale) -> str:
    """Every name stands at the end of its line; those that would overlap move apart.

    A line that ends early has its name above its end.
    """
    last = max(count for curve in curves.values() for count in curve)
    whole = {name: curve for name, curve in curves.items() if last in curve}
    ends = sorted((y(curve[last]), name) for name, curve in whole.items())
    parts = []
    for (at, name), place in zip(ends, _apart([at for at, _ in ends]), strict=True):
        from_x, to_x = x(last) + 7, WIDTH - RIGHT + 22
        parts.append(f'<path class="lead" d="M{from_x:.1f} {at:.1f}L{to_x - 4:.1f} {place:.1f}"/>')
        parts.append(_label(name, whole[name][last], f'x="{to_x}" y="{place + 4.5:.1f}"'))
    for name, curve in curves.items():
        if name not in whole:
            end = max(curve)
            parts.append(
                _label(name, curve[end], f'x="{x(end) - 8:.1f}" y="{y(curve[end]) - 11:.1f}" text-anchor="end"')
            )
    return "\n".join(parts)


def _label(name: str, ms: float, place: str) -> str:
    shown = "backup-agent" if name == OURS else name
    return f'<text class="{_kind(name).strip()}" {place}>{escape(shown)} {duration(ms)}</text>'


def _apart(places: Sequence[float]) -> list[float]:
    """Return the places, from the top, moved as little as it takes for lines of text not to overlap."""
    groups: list[list[float]] = []  # each: the wished places of labels that stand close together
    for place in places:
        groups.append([place])
        while len(groups) > 1 and _foot(groups[-2]) + LABEL_APART > _head(groups[-1]):
            last = groups.pop()
            groups[-1] += last
    return [_head(group) + i * LABEL_APART for group in groups for i in range(len(group))]


def _head(group: Sequence[float]) -> float:
    return sum(group) / len(group) - (len(group) - 1) * LABEL_APART / 2


def _foot(group: Sequence[float]) -> float:
    return _head(group) + (len(group) - 1) * LABEL_APART


def duration(ms: float) -> str:
    """Return milliseconds as a person says them."""
    value, unit = (ms / 1000, "s") if ms >= 1000 else (ms, "ms")
    return f"{value:.2g} {unit}" if value < 100 else f"{value:.0f} {unit}"


def _told(curves: Mapping[str, Mapping[int, float]]) -> str:
    """The picture in words."""
    lines = []
    for name, curve in curves.items():
        steps = ", ".join(f"{duration(ms)} with {count:,} files" for count, ms in sorted(curve.items()))
        lines.append(f"{name}: {steps}.")
    return " ".join(lines)
