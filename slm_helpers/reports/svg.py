"""Small figures as SVG within a page: no script, no picture file; readable without colour and by a screen reader."""

from collections.abc import Sequence
from html import escape

from slm_helpers._checks import printable

import numpy as np

# seaborn's "colorblind" palette, written out: importing the library takes longer than drawing all figures.
COLOURS = ("#0173b2", "#de8f05", "#029e73", "#d55e00", "#cc78bc", "#ca9161", "#949494", "#ece133", "#56b4e9", "#fbafe4")
CSS = """
svg { max-width: 100%; height: auto; } svg text { fill: var(--text); font: 12px system-ui, sans-serif; }
svg .axis { stroke: var(--line); } svg .bar { fill: #0173b2; } svg .curve { fill: none; stroke: #0173b2; stroke-width: 2; }
svg .law { fill: none; stroke: #de8f05; stroke-width: 2; stroke-dasharray: 6 4; } svg .name { font-weight: bold; paint-order: stroke; }
svg .name { stroke: var(--paper); stroke-width: 3px; } svg .point { stroke: var(--paper); stroke-width: 0.5; }
svg a:hover .point, svg .point:target { stroke: var(--text); stroke-width: 3; } tr:target { background: var(--soft); outline: 2px solid; }
figure { margin: 0.5rem 0; } .wide { overflow-x: auto; } .wide svg { min-width: 34rem; }
"""
_WIDTH, _LINE, _MARGIN = 640, 22, 40


def _text(value: object) -> str:
    return escape(printable(" ".join(str(value).split())))


def _short(value: object, most: int) -> str:
    text = " ".join(printable(str(value)).split())
    return escape(text if len(text) <= most else text[: most - 1] + "…")


def _figure(width: float, height: float, about: str, inner: Sequence[str]) -> str:
    return (
        f'<figure class="wide"><svg viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" role="img" aria-label="{_text(about)}">'
        f"{''.join(inner)}</svg></figure>"
    )


def svg_bars(names: Sequence[str], values: Sequence[float], *, about: str, unit: str, upright: bool = False) -> str:
    """Draw a bar a name, with its value beside it; bars start at zero.

    Args:
        names: Of the bars; any text.
        values: 0 or more.
        about: What the figure shows, for those who cannot see it.
        unit: What is counted.
        upright: Columns in a row, as for classes of a size.
    """
    most = max([*values, 1e-12])
    if upright:
        step, floor = (_WIDTH - 20) / max(len(names), 1), 190
        parts = [f'<line class="axis" x1="10" x2="{_WIDTH - 10}" y1="{floor}" y2="{floor}"/>']
        for place, (name, value) in enumerate(zip(names, values, strict=True)):
            height, x = 160 * value / most, 10 + place * step
            parts.append(
                f'<rect class="bar" x="{x + 2:.1f}" y="{floor - height:.1f}" width="{step - 4:.1f}" height="{height:.1f}">'
                f"<title>{_text(name)}: {value:,.0f} {_text(unit)}</title></rect>"
                f'<text x="{x + step / 2:.1f}" y="{floor + 15}" text-anchor="middle" font-size="10">{_short(name, 12)}</text>'
                f'<text x="{x + step / 2:.1f}" y="{floor - height - 4:.1f}" text-anchor="middle" font-size="10">{_number(value)}</text>'
            )
        return _figure(_WIDTH, floor + 25, about, parts)
    left = 8 + 7 * min(34, max([len(str(name)) for name in names], default=0))
    room, parts = _WIDTH - left - 70, []
    for place, (name, value) in enumerate(zip(names, values, strict=True)):
        y = 4 + place * _LINE
        parts.append(
            f'<text x="{left - 6}" y="{y + 14}" text-anchor="end">{_short(name, 34)}</text>'
            f'<rect class="bar" x="{left}" y="{y + 2}" width="{max(room * value / most, 0.5):.1f}" height="{_LINE - 6}">'
            f"<title>{_text(name)}: {value:,.6g} {_text(unit)}</title></rect>"
            f'<text x="{left + room * value / most + 5:.1f}" y="{y + 14}">{_number(value)}</text>'
        )
    return _figure(_WIDTH, len(names) * _LINE + 8, about, parts)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == round(value) else f"{value:.3g}"


def svg_growth(words: Sequence[float], distinct: Sequence[float], law: Sequence[float], *, about: str) -> str:
    """Draw distinct words against words read, both axes logarithmic; `law` is what Heaps' law says at the same places."""
    x, height = np.log10(np.maximum(words, 1)), 280
    ys = [np.log10(np.maximum(values, 1)) for values in (distinct, law)]
    low, high = np.floor(min(map(np.min, ys))), np.ceil(max(map(np.max, ys)))
    left, right = np.floor(x.min()), np.ceil(x.max() + 1e-9)

    def place(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        across = 60 + (_WIDTH - 80) * (a - left) / max(right - left, 1)
        return across, height - 40 - (height - 60) * (b - low) / max(high - low, 1)

    parts = []
    for power in range(int(left), int(right) + 1):
        (at,), _ = place(np.array([power]), np.array([low]))
        parts.append(f'<line class="axis" x1="{at:.1f}" x2="{at:.1f}" y1="20" y2="{height - 40}"/>')
        parts.append(f'<text x="{at:.1f}" y="{height - 24}" text-anchor="middle">{10**power:,}</text>')
    for power in range(int(low), int(high) + 1):
        _, (at,) = place(np.array([left]), np.array([power]))
        parts.append(f'<line class="axis" x1="60" x2="{_WIDTH - 20}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text x="54" y="{at + 4:.1f}" text-anchor="end">{10**power:,}</text>')
    for name, values in (("law", ys[1]), ("curve", ys[0])):
        across, down = place(x, values)
        parts.append(f'<polyline class="{name}" points="{" ".join(f"{a:.1f},{b:.1f}" for a, b in zip(across, down, strict=True))}"/>')
    parts.append(f'<text x="{_WIDTH / 2}" y="{height - 6}" text-anchor="middle">Words read (log scale)</text>')
    parts.append('<text x="60" y="13">Distinct words (log scale); dashed: Heaps\' law</text>')
    return _figure(_WIDTH, height, about, parts)


def svg_map(
    places: np.ndarray,
    classes: Sequence[int],
    titles: Sequence[str],
    *,
    names: dict[int, str],
    keys: Sequence[int],
    listed: set[int],
    about: str,
) -> str:
    """Draw texts as points, a colour and a mark for each class and its name where most of them lie.

    Args:
        places: Shape (num_points, 2).
        classes: Of each point; those of `names` get its name, others are grey.
        titles: Shown where the pointer rests; any text.
        names: {class: name on the map}.
        keys: A number of each point: it can be linked to as #p17.
        listed: Keys of points that link to a line of a table, #r17.
        about: For those who cannot see it.
    """
    size = 640
    low, span = places.min(axis=0), np.maximum(np.ptp(places, axis=0), 1e-9)
    at = 20 + (size - 40) * (places - low) / span
    at[:, 1] = size - at[:, 1]
    parts = []
    for (x, y), kind, title, key in zip(at, classes, titles, keys, strict=True):
        mark = _mark(x, y, kind if kind in names else 0, key, _text(title))
        parts.append(f'<a href="#r{key}">{mark}</a>' if key in listed else mark)
    for kind, name in names.items():
        own = at[np.asarray(classes) == kind]
        if len(own):
            x, y = np.median(own, axis=0)
            parts.append(f'<text class="name" x="{x:.0f}" y="{y:.0f}" text-anchor="middle">{_text(name)}</text>')
    return _figure(size, size, about, parts)


def _mark(x: float, y: float, kind: int, key: int, title: str) -> str:
    """Return a mark: four shapes, so that classes of alike colours differ; larger ones are links."""
    colour = COLOURS[(kind - 1) % len(COLOURS)] if kind else "#949494"
    rest = f'id="p{key}" class="point" fill="{colour}"><title>{title}</title>'
    shape = kind % 4
    if shape == 0:
        return f'<circle cx="{x:.0f}" cy="{y:.0f}" r="3.5" {rest}</circle>'
    if shape == 1:
        return f'<rect x="{x - 3:.0f}" y="{y - 3:.0f}" width="6" height="6" {rest}</rect>'
    points = ((0, -4.5), (4, 3.5), (-4, 3.5)) if shape == 2 else ((0, -4.5), (4.5, 0), (0, 4.5), (-4.5, 0))
    drawn = " ".join(f"{x + a:.0f},{y + b:.0f}" for a, b in points)
    return f'<polygon points="{drawn}" {rest}</polygon>'
