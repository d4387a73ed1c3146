"""Samples and losses as drawings, by matplotlib: one quiet look, PNG files written whole.

`NAME_figure` builds a matplotlib Figure (for a notebook or a test), `NAME` writes it as a PNG.
No pyplot: nothing global is opened, changed or left behind.
"""

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from runtimes.files import write_whole

from .pictures import pick, require_ending, require_finite

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import PathCollection
    from matplotlib.figure import Figure

Name = str | os.PathLike[str]
Numbers = np.ndarray | Sequence[float]
Bonds = np.ndarray | Sequence[tuple[int, int]]

# Okabe and Ito 2008: told apart with every kind of colour vision, and in grey
BLUE, ORANGE, GREY, INK = "#0072B2", "#D55E00", "#9A9A9A", "#333333"
DPI = 144
LINES = 300  # trajectories drawn at most: more is a smear
PANELS = 12  # molecules drawn at most


def figure(width: float, height: float, rows: int = 1, columns: int = 1) -> "Figure":
    """An empty white Figure of rows x columns axes; sizes in inches."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ValueError(
            'plots: expected matplotlib, got none; pip install "toolkit[pictures]", or write .npy'
        ) from error
    page = Figure(figsize=(width, height), dpi=DPI, facecolor="white", layout="constrained")
    for axes in page.subplots(rows, columns, squeeze=False).flat:
        quiet(axes)
    return page


def quiet(axes: "Axes") -> None:
    """The look: thin grey axes left and below, readable labels, no box."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set(color=GREY, linewidth=0.8)
    axes.tick_params(which="both", color=GREY, labelcolor=INK, labelsize=9, width=0.8, length=3)
    axes.tick_params(which="minor", length=1.5)


def save(path: Name, page: "Figure") -> Path:
    """Write a Figure as a PNG, whole or not at all."""
    require_ending(path, ".png")
    return write_whole(path, png(page))


def png(page: "Figure") -> bytes:
    """The bytes of that PNG."""
    buffer = io.BytesIO()
    page.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def loss_curve(
    path: Name,
    steps: Numbers,
    losses: Numbers,
    *,
    floor: float | None = None,
    floor_label: str = "",
) -> Path:
    """Loss over steps as a PNG: raw faint, smoothed on top, `floor` a dashed line to beat."""
    return save(path, loss_figure(steps, losses, floor=floor, floor_label=floor_label))


def loss_figure(
    steps: Numbers, losses: Numbers, *, floor: float | None = None, floor_label: str = ""
) -> "Figure":
    """See loss_curve. A loss that is NaN or infinite leaves a gap in the raw line."""
    x, y = np.asarray(steps, np.float64), np.asarray(losses, np.float64)
    finite = np.isfinite(y)
    if x.ndim != 1 or x.shape != y.shape or not finite.any():
        raise ValueError(
            f"losses: expected a step for each and one finite or more, got {x.shape} steps and"
            f" {y.shape} losses, {int(finite.sum())} of them finite; pass two lists of one length"
        )
    page = figure(6.4, 3.8)
    (axes,) = page.axes
    line = smoothed(y[finite])
    axes.plot(x, np.where(finite, y, np.nan), color=BLUE, alpha=0.22, linewidth=0.8, label="raw")
    axes.plot(x[finite], line, color=BLUE, linewidth=2.0, label="smoothed")
    axes.annotate(
        f"{line[-1]:.3g}", (x[finite][-1], line[-1]), (6, 0), textcoords="offset points",
        color=BLUE, fontsize=9, fontweight="bold", va="center", annotation_clip=False,
    )  # fmt: skip
    if floor is not None:
        _floor_line(axes, floor, floor_label or f"{floor:.3g}", above=line[-1] < floor)
    _loss_axis(axes, y[finite], line, floor)
    axes.set_xlabel("step", color=INK)
    axes.set_ylabel("loss", color=INK)
    return page


def _floor_line(axes: "Axes", floor: float, text: str, *, above: bool) -> None:
    """A dashed line, its label on the side that keeps clear of the curve's end."""
    from matplotlib.patheffects import withStroke

    axes.axhline(floor, color=ORANGE, linewidth=1.3, dashes=(4, 3), label=text)
    label = axes.annotate(
        text, (0.99, floor), (0, 4 if above else -4), textcoords="offset points", ha="right",
        xycoords=("axes fraction", "data"), va="bottom" if above else "top", color=ORANGE,
        fontsize=9, zorder=4,
    )  # fmt: skip
    label.set_path_effects([withStroke(linewidth=3, foreground="white")])


def smoothed(y: np.ndarray) -> np.ndarray:
    """s[i] = mean of y[i - i/10 : i + i/10]: a window that grows, so the steep start stays."""
    i = np.arange(len(y))
    low, end = i - i // 10, np.minimum(i + i // 10 + 1, len(y))
    total = np.append(0.0, np.cumsum(y))
    return (total[end] - total[low]) / (end - low)


def _loss_axis(axes: "Axes", y: np.ndarray, line: np.ndarray, floor: float | None) -> None:
    """Logarithmic where the smoothed loss falls 20-fold and all is positive; spikes cut off."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    floors = [] if floor is None else [floor]
    shown = np.concatenate([np.quantile(y, [0.005, 0.995]), line, floors])
    low, high = float(shown.min()), float(shown.max())
    axes.margins(x=0.01)
    if min(low, float(y.min())) > 0 and line.max() > 20 * line.min():
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.set_ylim(low / (high / low) ** 0.08, high * (high / low) ** 0.05)
    else:
        room = high - low or abs(high) or 1.0
        axes.set_ylim(low - 0.08 * room, high + 0.05 * room)
    axes.grid(axis="y", color=GREY, alpha=0.2, linewidth=0.6)
    axes.set_axisbelow(True)


def scatter(path: Name, samples: Numbers, data: Numbers | None = None, title: str = "") -> Path:
    """Samples (n, 2) as dots in a PNG, beside the data (m, 2) on the same axes where given."""
    return save(path, scatter_figure(samples, data, title))


def scatter_figure(samples: Numbers, data: Numbers | None = None, title: str = "") -> "Figure":
    """See scatter."""
    panels = [("samples", samples, BLUE)]
    if data is not None:
        panels.insert(0, ("data", data, INK))
    everything = np.concatenate([_require(points, name, (None, 2)) for name, points, _ in panels])
    page = figure(4.2 * len(panels), 4.2 + 0.3 * bool(title), columns=len(panels))
    for axes, (name, points, colour) in zip(page.axes, panels, strict=True):
        dots(axes, points, colour)
        square(axes, everything)
        if data is not None:
            axes.set_title(name, color=colour, fontsize=11)
    if title:
        page.suptitle(title, color=INK, fontsize=12)
    return page


def flow_path(path: Name, states: np.ndarray, times: np.ndarray) -> Path:
    """States (steps + 1, n, 2) as a PNG of thin trajectories, grey at noise, blue at data."""
    return save(path, flow_figure(states, times))


def flow_figure(states: np.ndarray, times: np.ndarray) -> "Figure":
    """See flow_path. At most 300 trajectories are drawn, the ends of all of them."""
    from matplotlib.collections import LineCollection
    from matplotlib.colors import LinearSegmentedColormap

    states, times = _require(states, "states", (None, None, 2)), np.asarray(times, np.float64)
    if times.shape != (len(states),) or len(states) < 2:
        raise ValueError(
            f"times: expected one for each of {max(len(states), 2)} states, got {times.shape};"
            " pass the whole grid, both ends included"
        )
    page = figure(5.2, 5.2)
    (axes,) = page.axes
    lines = states[:, pick(states.shape[1], LINES)]  # (steps + 1, lines, 2)
    segments = np.stack([lines[:-1], lines[1:]], axis=2)  # (steps, lines, 2 ends, 2)
    middle = np.repeat((times[:-1] + times[1:]) / 2, lines.shape[1])
    colours = LinearSegmentedColormap.from_list("noise to data", [GREY, BLUE])
    faint = float(np.clip(90 / lines.shape[1], 0.3, 0.8))
    paths = LineCollection(segments.reshape(-1, 2, 2), array=middle, cmap=colours)
    paths.set(linewidth=0.7, alpha=faint, zorder=0.5)  # under the dots
    axes.add_collection(paths)
    dots(axes, states[0], GREY).set_label(f"noise, t = {times[0]:.3g}")
    dots(axes, states[-1], BLUE).set_label(f"data, t = {times[-1]:.3g}")
    square(axes, states.reshape(-1, 2))
    page.legend(loc="outside upper center", ncols=2, frameon=False, markerscale=2)
    return page


def molecules(path: Name, samples: np.ndarray, bonds: Bonds | None = None) -> Path:
    """Molecules (n, N, 3) as a PNG of small panels; bonds: pairs of atom indices, None to guess."""
    return save(path, molecule_figure(np.asarray(samples)[:PANELS], bonds))


def molecule_figure(
    samples: Numbers, bonds: Bonds | None = None, *, columns: int = 4, views: Numbers | None = None
) -> "Figure":
    """Each molecule seen along its thinnest direction, no perspective, one scale for all.

    views: a rotation (3, 3) per sample in place of its own. Near atoms are dark, far ones pale.
    """
    from matplotlib.colors import LinearSegmentedColormap

    samples = _require(samples, "samples", (None, None, 3))
    pairs = None if bonds is None else _checked(bonds, samples.shape[1])
    views = [flat_view(points) for points in samples] if views is None else views
    columns = min(columns, len(samples))
    side, rows = max(6.4 / max(columns, 3), 1.3), -(-len(samples) // columns)
    page = figure(side * columns, side * rows, rows, columns)
    centred = samples - samples.mean(1, keepdims=True)
    half = 1.1 * float(np.linalg.norm(centred, axis=-1).max()) or 1.0
    spacing = float(np.median([_spacing(points) for points in centred]))
    width = float(np.clip(0.2 * spacing * side * 72 / half, 3, 14))  # of an atom, in points
    depth = LinearSegmentedColormap.from_list("far to near", ["#BFDDF0", BLUE])
    for axes in page.axes:
        axes.set(xlim=(-half, half), ylim=(-half, half), aspect="equal")
        axes.set_axis_off()
    for axes, points, view in zip(page.axes, centred, views, strict=False):
        seen = points @ np.asarray(view).T
        joined = near_pairs(points) if pairs is None else pairs
        sticks = seen[joined, :2].transpose(2, 1, 0)  # (x or y, end, bond)
        axes.plot(*sticks, color=GREY, linewidth=0.12 * width, zorder=1)
        order = np.argsort(seen[:, 2])  # near atoms cover far ones
        atoms = axes.scatter(*seen[order, :2].T, s=width**2, c=seen[order, 2], cmap=depth)
        atoms.set(clim=(-0.4 * half, 0.4 * half), edgecolor="white", linewidth=0.06 * width)
        atoms.set_zorder(2)  # over the sticks
    return page


def _checked(bonds: Bonds, atoms: int) -> np.ndarray:
    """Given bonds as (k, 2) indices, checked."""
    pairs = np.asarray(bonds, np.int64).reshape(-1, 2)
    if ((pairs < 0) | (pairs >= atoms)).any():
        found = f"{pairs.min()} to {pairs.max()}"
        raise ValueError(f"bonds: expected atoms 0 to {atoms - 1}, got {found}; count from 0")
    return pairs


def near_pairs(points: np.ndarray) -> np.ndarray:
    """Atoms closer than 1.25 x the typical distance to a nearest atom, as pairs (k, 2), i < j."""
    i, j = np.triu_indices(len(points), 1)
    close = np.linalg.norm(points[i] - points[j], axis=-1) < 1.25 * _spacing(points)
    return np.stack([i[close], j[close]], axis=-1)


def _spacing(points: np.ndarray) -> float:
    """Median over the atoms of the distance to the nearest other atom; 0 for a single one."""
    distance = np.linalg.norm(points[:, None] - points[None], axis=-1)
    np.fill_diagonal(distance, np.inf)
    return float(np.median(distance.min(1))) if len(points) > 1 else 0.0


def flat_view(points: np.ndarray) -> np.ndarray:
    """Rotation (3, 3) whose rows are the widest, the middle and the thinnest direction."""
    _, _, rows = np.linalg.svd(points - points.mean(0), full_matrices=True)
    return rows * np.linalg.det(rows)  # a rotation: a mirror would swap left- and right-handed


def dots(axes: "Axes", points: np.ndarray, colour: str) -> "PathCollection":
    """Dots that stay apart: smaller and fainter the more of them there are."""
    size = float(np.clip(4000 / len(points), 3, 24))
    strength = float(np.clip(900 / len(points), 0.35, 0.85))
    return axes.scatter(*np.transpose(points), s=size, alpha=strength, color=colour, linewidths=0)


def square(axes: "Axes", points: np.ndarray) -> None:
    """Equal units both ways, all `points` inside, a little air around."""
    low, high = points.min(0), points.max(0)
    half = 0.53 * float((high - low).max()) or 1.0
    for limits, centre in zip((axes.set_xlim, axes.set_ylim), (low + high) / 2, strict=True):
        limits(float(centre) - half, float(centre) + half)
    axes.set_aspect("equal")


def _require(x: Numbers, name: str, shape: tuple[int | None, ...]) -> np.ndarray:
    """x in float64, of this shape (None: any size >= 1) and finite."""
    x = np.asarray(x, np.float64)
    fits = len(x.shape) == len(shape) and all(
        b in (None, a) for a, b in zip(x.shape, shape, strict=True)
    )
    if not fits or 0 in x.shape:
        wanted = ", ".join("n" if size is None else str(size) for size in shape)
        raise ValueError(f"{name}: expected shape ({wanted}), got {x.shape}; write .npy instead")
    require_finite(x, name)
    return x
