"""Draws how memory develops over a soak test, as one SVG file without scripts or fonts of its own."""

import math
from collections.abc import Sequence

WIDTH, HEIGHT = 860, 320
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 36, 44
TICKS = 6

Points = Sequence[tuple[float, float]]


def slope(points: Points) -> float:
    """Of the straight line that fits points best, by least squares."""
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    width = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / width if width else 0.0


def svg(points: Points, *, judged_from: float) -> str:
    """
    Draw a graph.

    Args:
        points: Minutes and megabytes, in order.
        judged_from: From this minute on the straight line of best fit is drawn.
    """
    last = points[-1][0] or 1.0
    highest = _rounded_up(max(y for _, y in points))

    def place(x: float, y: float) -> str:
        across = LEFT + x / last * (WIDTH - LEFT - RIGHT)
        return f"{across:.1f},{HEIGHT - BOTTOM - y / highest * (HEIGHT - TOP - BOTTOM):.1f}"

    judged = [point for point in points if point[0] >= judged_from] or list(points)
    mean_x, mean_y = (sum(values) / len(judged) for values in zip(*judged, strict=True))
    rise = slope(judged)
    ends = [place(x, mean_y + rise * (x - mean_x)) for x in (judged[0][0], judged[-1][0])]
    step = last / TICKS
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'role="img" font-family="sans-serif" font-size="12" fill="#333">',
        "<title>Resident memory of the relay over time</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        f'<text x="{LEFT}" y="20" font-size="14">Resident memory in MB, over minutes; '
        f"line of best fit {rise * (judged[-1][0] - judged[0][0]):+.2f} MB</text>",
    ]
    for number in range(TICKS + 1):
        minutes, megabytes = number * step, number * highest / TICKS
        x, y = place(minutes, megabytes).split(",")
        lines += [
            f'<line x1="{LEFT}" y1="{y}" x2="{WIDTH - RIGHT}" y2="{y}" stroke="#ddd"/>',
            f'<text x="{LEFT - 8}" y="{float(y) + 4:.1f}" text-anchor="end">{megabytes:.0f}</text>',
            f'<text x="{x}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{minutes:.3g}</text>',
        ]
    lines += [
        f'<polyline fill="none" stroke="#1f6feb" stroke-width="1.5" points="{" ".join(place(*p) for p in points)}"/>',
        f'<polyline fill="none" stroke="#d1242f" stroke-dasharray="6 4" points="{" ".join(ends)}"/>',
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _rounded_up(value: float) -> float:
    """The next multiple of the number of ticks, times ten."""
    return max(math.ceil(value / (10 * TICKS)), 1) * 10.0 * TICKS
