"""What is worth choosing: the rows that no other row beats in both time and error, as a table and drawn.

row is on the front  <=>  no other row has time <= its and error <= its, one of them less
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .benchmark import Result, Row
from .drawings import COLOURS
from .plots import GREY, INK, figure

LESS = 0.01

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
        best = on_front(rows)
        lines += [_heading(result, rows), HEAD]
        for row in sorted(rows, key=lambda row: (row.calls, row.milliseconds[1])):
            low, middle, high = row.milliseconds
            lines.append(
                f"  {'*' if row in best else ' '} {row.name:<22} {row.precision:<6} {row.provider:<8} "
                f"{row.solver:<9} {row.steps:>5} {row.calls:>5} {row.error:>10.2e} {middle:>10.3f}  "
                f"[{low:.3f}, {high:.3f}]"
            )
        lines.append("")
    lines.append(
        f"    {'process start to first sample':<29} form      {'bytes':>13} {'CPU s':>7} {'MB':>5}"
    )
    lines += [
        f"    {one.name:<22} {one.precision:<6} {one.form:<9} {one.size:>13,} {one.seconds:>7.2f} "
        f"{one.megabytes:>5.0f}"
        for one in result.starts
    ]
    lines += [f"    absent: {name} ({why})" for name, why in result.absent.items()]
    lines.append(
        f"  * every faster choice ends farther from the fine solution ({result.settings['fine']})"
    )
    return "\n".join(lines)


HEAD = f"    {'':<22} {'':<6} {'provider':<8} {'solver':<9} steps calls  end error  ms/sample  [quartiles]"


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
    names = list(dict.fromkeys((row.name, row.provider) for row in rows))
    providers = {provider for _, provider in names}
    for axes, batch in zip(page.axes, batches, strict=True):
        mine = [row for row in rows if row.batch == batch]
        for k, (name, provider) in enumerate(names):
            _line(
                axes,
                sorted(
                    (row for row in mine if (row.name, row.provider) == (name, provider)),
                    key=lambda row: row.calls,
                ),
                COLOURS[k % len(COLOURS)],
                name if len(providers) == 1 else f"{name}, {provider}",
            )
        _front(axes, on_front(mine))
        counts = " or ".join(_threads(count) for count in sorted({row.threads for row in mine}))
        axes.set_title(f"batch {batch}, {counts}", color=INK, fontsize=10)
    page.axes[0].set_ylabel("end error", color=INK)
    handles, labels = page.axes[0].get_legend_handles_labels()
    page.legend(handles, labels, loc="outside right center", frameon=False, fontsize=9)
    page.suptitle(
        "Error against time: the ringed choices are beaten by none", color=INK, fontsize=12
    )
    return page


def _line(axes: "Axes", rows: Sequence[Row], colour: str, label: str) -> None:
    """One contender from few calls to many, its quartiles as bars."""
    low, middle, high = zip(*(row.milliseconds for row in rows), strict=True)
    error = [row.error for row in rows]
    axes.plot(middle, error, color=colour, linewidth=1.6, marker="o", markersize=4, label=label)
    axes.hlines(error, low, high, color=colour, linewidth=4.0, alpha=0.25)
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
    told = dict[tuple[str, int], Row]()
    for row in best:  # the fastest of those that make the same calls
        told.setdefault((row.solver, row.calls), row)
    for (solver, calls), row in told.items():
        axes.annotate(
            f"{solver} {calls}", (row.milliseconds[1], row.error), (-6, -9), ha="right", va="top",
            textcoords="offset points", fontsize=8, color="#777777",
        )  # fmt: skip


def _logarithmic(axes: "Axes") -> None:
    """Both ways, its ticks at 1, 2 and 5 in plain digits, with room for the rings and their words."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes.set(xscale="log", yscale="log")
    axes.margins(x=0.14, y=0.1)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
