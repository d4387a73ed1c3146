"""A comparison as one HTML file with everything inside: tables, error along the path, the samples.

It follows the reader's light or dark colours: every drawing is there twice, and the browser picks one.
"""

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from . import pictures, plots
from .backends import Absent
from .compare import Comparison, Row
from .reports import verdict, words
from .show import kind_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN = 10  # samples shown at most
CLOUD = 2000  # points of a scatter at most


@dataclass(frozen=True)
class Theme:
    """Colours of a drawing on light or dark paper; lines after Okabe and Ito 2008, lighter on dark."""

    paper: str
    ink: str
    lines: tuple[str, ...]


LIGHT = Theme(
    "#ffffff", "#333333", ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
)
DARK = Theme(
    "#1c1f24", "#c9ced6", ("#56B4E9", "#F0804A", "#2FC296", "#E29ABF", "#F0C24B", "#9AA7F5")
)


def error_figure(result: Comparison, theme: Theme = LIGHT) -> "Figure":
    """Relative error of the state at t on a logarithmic axis, a line for each backend.

    Where there is no error at all it is drawn on a floor of its own. A backend that shows only its last
    state is a dot; the noise, which all have in common, is left out.
    """
    page = plots.figure(8.2, 3.6)
    (axes,) = page.axes
    _paint(page, theme)
    rows = result.rows[1:]
    seen = [e for row in rows for e in row.relative[1:] if np.isfinite(e)]
    floor = min([result.tolerance, *(error for error in seen if error > 0.0)]) / 4
    axes.set_yscale("log")
    for index, row in enumerate(rows):
        t = [result.plan.times[step] for step in row.steps[1:]]
        height = np.maximum(row.relative[1:], floor)
        wide = 1.4 + 1.6 * (len(rows) - 1 - index) / max(len(rows) - 1, 1)  # equal lines nest
        axes.plot(
            t, height, color=theme.lines[index % len(theme.lines)], linewidth=wide, marker="o",
            markersize=2 * wide, clip_on=False, label=row.backend.name, zorder=3,
            linestyle="-" if index < len(theme.lines) else "--",
        )  # fmt: skip
    axes.axhline(result.tolerance, color=theme.ink, linewidth=1.0, dashes=(4, 3), zorder=1)
    _note(axes, "tolerance", result.tolerance, theme)
    if any(error == 0.0 for error in seen):
        axes.axhline(floor, color=theme.ink, linewidth=0.6, alpha=0.5, zorder=1)
        _note(axes, "no difference", floor, theme)
    axes.set_xlabel("t, from noise to data", color=theme.ink)
    axes.set_ylabel(f"error against {result.rows[0].backend.name}", color=theme.ink)
    page.legend(loc="outside upper left", ncols=3, frameon=False, fontsize=9, labelcolor=theme.ink)
    return page


def _note(axes: "Axes", text: str, height: float, theme: Theme) -> None:
    axes.annotate(
        text, (1.0, height), (0, 3), xycoords=("axes fraction", "data"), ha="right",
        textcoords="offset points", fontsize=8.5, color=theme.ink, alpha=0.8,
    )  # fmt: skip


def _paint(page: "Figure", theme: Theme) -> None:
    """The theme's colours on a figure of `plots`."""
    page.set_facecolor(theme.paper)
    for axes in page.axes:
        axes.set_facecolor(theme.paper)
        axes.tick_params(which="both", labelcolor=theme.ink)


def html(result: Comparison, absent: Sequence[Absent] = ()) -> str:
    """The whole page."""
    spec = result.plan.model.spec
    mark = "bad" if result.outside else "good"
    sections = [
        f"<h1>{escape(spec.name)}: one model, {len(result.rows)} backends</h1>",
        f'<p class="verdict {mark}">{escape(verdict(result))}</p>',
        f"<p>{escape(words(result))}. Errors are those of the state after each step, from the same "
        f"noise, against <b>{escape(result.rows[0].backend.name)}</b>, relative to its largest value.</p>",
        _table(result),
        _absent(absent),
        "<h2>Error along the path</h2>",
        _drawn(lambda theme: error_figure(result, theme), "relative error of each backend over t"),
        _samples(result),
        f"<footer>{escape(result.machine)}. {TIMING if result.rows[0].rate else ''}</footer>",
    ]
    title = escape(f"{spec.name}: {verdict(result)}")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(part for part in sections if part)
        + "\n</main>\n</body>\n</html>\n"
    )


def _table(result: Comparison) -> str:
    speed = any(row.rate for row in result.rows)
    heads = ["", "", "error<br>on the path", "error<br>at the end", "absolute<br>at the end"]
    heads += ["samples<br>a second", "cold<br>start", "peak<br>memory"] if speed else []
    most = max((row.rate[1] for row in result.rows if row.rate), default=1.0)
    lines = [_line(row, result, speed, most) for row in result.rows]
    head = "".join(f"<th>{name}</th>" for name in heads)
    return (
        f'<div class="wide"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _line(row: Row, result: Comparison, speed: bool, most: float) -> str:
    """A row of the table."""
    bad = row in result.outside
    mark, badge = ("bad", "outside") if bad else ("good", "within")
    if row is result.rows[0]:
        mark, badge = "", "reference"
    errors = [row.worst, *((row.relative[-1], row.absolute[-1]) if not row.failure else ())]
    cells = [f"{error:.1e}" for error in errors] + [""] * (3 - len(errors))
    if row is result.rows[0]:
        cells = ["", "", ""]
    cells += _speed(row, most) if speed else []
    why = f"<br><small>{escape(row.failure)}</small>" if row.failure else ""
    return (
        f"<tr><td><b>{escape(row.backend.name)}</b><br><small>{escape(row.backend.version)}</small>{why}"
        f'</td><td><span class="badge {mark}">{badge}</span></td>'
        + "".join(f"<td>{cell}</td>" for cell in cells)
        + "</tr>"
    )


def _speed(row: Row, most: float) -> list[str]:
    """Its cells of rate, cold start and memory, empty where they were not measured."""
    rate, start = "", ["", ""]
    if row.rate is not None:
        low, middle, high = row.rate
        rate = (
            f'<span class="bar"><i style="width:{100 * middle / most:.0f}%"></i></span>'
            f"{middle:.3g} <small>[{low:.3g}, {high:.3g}]</small>"
        )
    if row.cold is not None:
        start = [f"{row.cold:.2f} s", f"{row.megabytes:.0f} MB"]
    return [rate, *start]


def _absent(absent: Sequence[Absent]) -> str:
    if not absent:
        return ""
    items = "".join(f"<li><b>{escape(one.name)}</b> {escape(one.reason)}</li>" for one in absent)
    return f'<p class="quiet">Not here, so not compared:</p><ul class="quiet">{items}</ul>'


def _drawn(draw: Callable[[Theme], "Figure"], alt: str) -> str:
    """A drawing in both themes."""
    light, dark = (_data(plots.png(draw(theme))) for theme in (LIGHT, DARK))
    return (
        f'<picture class="plot"><source media="(prefers-color-scheme: dark)" srcset="{dark}">'
        f'<img src="{light}" alt="{escape(alt)}"></picture>'
    )


def _data(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _samples(result: Comparison) -> str:
    """The same samples from each backend."""
    draw = DRAWN.get(kind_of(result.plan.model.spec.shape))
    return "" if draw is None else f"<h2>The same samples</h2>{draw(result)}"


def _images(result: Comparison) -> str:
    """A strip for each backend, and under it what differs from the reference, as large as it is seen."""
    values = result.plan.model.spec.value_range or (-1.0, 1.0)
    theirs = result.rows[0].sample
    parts = []
    for row in result.rows:
        if row.sample is None or theirs is None:
            continue
        name = f"<b>{escape(row.backend.name)}</b>"
        parts.append(_strip(name, pictures.to_pixels(row.sample[:SHOWN], values), "sample"))
        apart = np.abs(row.sample[:SHOWN] - theirs[:SHOWN])
        largest = float(apart.max())
        if row is not result.rows[0]:
            name = f"<small>difference, white is {largest:.0e}</small>"
            shown = pictures.to_pixels(apart, (0.0, largest or 1.0))
            parts.append(_strip(name, shown, "difference"))
    return f'<div class="strips">{"".join(parts)}</div>'


def _strip(name: str, pixels: np.ndarray, what: str) -> str:
    cells = "".join(
        f'<img src="{_data(pictures.png(image))}" alt="{what} {k}">'
        for k, image in enumerate(pixels)
    )
    return f'<div>{name}</div><div class="strip {what}">{cells}</div>'


def _points(result: Comparison) -> str:
    """A scatter for each backend on the same axes."""
    rows = [row for row in result.rows if row.sample is not None]
    everything = np.concatenate([row.sample for row in rows])

    def draw(theme: Theme) -> "Figure":
        page = plots.figure(2.9 * len(rows), 3.1, columns=len(rows))
        _paint(page, theme)
        for axes, row in zip(page.axes, rows, strict=True):
            plots.dots(axes, row.sample[:CLOUD], theme.lines[0])
            plots.square(axes, everything)
            axes.set_title(row.backend.name, color=theme.ink, fontsize=9)
        return page

    return _drawn(draw, "the same points from each backend")


# what a sample is to the eye -> its drawing; of other kinds there is none
DRAWN: dict[str, Callable[[Comparison], str]] = {"images": _images, "points": _points}

TIMING = (
    "Rates are medians [quartiles] of runs taken in turn, each backend with the threads it chooses itself; a "
    "cold start is a process from its beginning to the first sample, and memory its peak."
)
STYLE = """
:root { color-scheme: light dark; --paper: #fff; --back: #f4f5f7; --ink: #24292f; --soft: #6a7178;
  --line: #dfe2e6; --good: #00724f; --bad: #b3261e; --bar: #0072b2 }
@media (prefers-color-scheme: dark) { :root { --paper: #1c1f24; --back: #131519; --ink: #dde1e6;
  --soft: #969da6; --line: #343941; --good: #45cf9f; --bad: #ff8a80; --bar: #56b4e9 } }
* { box-sizing: border-box }
body { margin: 0; background: var(--back); color: var(--ink); font: 15px/1.5 system-ui, sans-serif }
main { max-width: 60rem; margin: 2rem auto; padding: 1.6rem 2rem 1.2rem; background: var(--paper);
  border: 1px solid var(--line); border-radius: 10px }
h1 { font-size: 1.5rem; margin: 0 0 .4rem; line-height: 1.25 }
h2 { font-size: 1.1rem; margin: 2rem 0 .6rem }
.verdict { font-weight: 600; margin: 0 0 .8rem } .verdict.good { color: var(--good) }
.verdict.bad { color: var(--bad) }
.wide { overflow-x: auto }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th { font-weight: 500; color: var(--soft); font-size: .85rem }
th, td { text-align: right; padding: .5rem .6rem; border-bottom: 1px solid var(--line);
  white-space: nowrap; vertical-align: top }
th { vertical-align: bottom; line-height: 1.3 }
th:first-child, td:first-child { text-align: left; padding-left: 0; white-space: normal;
  min-width: 10rem }
th:nth-child(2), td:nth-child(2) { text-align: left }
small, .quiet, footer { color: var(--soft); font-size: .82rem }
.badge { border: 1px solid; border-radius: 99px; padding: .05rem .55rem; font-size: .78rem;
  color: var(--soft) } .badge.good { color: var(--good) } .badge.bad { color: var(--bad) }
.bar { display: block; height: 4px; margin: .1rem 0 .15rem; background: var(--line);
  border-radius: 2px; overflow: hidden } .bar i { display: block; height: 100%; background: var(--bar) }
ul.quiet { margin: 0; padding-left: 1.1rem } p.quiet { margin: 1rem 0 .2rem }
.plot img { width: 100%; height: auto; display: block }
.strips div:has(small) { margin-bottom: .6rem }
.strips { display: grid; grid-template-columns: minmax(8rem, 12rem) 1fr; gap: .5rem 1rem;
  align-items: center; overflow-wrap: anywhere }
.strip { display: flex; gap: 4px } .strip img { flex: 1; min-width: 0; max-width: 72px;
  image-rendering: pixelated; border-radius: 3px }
.strip.difference { margin-bottom: .6rem }
footer { border-top: 1px solid var(--line); margin-top: 2rem; padding-top: .8rem }
@media (max-width: 40rem) { main { margin: 0; padding: 1rem; border: 0; border-radius: 0 }
  .strips { grid-template-columns: 1fr } }
"""
