"""How a model behaves, drawn: what solvers cost on it, and its flow in the plane.

Like `plots`: `NAME_figure` builds a matplotlib Figure, and `plots.save` writes it as a PNG.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

import runtimes
from runtimes.charts import path
from runtimes.conditions import conditions
from runtimes.flow import rates
from runtimes.sample import Sampleable
from runtimes.schedules import named

from .costs import Cost, Costs, recommend
from .plots import BLUE, GREY, INK, ORANGE, figure, quiet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito 2008 again; more lines in colour than these cannot be told apart
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
PATHS, CLOUD = 40, 2500  # particles whose paths are drawn, and that make up a density


def cost_figure(costs: Costs, title: str = "") -> "Figure":
    """End error and energy distance against network calls, a line for each solver: the best in colour."""
    best, usual = recommend(costs)
    page = figure(11.0, 4.8, columns=2)
    left, right = page.axes
    names = ranked(costs)
    coloured = [name for name in dict.fromkeys([best.solver, *names]) if name != usual.solver]
    shown = dict(zip(coloured, COLOURS, strict=False))
    for name in reversed(names):  # the best on top
        rows = sorted((row for row in costs.rows if row.solver == name), key=lambda row: row.calls)
        words = {"color": GREY, "linewidth": 0.8, "alpha": 0.6, "label": f"_{name}"}
        if name in shown or name == usual.solver:
            wide = 2.2 if name in (best.solver, usual.solver) else 1.3
            words = {
                "color": shown.get(name, INK),
                "linewidth": wide,
                "marker": "o",
                "label": name,
            }
        words["markersize"] = 3.2
        calls = [row.calls for row in rows]
        left.plot(calls, [row.error for row in rows], **words)
        right.plot(calls, [row.distance for row in rows], **words)
    left.set_yscale("log")
    left.axhline(usual.error, color=GREY, linewidth=1.0, dashes=(4, 3), zorder=0)
    right.axhline(costs.fine, color=GREY, linewidth=1.0, dashes=(4, 3), zorder=0)
    _label(right, "fine samples", costs.fine)
    _label(left, f"euler {usual.steps} steps", usual.error)
    _ring(left, best, best.error)
    _ring(right, best, best.distance)
    _upto(right, [row.distance for row in costs.rows], costs.fine)
    for axes, what in ((left, "end error"), (right, f"energy distance to {costs.against}")):
        _calls_axis(axes, costs)
        axes.set_ylabel(what, color=INK)
    if right.get_yscale() == "linear":
        words = {"xycoords": "axes fraction", "ha": "right", "fontsize": 8, "color": "#777777"}
        right.annotate("unbiased: chance may take it below 0", (0.99, 0.02), **words)
    handles, labels = (part[::-1] for part in left.get_legend_handles_labels())
    rest = len(names) - len(labels)
    title_of = f"grey: {rest} others" if rest else None
    page.legend(
        handles, labels, loc="outside right center", frameon=False, fontsize=9,
        title=title_of, title_fontsize=9,
    )  # fmt: skip
    page.suptitle(title or _sentence(best, usual), color=INK, fontsize=12)
    return page


def ranked(costs: Costs) -> list[str]:
    """The solvers, the one first whose error is least over all numbers of calls (in the mean of the log)."""
    budgets = sorted({row.calls for row in costs.rows})

    def score(name: str) -> float:
        rows = [row for row in costs.rows if row.solver == name]
        least = [min((row.error for row in rows if row.calls <= b), default=1.0) for b in budgets]
        return float(np.mean(np.log(np.maximum(least, 1e-12))))

    return sorted({row.solver for row in costs.rows}, key=score)


def _sentence(best: Cost, usual: Cost) -> str:
    return (
        f"{best.solver} {best.steps} steps ({best.calls} calls): as close as euler {usual.steps}"
    )


def _ring(axes: "Axes", best: Cost, height: float) -> None:
    axes.plot([best.calls], [height], "o", markersize=11, markerfacecolor="none", color=INK)


def _label(axes: "Axes", text: str, height: float) -> None:
    axes.annotate(
        text, (0.0, height), (4, 3), xycoords=("axes fraction", "data"),
        textcoords="offset points", fontsize=9, color="#777777",
    )  # fmt: skip


def _upto(axes: "Axes", heights: Sequence[float], floor: float) -> None:
    """Logarithmic where every distance is above 0 (an unbiased one may be below); else without the coarse."""
    if min(*heights, floor) > 0.0:
        axes.set_yscale("log")
        return
    top = float(np.quantile(heights, 0.75))
    low = min(*heights, floor)
    axes.set_ylim(low - 0.1 * (top - low), top + 0.1 * (top - low))


def _calls_axis(axes: "Axes", costs: Costs) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    seen = sorted({row.calls for row in costs.rows})
    ticks = [c for c in (1, 2, 4, 8, 16, 32, 64, 128) if seen[0] <= c <= seen[-1]] + [seen[-1]]
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel("network calls", color=INK)
    axes.grid(color=GREY, alpha=0.2, linewidth=0.6)


@dataclass(frozen=True)
class Portrait:
    """Particles of one model in the plane: states (steps + 1, n, 2) of the ODE and the SDE, same noise."""

    times: np.ndarray
    ode: np.ndarray
    noisy_times: np.ndarray
    sde: np.ndarray


def portrait(model: Sampleable, request: dict[str, Any], n: int = CLOUD) -> Portrait:
    """Follow n particles: heun with 60 steps, euler_maruyama with 120."""
    if model.spec.shape != (2,):
        raise ValueError(
            f"plot flow: expected a model of points in the plane, shape (2,), got {model.spec.shape}; "
            "use 'toolkit sample --show-trajectory'"
        )
    found = []
    for solver, steps in (("heun", 60), ("euler_maruyama", 120)):
        todo = runtimes.plan(model, n, **{**request, "solver": solver, "steps": steps})
        found += [np.array(todo.times), np.stack([state.x for state in todo.states(0, n)])]
    return Portrait(*found)


def velocity(model: Sampleable, x: np.ndarray, t: float, request: dict[str, Any]) -> np.ndarray:
    """d_alpha data + d_sigma noise with the ends that the network's prediction implies, without guidance."""
    spec, scales = model.spec, named(model.spec.schedule)(t)
    condition = conditions(spec, len(x), request.get("label"), request.get("context"))
    on_x, on_out, shown = rates(spec.prediction, path(t, scales), scales)
    out = model.network((x * np.float32(shown)).astype(np.float32), t, condition)
    return np.asarray(x * on_x + out * on_out)


def portrait_figure(model: Sampleable, seen: Portrait, request: dict[str, Any]) -> "Figure":
    """Above, the density at four times under the velocity; below, ODE beside SDE, in the plane and over t."""
    page = figure(12.6, 6.6, rows=2, columns=4)
    half = 1.05 * float(np.quantile(np.abs(seen.ode), 0.999))
    for axes, share in zip(page.axes[:4], (0.0, 0.4, 0.75, 1.0), strict=True):
        k = round(share * (len(seen.times) - 1))
        _density(axes, seen.ode[k], half)
        if share < 1.0:
            _arrows(axes, model, float(seen.times[k]), half, request)
        axes.set_title(f"t = {seen.times[k]:.2g}", color=INK, fontsize=10)
    pairs = (("ODE", seen.times, seen.ode, BLUE), ("SDE", seen.noisy_times, seen.sde, ORANGE))
    for (axes, over), (name, times, states, colour) in zip(
        (page.axes[4::2], page.axes[5::2]), pairs, strict=True
    ):
        _plane(axes, states[:, : PATHS if name == "ODE" else PATHS // 5], half, colour)
        axes.set_title(f"{name}: particles", color=colour, fontsize=10)
        _over_time(over, times, states[..., 0], half, colour)
        over.set_title(f"{name}: first coordinate", color=colour, fontsize=10)
    return page


def _density(axes: "Axes", points: np.ndarray, half: float) -> None:
    counts, *_ = np.histogram2d(*points.T, bins=56, range=[[-half, half]] * 2)
    axes.imshow(
        _blurred(_blurred(counts).T).T, extent=(-half, half, -half, half), origin="lower",
        cmap=_pale(), interpolation="bilinear",
    )  # fmt: skip
    _frame(axes, half)


def _blurred(counts: np.ndarray) -> np.ndarray:
    """Each row with weights 1 4 6 4 1: the grain of a few thousand particles smoothed."""
    return np.apply_along_axis(
        lambda row: np.convolve(row, np.array([1, 4, 6, 4, 1]) / 16, "same"), 1, counts
    )


def _pale() -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("white to blue", ["#FFFFFF", "#9CCBE8", BLUE])


def _arrows(
    axes: "Axes", model: Sampleable, t: float, half: float, request: dict[str, Any]
) -> None:
    line = np.linspace(-0.9 * half, 0.9 * half, 13)
    x = np.stack(np.meshgrid(line, line), -1).reshape(-1, 2).astype(np.float32)
    u = velocity(model, x, t, request)
    axes.quiver(*x.T, *u.T, color=INK, alpha=0.6, width=0.005, angles="xy", headwidth=4)


def _plane(axes: "Axes", states: np.ndarray, half: float, colour: str) -> None:
    axes.plot(*np.moveaxis(states, 2, 0), color=colour, linewidth=0.6, alpha=0.4)
    axes.scatter(*states[0].T, s=7, color=GREY, linewidths=0, zorder=3)
    axes.scatter(*states[-1].T, s=9, color=colour, linewidths=0, zorder=3)
    _frame(axes, half)


def _over_time(
    axes: "Axes", times: np.ndarray, values: np.ndarray, half: float, colour: str
) -> None:
    counts = np.stack([np.histogram(row, 60, (-half, half))[0] for row in values], 1)
    axes.pcolormesh(
        times, np.linspace(-half, half, 60), counts**0.7, cmap=_pale(), shading="gouraud"
    )
    axes.plot(
        times, values[:, :24], color=colour if colour != BLUE else INK, linewidth=0.6, alpha=0.55
    )
    axes.set(xlim=(times[0], times[-1]), ylim=(-half, half))
    axes.set_xlabel("t", color=INK)


def _frame(axes: "Axes", half: float) -> None:
    axes.set(xlim=(-half, half), ylim=(-half, half), aspect="equal", xticks=[], yticks=[])
    quiet(axes)
