"""What a call costs in each gateway, as a drawing that reads in light and in dark."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Final
from xml.sax.saxutils import escape

from bench.findings import Row
from bench.gateways import EMBEDDED, HOLDFAST, MODERN, NGINX
from bench.peers import ENVOY, FASTMCP, FASTMCP_SHARED

WORKLOADS: Final = {"call-32": "", "stdio-32": " (stdio server)"}
"""Those that are drawn, and what is said behind the gateway's name."""
TITLES: Final = {
    HOLDFAST: "Holdfast",
    MODERN: "Holdfast, 2026-07-28",
    EMBEDDED: "Holdfast through ASGI",
    ENVOY: "Envoy's MCP router",
    FASTMCP: "FastMCP",
    FASTMCP_SHARED: "FastMCP, one client",
}
OURS: Final = frozenset({HOLDFAST, MODERN, EMBEDDED})

_WIDTH: Final = 880
_LEFT: Final = 250
_RIGHT: Final = 680
"""Where the scale begins and ends; figures stand behind their dots."""
_TOP: Final = 92
_STEP: Final = 30

_SUBTITLE: Final = "32 connections; less is better, and every line of the scale is ten times the one before"

_STYLE: Final = """
    text { font: 14px system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; fill: #1f2430; }
    .head { font-size: 16px; font-weight: 600; }
    .quiet { font-size: 13px; fill: #5a6374; }
    .value { paint-order: stroke; stroke: var(--page); stroke-width: 5; }
    .name { text-anchor: end; }
    .unit { text-anchor: middle; }
    svg { --page: #ffffff; }
    .page { fill: var(--page); stroke: #d5dae3; }
    .grid { stroke: #dfe3ea; stroke-width: 1; }
    .peer { --c: #6b7280; } .ours { --c: #1a7f5a; }
    .ours text { font-weight: 600; }
    .stem { stroke: var(--c); stroke-width: 3; stroke-linecap: round; opacity: 0.45; }
    .dot { fill: var(--c); }
    @media (prefers-color-scheme: dark) {
      text { fill: #e6e9f0; }
      .quiet { fill: #a3adbf; }
      svg { --page: #12161f; }
      .page { stroke: #2c3444; }
      .grid { stroke: #2c3444; }
      .peer { --c: #a3adbf; } .ours { --c: #4cc796; }
    }
"""


def as_svg(rows: Sequence[Row]) -> str:
    """The chart of a summary."""
    bars = sorted(_bars(rows), key=lambda bar: bar[1])
    low = 10 ** math.floor(math.log10(min((cost for _, cost, _, _ in bars), default=10)))
    high = 10 ** math.ceil(math.log10(max((cost for _, cost, _, _ in bars), default=100) * 1.0001))
    summary = "; ".join(f"{name}: {said}" for name, _, said, _ in bars)
    bottom = _TOP + _STEP * len(bars)
    height = bottom + 52
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" aria-labelledby="title">',
        f'  <title id="title">CPU time of gateways per tool call: {escape(summary)}</title>',
        f"  <style>{_STYLE}  </style>",
        f'  <rect class="page" x="0.5" y="0.5" width="{_WIDTH - 1}" height="{height - 1}" rx="10"/>',
        '  <text class="head" x="28" y="36">CPU time of the gateway per small tool call</text>',
        f'  <text class="quiet" x="28" y="58">{_SUBTITLE}</text>',
    ]
    for power in range(round(math.log10(low)), round(math.log10(high)) + 1):
        x = _place(10**power, low, high)
        lines.append(f'  <path class="grid" d="M{x:.1f} {_TOP - 14} V{bottom}"/>')
        lines.append(f'  <text class="quiet unit" x="{x:.1f}" y="{bottom + 24}">{_time(10**power)}</text>')
    for number, (name, cost, said, is_ours) in enumerate(bars):
        x, y = _place(cost, low, high), _TOP + _STEP * number
        lines += [
            f'  <g class="{"ours" if is_ours else "peer"}">',
            f'    <text class="name" x="{_LEFT - 14}" y="{y + 5}">{escape(name)}</text>',
            f'    <path class="stem" d="M{_LEFT} {y} H{x:.1f}"/><circle class="dot" cx="{x:.1f}" cy="{y}" r="6"/>',
            f'    <text class="value" x="{x + 14:.1f}" y="{y + 5}">{escape(said)}</text>',
            "  </g>",
        ]
    return "\n".join([*lines, "</svg>", ""])


def _bars(rows: Sequence[Row]) -> Iterator[tuple[str, float, str, bool]]:
    """Name, microseconds, what is said of them, and whether it is Holdfast."""
    for row in rows:
        if row.workload in WORKLOADS and row.cpu_us_per_call:
            name = TITLES.get(row.gateway, row.gateway) + WORKLOADS[row.workload]
            said = _time(row.cpu_us_per_call)
            if row.cpu_ratio_to_nginx is not None and row.gateway != NGINX:
                said += f", {_rounded(row.cpu_ratio_to_nginx)} times nginx"
            yield name, row.cpu_us_per_call, said, row.gateway in OURS


def _place(cost: float, low: float, high: float) -> float:
    return _LEFT + (_RIGHT - _LEFT) * math.log10(cost / low) / math.log10(high / low)


def _time(microseconds: float) -> str:
    return f"{_rounded(microseconds)} µs" if microseconds < 1000 else f"{_rounded(microseconds / 1000)} ms"


def _rounded(value: float) -> str:
    """To two digits: the rest is noise."""
    return f"{float(f'{value:.2g}'):,.15g}"
