"""A bar chart as SVG, without a drawing library: rows a second beside peak memory, one line for each contender.

Readable on a light and on a dark page: no background, and greys and colours that stand out from both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from benchmarks.harness import Report, Result

TEXT, FAINT = "#7d8590", "#8b949e40"
OURS, REFERENCE, OTHER = "#2f81f7", "#8b949e", "#d29922"
LINE, TOP, LABELS, GAP = 30, 78, 190, 84
WIDTH = 900
PANEL = (WIDTH - LABELS - 2 * GAP) // 2


@dataclass(frozen=True)
class Bar:
    label: str
    colour: str
    rate: float
    megabytes: float


def svg(report: Report, references: Sequence[str]) -> str:
    """The chart of all contenders that were measured; `references` are drawn in grey, ours in blue."""
    shown = [result for result in report.results if result.measured and result.contender.counts]
    bars = [bar(result, report, references) for result in shown]
    bottom = TOP + LINE * len(bars)
    right = LABELS + PANEL + GAP
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {bottom + 34}" role="img"'
        f' font-family="system-ui, -apple-system, Segoe UI, Helvetica, sans-serif" font-size="13" fill="{TEXT}">',
        f"<title>{escape(report.title)}</title>",
        f'<text x="0" y="22" font-size="17" font-weight="600">{escape(report.title)}</text>',
        f'<text x="{LABELS}" y="54" font-weight="600">rows per second, thousands</text>',
        f'<text x="{right}" y="54" font-weight="600">peak memory, MB</text>',
        *panel(bars, LABELS, lambda each: each.rate / 1000),
        *panel(bars, right, lambda each: each.megabytes),
        *(label(each, place) for place, each in enumerate(bars)),
        f'<text x="0" y="{bottom + 24}" font-size="11">{escape(footnote(report))}</text>',
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def bar(result: Result, report: Report, references: Sequence[str]) -> Bar:
    name = result.contender.name
    colour = REFERENCE if name in references else OURS if name.startswith("headrace") else OTHER
    return Bar(name, colour, report.rows / result.seconds, result.peak / 2**20)


def panel(bars: Sequence[Bar], left: int, value: Callable[[Bar], float]) -> list[str]:
    """Bars that grow from `left`, each with its number at its end."""
    largest = max((value(each) for each in bars), default=1) or 1
    lines = [f'<line x1="{left}" x2="{left}" y1="{TOP - 10}" y2="{TOP + LINE * len(bars)}" stroke="{FAINT}"/>']
    for place, each in enumerate(bars):
        y, length = TOP + LINE * place, max(2.0, PANEL * value(each) / largest)
        lines.append(
            f'<rect x="{left}" y="{y}" width="{length:.1f}" height="{LINE - 12}" rx="3" fill="{each.colour}"/>'
        )
        lines.append(f'<text x="{left + length + 7:.1f}" y="{y + 14}">{value(each):,.0f}</text>')
    return lines


def label(each: Bar, place: int) -> str:
    weight = ' font-weight="600"' if each.colour == OURS else ""
    return (
        f'<text x="{LABELS - 10}" y="{TOP + LINE * place + 14}" text-anchor="end"{weight}>{escape(each.label)}</text>'
    )


def footnote(report: Report) -> str:
    facts = dict(report.machine)
    size = f"{report.rows / 1e6:g} M rows, {report.csv_bytes / 1e6:,.0f} MB of CSV"
    return f"{size}; {facts['cores']} cores shared by client, database and S3 endpoint; peak of the largest process"
