"""A sweep as a picture: SVG written by hand, so that it needs no plotting library and stays sharp at any size."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

from aot.sweep.scores import MEASURES, Interval, SweptClip

WIDTH, HEIGHT = 1060, 800
_PANEL_WIDTH, _PANEL_HEIGHT = 400, 250
_LEFT, _TOP, _GAP_X, _GAP_Y = 70, 122, 120, 132

# Told apart by people who see colours otherwise too (Okabe and Ito).
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_FAINT = "#b9c0c7"

_STYLE = """
text { font: 13px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; fill: #333b43 }
.title { font-size: 15px; font-weight: 600 }
.head { font-size: 19px; font-weight: 600 }
.small { font-size: 12px; fill: #5b6670 }
"""


@dataclass
class _Panel:
    """One set of axes; data in, SVG elements out."""

    x: float
    y: float
    x_range: tuple[float, float]
    y_range: tuple[float, float]
    parts: list[str] = field(default_factory=list)

    def at(self, x: float, y: float) -> tuple[float, float]:
        (x0, x1), (y0, y1) = self.x_range, self.y_range
        return (
            self.x + _PANEL_WIDTH * (x - x0) / ((x1 - x0) or 1),
            self.y + _PANEL_HEIGHT * (1 - (y - y0) / ((y1 - y0) or 1)),
        )

    def frame(self, title: str, x_label: str, x_ticks: Mapping[float, str], y_ticks: Mapping[float, str]) -> None:
        right, bottom = self.x + _PANEL_WIDTH, self.y + _PANEL_HEIGHT
        self.parts.append(f'<text class="title" x="{self.x:.1f}" y="{self.y - 26:.1f}">{escape(title)}</text>')
        for value, label in y_ticks.items():
            _, y = self.at(self.x_range[0], value)
            self.parts.append(_segment(self.x, y, right, y, "#e6e9ec", 1))
            self.parts.append(_label(self.x - 9, y + 4.5, label, "end"))
        for value, label in x_ticks.items():
            x, _ = self.at(value, self.y_range[0])
            self.parts.append(_segment(x, bottom, x, bottom + 5, "#8b95a0", 1))
            self.parts.append(_label(x, bottom + 21, label, "middle"))
        self.parts.append(_segment(self.x, bottom, right, bottom, "#8b95a0", 1.2))
        self.parts.append(_label(self.x + _PANEL_WIDTH / 2, bottom + 43, x_label, "middle", "small"))

    def line(self, points: Sequence[tuple[float, float]], colour: str, width: float) -> None:
        known = [self.at(x, y) for x, y in points if not (math.isnan(x) or math.isnan(y))]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in known)
        self.parts.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{width}" stroke-linejoin="round"/>'
        )

    def dots(self, points: Sequence[tuple[float, float]], colour: str, radius: float = 4.5) -> None:
        for x, y in points:
            if not (math.isnan(x) or math.isnan(y)):
                px, py = self.at(x, y)
                self.parts.append(f'<circle cx="{px:.1f}" cy="{py:.1f}" r="{radius}" fill="{colour}" stroke="#fff"/>')

    def band(self, top: float, bottom: float) -> None:
        _, y0 = self.at(self.x_range[0], min(top, self.y_range[1]))
        _, y1 = self.at(self.x_range[0], max(bottom, self.y_range[0]))
        self.parts.append(
            f'<rect x="{self.x}" y="{y0:.1f}" width="{_PANEL_WIDTH}" height="{max(0.0, y1 - y0):.1f}" fill="#0072b2" '
            f'opacity="0.10"/>'
        )

    def note(self, x: float, y: float, text: str, colour: str = "#333b43", below: bool = False) -> None:
        px, py = self.at(x, y)
        py += 18 if below else -9
        self.parts.append(f'<text x="{px + 6:.1f}" y="{py:.1f}" style="fill:{colour}">{escape(text)}</text>')


def draw_sweep(
    clips: Sequence[SweptClip],
    intervals: Sequence[Interval],
    *,
    title: str,
    tolerance: float,
    sources: Mapping[str, str],
) -> str:
    """Draw quality against the interval (above) and against time and memory (below).

    Args:
        clips, intervals: of the sweep.
        title: what was swept.
        tolerance: drawn as a band below the finest interval's quality.
        sources: measure → what it was scored by, for the panels' titles.
    Returns:
        SVG of WIDTH x HEIGHT px.
    """
    groups = sorted({interval.group for interval in intervals})
    shown = [measure for measure in MEASURES if any(not math.isnan(i.quality[measure]) for i in intervals)]
    parts = [f'<text class="head" x="{_LEFT - 46}" y="34">{escape(title)}</text>']
    parts += _legend(groups, tolerance)
    for number, measure in enumerate(shown):
        panel = _quality_panel(number, measure, clips, intervals, groups, tolerance, sources[measure])
        parts += panel.parts
    parts += _cost_panel(0, "time", "seconds for all clips", shown, intervals, groups, lambda i: i.seconds).parts
    memory = "peak memory of a process, MB"
    parts += _cost_panel(1, "memory", memory, shown, intervals, groups, lambda i: i.peak_memory_bytes / 1e6).parts
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        f'role="img" aria-label="{escape(title)}"><style>{_STYLE}</style>'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>{"".join(parts)}</svg>\n'
    )


def _quality_panel(
    place: int,
    measure: str,
    clips: Sequence[SweptClip],
    intervals: Sequence[Interval],
    groups: Sequence[str],
    tolerance: float,
    source: str,
) -> _Panel:
    steps = {k: float(n) for n, k in enumerate(sorted({interval.frame_interval for interval in intervals}))}
    values = [c.quality[measure] for c in clips] if len(groups) == 1 else [i.quality[measure] for i in intervals]
    low, high, ticks = _nice([value for value in values if not math.isnan(value)], within=(0.0, 1.0))
    panel = _Panel(_LEFT + place * (_PANEL_WIDTH + _GAP_X), _TOP, (-0.3, len(steps) - 0.7), (low, high))
    finest = min(steps)
    best = [i.quality[measure] for i in intervals if i.frame_interval == finest and not math.isnan(i.quality[measure])]
    panel.frame(f"{measure}: {MEASURES[measure]} ({source})", "frame_interval", {x: str(k) for k, x in steps.items()},
                {tick: f"{tick:g}" for tick in ticks})  # fmt: skip
    if best and len(groups) == 1:
        panel.band(best[0], best[0] - tolerance)
        for clip_id in sorted({clip.clip_id for clip in clips}):
            own = sorted((c.frame_interval, c.quality[measure]) for c in clips if c.clip_id == clip_id)
            panel.line([(steps[k], value) for k, value in own], _FAINT, 1.2)
    for number, group in enumerate(groups):
        points = [(steps[i.frame_interval], i.quality[measure]) for i in intervals if i.group == group]
        panel.line(points, COLOURS[number % len(COLOURS)], 3)
        panel.dots(points, COLOURS[number % len(COLOURS)])
        if len(groups) == 1:
            for x, value in points:
                if not math.isnan(value):
                    panel.note(x, value, f"{value:.3f}")
    return panel


def _cost_panel(
    place: int,
    name: str,
    label: str,
    shown: Sequence[str],
    intervals: Sequence[Interval],
    groups: Sequence[str],
    cost: Callable[[Interval], float],
) -> _Panel:
    """Quality over what it costs: up and to the left is better. A colour a measure, or a group where there are any."""
    costs = [cost(interval) for interval in intervals]
    x_low, x_high, x_ticks = _nice([0.0, *costs])
    values = [i.quality[measure] for i in intervals for measure in shown if not math.isnan(i.quality[measure])]
    low, high, ticks = _nice(values, within=(0.0, 1.0))
    top = _TOP + _PANEL_HEIGHT + _GAP_Y
    panel = _Panel(_LEFT + place * (_PANEL_WIDTH + _GAP_X), top, (x_low, x_high), (low, high))
    panel.frame(f"quality against {name}", label, {t: f"{t:g}" for t in x_ticks}, {t: f"{t:g}" for t in ticks})
    for number, group in enumerate(groups):
        for order, measure in enumerate(shown):
            colour = COLOURS[(number if len(groups) > 1 else order) % len(COLOURS)]
            own = [i for i in intervals if i.group == group]
            points = [(cost(i), i.quality[measure]) for i in own]
            panel.line(points, colour, 2.2)
            panel.dots(points, colour)
            for interval, (x, y) in zip(own, points):
                if not math.isnan(y):
                    panel.note(x, y, f"{interval.frame_interval}", colour, below=order == 0 and len(shown) > 1)
    if len(groups) == 1:
        named = [f'<tspan fill="{COLOURS[n]}">● {measure}</tspan>' for n, measure in enumerate(shown)]
        parts = f'<text x="{panel.x + _PANEL_WIDTH}" y="{top - 26}" text-anchor="end">{"  ".join(named)}</text>'
        panel.parts.append(parts)
    return panel


def _legend(groups: Sequence[str], tolerance: float) -> list[str]:
    """What lines mean: clips and their mean where one thing was swept, else the colour of each group."""
    x, y, parts = _LEFT - 46.0, 60.0, []
    if len(groups) == 1:
        entries = [(_FAINT, 1.2, "a clip"), (COLOURS[0], 3.0, "mean of all clips")]
        entries.append(
            ("#d9e8f2", 12.0, f"within {tolerance:g} of the smallest interval; numbers below: frame_interval")
        )
    else:
        entries = [(COLOURS[n % len(COLOURS)], 3.0, group) for n, group in enumerate(groups)]
    for colour, width, label in entries:
        parts += [_segment(x, y - 5, x + 26, y - 5, colour, width), _label(x + 34, y, label, "start", "small")]
        x += 58 + 6.4 * len(label)
    return parts


def _nice(
    values: Sequence[float], within: tuple[float, float] = (-math.inf, math.inf)
) -> tuple[float, float, list[float]]:
    """Round ends for an axis, and its ticks at multiples of 1, 2 or 5."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    if high - low < 1e-9:
        low, high = low - 0.05 * (abs(low) or 1), high + 0.05 * (abs(high) or 1)
    step = next(
        unit * 10**exponent
        for exponent in range(math.floor(math.log10(high - low)) - 1, 20)
        for unit in (1, 2, 5)
        if (high - low) / (unit * 10.0**exponent) <= 6
    )
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = [round(n * step, 10) for n in range(first, last + 1) if within[0] - 1e-9 <= n * step <= within[1] + 1e-9]
    return ticks[0], ticks[-1], ticks


def _segment(x0: float, y0: float, x1: float, y1: float, colour: str, width: float) -> str:
    return f'<line x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}" stroke="{colour}" stroke-width="{width}"/>'


def _label(x: float, y: float, text: str, anchor: str, style: str = "") -> str:
    return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
