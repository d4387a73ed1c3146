"""What is worth choosing: the rows that no other row beats in both time and error, as a table and drawn.

row is on the front  <=>  no other row has time <= its and error <= its, one of them less
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from runtimes.timing import Quartiles

from .benchmark import Result, Row
from .drawings import COLOURS
from .peers import OURS
from .plots import GREY, INK, figure
from .starts import Start

LESS = 0.01
NEAR = 1.5  # times the error of another: no word of its own in the picture
SPAN = 6.0  # what an axis shows at least: largest over smallest
FILE, PEER = {"linestyle": "-", "marker": "o"}, {"linestyle": "--", "marker": "s"}

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """The indices of the points (time, error) on the front, by growing time; of equal ones the first.

    An error that is less by under `LESS` is none: another engine adds the same numbers in another order.
    """
    order = sorted(range(len(points)), key=lambda i: (*points[i], i))
    found, least = list[int](), float("inf")
    for i in order:
        if points[i][1] < least * (1.0 - LESS):
            found.append(i)
            least = points[i][1]
    return found


def on_front(rows: Sequence[Row]) -> list[Row]:
    """The front of the rows of one batch."""
    return [rows[i] for i in front([(row.milliseconds[1], row.error) for row in rows])]


def table(result: Result) -> str:
    """Everything for people; a star marks the front of a batch."""
    lines = []
    for batch in sorted({row.batch for row in result.rows}):
        rows = [row for row in result.rows if row.batch == batch]
        lines += [_heading(result, rows), *_aligned([HEAD, *_cells(rows)], RIGHT), ""]
    starts = [_start(one) for one in result.starts]
    lines += ["process start to first sample", *_aligned([START, *starts], START_RIGHT), ""]
    lines += [f"  {who}: compiled for {s:.0f} s before" for who, s in result.compiling.items()]
    for why in dict.fromkeys(result.absent.values()):
        names = ", ".join(name for name, one in result.absent.items() if one == why)
        lines.append(f"  absent: {names} ({why})")
    fine = result.settings["fine"]
    lines.append(f"  * every faster choice ends farther from the fine solution ({fine})")
    if bare := result.settings["bare"]:
        lines.append(f"  / bare: the time over that of as many bare calls of {bare}")
    return "\n".join(lines)


HEAD = ("", "calls", "", "", "", "solver", "end error", "ms/sample", "/ bare", "[quartiles]")
RIGHT = (1, 6, 7, 8)  # the columns of numbers
START = ("", "", "form", "bytes", "CPU s", "MB")
START_RIGHT = (3, 4, 5)


def _cells(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """The rows of one batch by their number of calls, the bare calls before each."""
    best, cells = on_front(rows), list[tuple[str, ...]]()
    for row in sorted(rows, key=lambda row: (row.calls, row.milliseconds[1])):
        calls = str(row.calls)
        if row.bare and calls not in [cell[1] for cell in cells]:
            time = (_short(row.bare[1]), "1.00", _between(row.bare))
            cells.append(("", calls, "bare calls", "", "", "", "", *time))
        cells.append((
            "*" if row in best else "", calls, row.name, row.precision, row.provider,
            f"{row.solver} {row.steps}", f"{row.error:.2e}", _short(row.milliseconds[1]),
            f"{row.ratio[1]:.2f}" if row.ratio else "", _between(row.milliseconds),
        ))  # fmt: skip
    return cells


def _start(one: Start) -> tuple[str, ...]:
    size = "" if one.size is None else f"{one.size:,}"
    return one.name, one.precision, one.form, size, f"{one.seconds:.2f}", f"{one.megabytes:.0f}"


def _aligned(cells: Sequence[tuple[str, ...]], right: Sequence[int]) -> list[str]:
    """Columns as wide as what they hold, indented."""
    wide = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        ("  " + "  ".join(
            cell.rjust(wide[k]) if k in right else cell.ljust(wide[k]) for k, cell in enumerate(row)
        )).rstrip()
        for row in cells
    ]  # fmt: skip


def _between(quartiles: Quartiles) -> str:
    return f"[{_short(quartiles[0])}, {_short(quartiles[2])}]"


def _short(value: float) -> str:
    """Three digits or more: 0.120, 12.0, 1234."""
    return f"{value:.0f}" if value >= 99.95 else f"{value:#.3g}"


def _heading(result: Result, rows: Sequence[Row]) -> str:
    """The batch, and how its threads were chosen."""
    words = [f"batch {rows[0].batch}"]
    for provider in dict.fromkeys(row.provider for row in rows):
        told = result.settings["threads"].get(f"{provider}, batch {rows[0].batch}")
        if told is None:
            continue
        why = "as told" if told["all / one"] is None else f"all cores / 1: {told['all / one']:.2f}"
        words.append(f"{provider} on {_threads(told['threads'])} ({why})")
    return ", ".join(words)


def _threads(count: int) -> str:
    return f"{count} thread{'s' * (count != 1)}"


def pareto_figure(rows: Sequence[Row]) -> "Figure":
    """Error against milliseconds per sample, a panel for each batch and a line for each contender."""
    batches = sorted({row.batch for row in rows})
    page = figure(4.9 * len(batches) + 1.8, 4.6, columns=len(batches))
    names = list(dict.fromkeys((row.name, row.provider, row.engine) for row in rows))
    providers = {provider for _, provider, engine in names if engine == OURS}
    for axes, batch in zip(page.axes, batches, strict=True):
        mine = [row for row in rows if row.batch == batch]
        for k, (name, provider, engine) in enumerate(names):
            look = {"color": COLOURS[k % len(COLOURS)], **(FILE if engine == OURS else PEER)}
            own = [row for row in mine if (row.name, row.provider) == (name, provider)]
            if own:
                label = name if len(providers) == 1 else f"{name}, {provider}"
                _line(axes, sorted(own, key=lambda row: row.calls), label, look)
        _front(axes, on_front(mine))
        axes.set(xlim=_wide(axes.get_xlim()), ylim=_wide(axes.get_ylim()))
        counts = " or ".join(_threads(count) for count in sorted({row.threads for row in mine}))
        axes.set_title(f"batch {batch}, {counts}", color=INK, fontsize=10)
    page.axes[0].set_ylabel("end error", color=INK)
    handles, labels = page.axes[0].get_legend_handles_labels()
    page.legend(
        handles, labels, loc="outside right center", frameon=False, fontsize=9, handlelength=3.2
    )
    page.suptitle(
        "Error against time: the ringed choices are beaten by none", color=INK, fontsize=12
    )
    return page


def _line(axes: "Axes", rows: Sequence[Row], label: str, look: dict[str, Any]) -> None:
    """One contender from few calls to many, its quartiles as bars."""
    low, middle, high = zip(*(row.milliseconds for row in rows), strict=True)
    error = [row.error for row in rows]
    axes.plot(middle, error, linewidth=1.6, markersize=4, label=label, **look)
    axes.hlines(error, low, high, color=look["color"], linewidth=4.0, alpha=0.25)
    _logarithmic(axes)
    axes.set_xlabel("milliseconds per sample", color=INK)
    axes.grid(color=GREY, alpha=0.2, linewidth=0.6)


def _front(axes: "Axes", best: Sequence[Row]) -> None:
    """Rings and the number of calls at the choices of the front, a line of steps through them."""
    time, error = [row.milliseconds[1] for row in best], [row.error for row in best]
    axes.step(time, error, where="post", color=GREY, linewidth=1.0, dashes=(4, 3), zorder=0)
    axes.plot(
        time, error, "o", markersize=10, markerfacecolor="none", color=INK, label="on the front"
    )
    told = list[Row]()
    for row in best:  # of those that make the same calls and end as near, the fastest
        same = [one for one in told if (one.solver, one.calls) == (row.solver, row.calls)]
        if all(row.error * NEAR < one.error for one in same):
            told.append(row)
    for row in told:
        axes.annotate(
            f"{row.solver} {row.calls}", (row.milliseconds[1], row.error), (-6, -9), ha="right",
            va="top", textcoords="offset points", fontsize=8, color="#777777",
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0.5},
        )  # fmt: skip


def _wide(limits: tuple[float, float]) -> tuple[float, float]:
    """Limits of a logarithmic axis, `SPAN` apart or more: two ticks at least, and roundings are not seen."""
    low, high = limits
    more = max(1.0, SPAN / (high / low)) ** 0.5
    return low / more, high * more


def _logarithmic(axes: "Axes") -> None:
    """Both ways, its ticks at 1, 2 and 5 in plain digits, with room for the rings and their words."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes.set(xscale="log", yscale="log")
    axes.margins(x=0.14, y=0.1)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
