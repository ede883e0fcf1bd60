"""A plot of some lines with both axes logarithmic, as SVG that is legible on light and dark pages."""

import math
from collections.abc import Mapping, Sequence
from typing import Final

_WIDTH: Final = 760
_HEIGHT: Final = 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 190, 20, 50
_COLOURS: Final = ("#0969da", "#54aeff", "#80ccff", "#bc4c00", "#fb8f44", "#ffb77c")
_Points = Sequence[tuple[float, float]]


def plot(lines: Mapping[str, _Points]) -> str:
    """Draw each line, named at its right end, over nodes from 2 to 1000."""
    values = [value for points in lines.values() for _, value in points]
    low, high = 10 ** math.floor(math.log10(min(values))), 10 ** math.ceil(math.log10(max(values)))

    def x(nodes: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * math.log(nodes / 2) / math.log(1000 / 2)

    def y(value: float) -> float:
        return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * math.log(value / low) / math.log(high / low)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-labelledby="title"'
        ' font-family="system-ui, -apple-system, sans-serif" font-size="12">',
        '<title id="title">Milliseconds until somebody is found, and packets sent, against the number of nodes</title>',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" rx="8" fill="#ffffff"/>',
    ]
    decades = [10.0**power for power in range(round(math.log10(low)), round(math.log10(high)) + 1)]
    for value in decades:
        parts.append(f'<path d="M{_LEFT} {y(value):.1f}H{_WIDTH - _RIGHT}" stroke="#d0d7de"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y(value) + 4:.1f}" text-anchor="end" fill="#57606a">{value:g}</text>')
    parts += [
        f'<text x="{x(nodes):.1f}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle" fill="#57606a">{nodes}</text>'
        for nodes in (2, 5, 10, 20, 50, 100, 200, 500, 1000)
    ]
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{_HEIGHT - 10}" text-anchor="middle" fill="#57606a">nodes</text>')
    placed: list[float] = []
    ends = sorted(zip(lines.items(), _COLOURS, strict=False), key=lambda line: y(line[0][1][-1][1]))
    for (name, points), colour in ends:
        path = "L".join(f"{x(nodes):.1f} {y(value):.1f}" for nodes, value in points)
        parts.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        # Names stand below one another where lines end close together.
        at = max(y(points[-1][1]) + 4, placed[-1] + 15 if placed else 0)
        placed.append(at)
        parts.append(f'<text x="{_WIDTH - _RIGHT + 8}" y="{at:.1f}" fill="#1f2328">{name}</text>')
        parts.append(f'<rect x="{_WIDTH - 24}" y="{at - 9:.1f}" width="12" height="10" fill="{colour}"/>')
    return "\n".join([*parts, "</svg>"]) + "\n"
