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
from toolkit.pictures import pick, require_ending, require_finite

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito 2008: told apart with every kind of colour vision, and in grey
BLUE, ORANGE, GREY, INK = "#0072B2", "#D55E00", "#9A9A9A", "#333333"
DPI = 144
LINES = 300  # trajectories drawn at most: more is a smear
FRAMES = 60  # frames of an animation at most


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


def save(path: str | os.PathLike[str], page: "Figure") -> Path:
    """Write a Figure as a PNG, whole or not at all."""
    require_ending(path, ".png")
    buffer = io.BytesIO()
    page.savefig(buffer, format="png", metadata={"Software": None})
    return write_whole(path, buffer.getvalue())


def loss_curve(
    path: str | os.PathLike[str],
    steps: np.ndarray | Sequence[int],
    losses: np.ndarray | Sequence[float],
    *,
    floor: float | None = None,
    floor_label: str = "",
) -> Path:
    """Loss over steps as a PNG: raw faint, smoothed on top, `floor` a dashed line to beat."""
    return save(path, loss_figure(steps, losses, floor=floor, floor_label=floor_label))


def loss_figure(
    steps: np.ndarray | Sequence[int],
    losses: np.ndarray | Sequence[float],
    *,
    floor: float | None = None,
    floor_label: str = "",
) -> "Figure":
    """See loss_curve. A loss that is NaN or infinite leaves a gap in the raw line."""
    x, y = np.asarray(steps, np.float64), np.asarray(losses, np.float64)
    finite = np.isfinite(y)
    if x.ndim != 1 or x.shape != y.shape or not finite.any():
        raise ValueError(
            f"losses: expected one finite loss or more and a step for each, got {y.shape} losses"
            f" ({int(finite.sum())} finite) and {x.shape} steps; pass two lists of one length"
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
        axes.axhline(floor, color=ORANGE, linewidth=1.3, dashes=(4, 3), label=floor_label)
        axes.annotate(
            floor_label or f"{floor:.3g}", (0.01, floor), (0, -4), textcoords="offset points",
            xycoords=("axes fraction", "data"), color=ORANGE, fontsize=9, va="top",
        )  # fmt: skip
    _loss_axis(axes, y[finite], line, floor)
    axes.set_xlabel("step", color=INK)
    axes.set_ylabel("loss", color=INK)
    return page


def smoothed(y: np.ndarray) -> np.ndarray:
    """s[i] = mean of y[i - i/10 : i + i/10]: a window that grows, so the steep start stays."""
    i = np.arange(len(y))
    low, high = i - i // 10, np.minimum(i + i // 10, len(y) - 1)
    total = np.concatenate([[0.0], np.cumsum(y)])
    return (total[high + 1] - total[low]) / (high + 1 - low)


def _loss_axis(axes: "Axes", y: np.ndarray, line: np.ndarray, floor: float | None) -> None:
    """Logarithmic where the smoothed loss falls 20-fold and all is positive; spikes cut off."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    known = line if floor is None else np.append(line, floor)
    shown = np.concatenate([np.quantile(y, [0.005, 0.995]), known])
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


def scatter(
    path: str | os.PathLike[str],
    samples: np.ndarray,
    data: np.ndarray | None = None,
    title: str = "",
) -> Path:
    """Samples (n, 2) as dots in a PNG, beside the data (m, 2) on the same axes where given."""
    return save(path, scatter_figure(samples, data, title))


def scatter_figure(
    samples: np.ndarray, data: np.ndarray | None = None, title: str = ""
) -> "Figure":
    """See scatter."""
    panels = [("samples", samples, BLUE)]
    if data is not None:
        panels.insert(0, ("data", data, INK))
    for name, points, _ in panels:
        _require(points, name, (None, 2))
    page = figure(4.2 * len(panels), 4.2 + 0.3 * bool(title), columns=len(panels))
    everything = np.concatenate([np.asarray(points) for _, points, _ in panels])
    for axes, (name, points, colour) in zip(page.axes, panels, strict=True):
        _dots(axes, points, colour)
        _square(axes, everything)
        if data is not None:
            axes.set_title(name, color=colour, fontsize=11)
    if title:
        page.suptitle(title, color=INK, fontsize=12)
    return page


def flow_path(path: str | os.PathLike[str], states: np.ndarray, times: np.ndarray) -> Path:
    """States (steps + 1, n, 2) as a PNG of thin trajectories, grey at noise, blue at data."""
    return save(path, flow_figure(states, times))


def flow_figure(states: np.ndarray, times: np.ndarray) -> "Figure":
    """See flow_path. At most 300 trajectories are drawn, the ends of all of them."""
    from matplotlib.collections import LineCollection
    from matplotlib.colors import LinearSegmentedColormap

    states, times = _trajectory(states, times, (2,))
    page = figure(5.2, 5.2)
    (axes,) = page.axes
    lines = states[:, pick(states.shape[1], LINES)]  # (steps + 1, lines, 2)
    segments = np.stack([lines[:-1], lines[1:]], axis=2)  # (steps, lines, 2 ends, 2)
    middle = np.repeat((times[:-1] + times[1:]) / 2, lines.shape[1])
    colours = LinearSegmentedColormap.from_list("noise to data", [GREY, BLUE])
    faint = float(np.clip(40 / lines.shape[1], 0.15, 0.7))
    axes.add_collection(
        LineCollection(segments.reshape(-1, 2, 2), array=middle, cmap=colours, linewidths=0.7,
                       alpha=faint)
    )  # fmt: skip
    _dots(axes, states[0], GREY, label=f"noise, t = {times[0]:g}")
    _dots(axes, states[-1], BLUE, label=f"data, t = {times[-1]:g}")
    _square(axes, states.reshape(-1, 2))
    page.legend(
        loc="outside upper center", ncols=2, frameon=False, fontsize=10, labelcolor=INK,
        markerscale=2, handletextpad=0.2,
    )  # fmt: skip
    return page


def flow_frames(states: np.ndarray, times: np.ndarray) -> np.ndarray:
    """States (steps + 1, n, 2) as uint8 frames (T, H, W, 3): the dots move from noise to data."""
    states, times = _trajectory(states, times, (2,))
    page = figure(4.2, 4.5)
    (axes,) = page.axes
    _square(axes, states.reshape(-1, 2))
    dots = _dots(axes, states[0], BLUE)
    frames = []
    for k in pick(len(states), FRAMES):
        dots.set_offsets(states[k])
        axes.set_title(f"t = {times[k]:.2f}", color=INK, fontsize=11)
        frames.append(pixels_of(page))
    return np.stack(frames)


def pixels_of(page: "Figure") -> np.ndarray:
    """The drawn Figure as uint8 (H, W, 3)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(page)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _dots(axes: "Axes", points: np.ndarray, colour: str, label: str | None = None):  # noqa: ANN202
    """Dots that stay apart: smaller and fainter the more of them there are."""
    n = len(points)
    size, strength = np.clip(4000 / n, 3, 24), np.clip(900 / n, 0.35, 0.85)
    return axes.scatter(
        *np.asarray(points).T, s=float(size), alpha=float(strength), color=colour, linewidths=0,
        label=label,
    )  # fmt: skip


def _square(axes: "Axes", points: np.ndarray) -> None:
    """Equal units both ways, all `points` inside, a little air around."""
    low, high = points.min(0), points.max(0)
    half = 0.53 * float((high - low).max()) or 1.0
    for limits, centre in zip((axes.set_xlim, axes.set_ylim), (low + high) / 2, strict=True):
        limits(float(centre) - half, float(centre) + half)
    axes.set_aspect("equal")


def _trajectory(
    states: np.ndarray, times: np.ndarray, shape: tuple[int | None, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """states (steps + 1, n, *shape) and one time each, checked."""
    _require(states, "states", (None, None, *shape))
    states, times = np.asarray(states), np.asarray(times, np.float64)
    if times.shape != (len(states),) or len(states) < 2:
        raise ValueError(
            f"times: expected one for each of 2 states or more, got {times.shape} for"
            f" {len(states)} states; pass the whole grid, both ends included"
        )
    return states, times


def _require(x: np.ndarray, name: str, shape: tuple[int | None, ...]) -> None:
    """A shape (None: any size >= 1) and finite numbers."""
    got = np.shape(x)
    fits = len(got) == len(shape) and all(
        a == b or (b is None and a > 0) for a, b in zip(got, shape, strict=True)
    )
    if not fits:
        wanted = ", ".join("n" if size is None else str(size) for size in shape)
        raise ValueError(f"{name}: expected shape ({wanted}), got {got}; write .npy instead")
    require_finite(np.asarray(x), name)
