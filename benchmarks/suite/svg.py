"""A chart as SVG: lines over logarithmic axes, on which proportional growth is a straight line."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from html import escape

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 700, 420, 70, 190, 60, 50
_LINE = 14
"""The least distance of two names that stand below each other."""
_COLOURS = ("#1b6ac9", "#c9541b", "#3a8f3a", "#7b3fa0", "#777777")

Point = tuple[float, float]


@dataclass(slots=True)
class Chart:
    """`lines` by name; all values above zero."""

    title: str
    x: str
    y: str
    lines: dict[str, list[Point]] = field(default_factory=dict)

    def svg(self) -> str:
        points = [point for line in self.lines.values() for point in line]
        across, up = (
            _Axis([x for x, _ in points], _LEFT, _WIDTH - _RIGHT),
            _Axis([y for _, y in points], _HEIGHT - _BOTTOM, _TOP),
        )
        parts = [
            (
                f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}" '
                'font-family="sans-serif">'
            )
        ]
        parts += [
            '<rect width="100%" height="100%" fill="white"/>',
            _text(_LEFT, 22, self.title, size=15),
        ]
        parts += [
            _text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 12, self.x, anchor="middle"),
            _text(8, _TOP - 12, self.y),
        ]
        for value in across.ticks:
            at = across.at(value)
            parts += [
                _line(at, _TOP, at, _HEIGHT - _BOTTOM),
                _text(at, _HEIGHT - _BOTTOM + 16, short(value), anchor="middle"),
            ]
        for value in up.ticks:
            at = up.at(value)
            parts += [
                _line(_LEFT, at, _WIDTH - _RIGHT, at),
                _text(_LEFT - 6, at + 4, short(value), anchor="end"),
            ]
        drawn = {
            name: [(across.at(x), up.at(y)) for x, y in line] for name, line in self.lines.items()
        }
        heights = _apart({name: line[-1][1] for name, line in drawn.items()})
        for (name, line), colour in zip(drawn.items(), _COLOURS * 9, strict=False):
            parts += [
                *_drawn(line, colour),
                _text(line[-1][0] + 8, heights[name] + 4, name, colour=colour),
            ]
        return "\n".join([*parts, "</svg>", ""])


class _Axis:
    """From a value to a place between `start` and `end`."""

    def __init__(self, values: list[float], start: float, end: float) -> None:
        low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
        self._low, self._high = low, max(high, low + 1)
        self._start, self._end = start, end
        self.ticks = [10.0**power for power in range(self._low, self._high + 1)]

    def at(self, value: float) -> float:
        share = (math.log10(value) - self._low) / (self._high - self._low)
        return self._start + share * (self._end - self._start)


def _apart(heights: dict[str, float]) -> dict[str, float]:
    """The same, none nearer to the next than a line of text is high."""
    placed, free = {}, -math.inf
    for name, height in sorted(heights.items(), key=lambda item: item[1]):
        placed[name] = max(height, free)
        free = placed[name] + _LINE
    return placed


def _drawn(points: list[Point], colour: str) -> list[str]:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dots = [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in points]
    return [f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>', *dots]


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#dddddd"/>'


def _text(
    x: float, y: float, text: str, *, anchor: str = "start", size: int = 12, colour: str = "#222222"
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" '
        f'fill="{colour}">{escape(text)}</text>'
    )


def short(value: float) -> str:
    """1 k, 100 k, 1 M."""
    for unit, name in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= unit:
            return f"{value / unit:g}{name}"
    return f"{value:g}"
