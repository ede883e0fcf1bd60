"""Bars as SVG that is legible on light and dark pages: one panel below the other, a bar for each system.

Holds the drawing. Must not know what is drawn.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

_WIDTH: Final = 760
_LEFT, _RIGHT = 210, 90
_TOP, _BOTTOM = 18, 14
_HEAD: Final = 30
_BAR, _GAP = 16, 6
_BETWEEN: Final = 18
_OURS, _OTHERS = "#0969da", "#8c959f"


@dataclass(frozen=True, slots=True)
class Panel:
    """One kind of figure."""

    title: str
    bars: Sequence[tuple[str, float]]
    form: Callable[[float], str]
    is_log: bool

    @property
    def height(self) -> int:
        """How much room it takes."""
        return _HEAD + len(self.bars) * (_BAR + _GAP)

    def width(self, value: float) -> float:
        """Return how long a bar is, as a share of the longest there could be."""
        values = [each for _, each in self.bars]
        if not self.is_log:
            return value / max(1.0, *values)
        low, high = math.floor(math.log10(min(values)) - 0.01), math.ceil(math.log10(max(values)))
        return (math.log10(value) - low) / max(1, high - low)


def chart(title: str, panels: Sequence[Panel], ours: str) -> str:
    """Draw them; bars whose name begins with ours stand out."""
    height = _TOP + sum(panel.height for panel in panels) + _BETWEEN * (len(panels) - 1) + _BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" aria-labelledby="title"'
        ' font-family="system-ui, -apple-system, sans-serif" font-size="12">',
        f'<title id="title">{escape(title)}</title>',
        f'<rect width="{_WIDTH}" height="{height}" rx="8" fill="#ffffff"/>',
    ]
    y = _TOP
    for panel in panels:
        scale = " (logarithmic)" if panel.is_log else ""
        parts.append(f'<text x="16" y="{y + 12}" font-weight="600" fill="#1f2328">{escape(panel.title)}{scale}</text>')
        for place, (name, value) in enumerate(panel.bars):
            top = y + _HEAD + place * (_BAR + _GAP)
            length = max(2.0, panel.width(value) * (_WIDTH - _LEFT - _RIGHT))
            colour = _OURS if name.startswith(ours) else _OTHERS
            parts += [
                f'<text x="{_LEFT - 10}" y="{top + 12}" text-anchor="end" fill="#1f2328">{escape(name)}</text>',
                f'<rect x="{_LEFT}" y="{top}" width="{length:.1f}" height="{_BAR}" rx="2" fill="{colour}"/>',
                f'<text x="{_LEFT + length + 8:.1f}" y="{top + 12}" fill="#57606a">{panel.form(value)}</text>',
            ]
        y += panel.height + _BETWEEN
    return "\n".join([*parts, "</svg>"]) + "\n"
