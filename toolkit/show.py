"""Samples into a file of any ending: .png and .gif to look at, .npy and .npz to compute with.

    save_samples("digits.png", images)                  a grid; points, molecules, videos likewise
    save_trajectory("digits.gif", states, times)        from noise to data

Shapes: samples (n, *shape), states (steps + 1, n, *shape), times (steps + 1,).
"""

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from runtimes.files import write_whole

from . import pictures, plots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Range = tuple[float, float]
Name = str | os.PathLike[str]

FRAMES = 60  # frames of an animation at most


def save_samples(
    path: Name,
    samples: np.ndarray,
    value_range: Range | None = None,
    columns: int | None = None,
) -> Path:
    """Write samples (n, *shape) by the ending of `path`; a picture suits the shape.

    value_range: of images and videos, (-1, 1) if None. columns: of a grid, near-square if None.
    """
    samples = np.asarray(samples)
    ending = check(path, samples.shape[1:])
    if ending in ARRAYS:
        return save_arrays(path, x=samples)
    draw = SAMPLES[kind_of(samples.shape[1:]), ending]
    return draw(path, samples, value_range or (-1.0, 1.0), columns)


def save_trajectory(
    path: Name,
    states: np.ndarray,
    times: np.ndarray,
    value_range: Range | None = None,
) -> Path:
    """Write a run's states (steps + 1, n, *shape), noise first: an animation or a still strip."""
    states, times = np.asarray(states), np.asarray(times)
    if states.ndim < 3 or times.shape != states.shape[:1]:
        raise ValueError(
            f"states: expected (steps + 1, n, *shape) and a time for each, got {states.shape} and"
            f" {times.shape} times; stack the states of one run"
        )
    ending = check(path, states.shape[2:], trajectory=True)
    if ending in ARRAYS:
        return save_arrays(path, x=states, times=times)
    draw = TRAJECTORIES[kind_of(states.shape[2:]), ending]
    return draw(path, states, times, value_range or (-1.0, 1.0))


def check(path: Name, shape: tuple[int, ...], *, trajectory: bool = False) -> str:
    """The ending of `path`, if samples of `shape` (without n) can be written so; else ValueError.

    Call it before a long sampling: everything but the numbers themselves is checked here.
    """
    table = TRAJECTORIES if trajectory else SAMPLES
    ending, kind = Path(path).suffix.lower(), kind_of(shape)
    possible = [*(known for of, known in table if of == kind), *ARRAYS]
    if ending not in ENDINGS:
        raise ValueError(
            f"{path}: expected a name ending in {', '.join(ENDINGS)}, got {ending!r}; rename it"
        )
    if ending not in possible:
        raise ValueError(
            f"{path}: expected {' or '.join(possible)} for {kind} of shape {tuple(shape)},"
            f" got {ending}; rename it"
        )
    if not Path(os.path.realpath(path)).parent.is_dir():
        raise ValueError(
            f"{path}: expected an existing folder, got none named {Path(path).parent}; create it"
        )
    return ending


def kind_of(shape: tuple[int, ...]) -> str:
    """What a sample of this shape (without n) is to the eye."""
    if len(shape) == 1 and shape[0] == 2:
        return "points"
    if len(shape) == 2 and shape[1] == 3:
        return "molecules"
    return {3: "images", 4: "videos"}.get(len(shape), "arrays")


def save_arrays(path: Name, *, overwrite: bool = True, **arrays: np.ndarray) -> Path:
    """.npy holds x alone, .npz every array under its name."""
    buffer = io.BytesIO()
    if Path(path).suffix.lower() == ".npy":
        np.save(buffer, arrays["x"], allow_pickle=False)
    else:
        np.savez(buffer, **arrays)
    return write_whole(path, buffer.getvalue(), overwrite=overwrite)


def _image_grid(path: Name, images: np.ndarray, values: Range, columns: int | None) -> Path:
    return pictures.save_png(path, pictures.grid(pictures.to_pixels(images, values), columns))


def _video_rows(path: Name, videos: np.ndarray, values: Range, columns: int | None) -> Path:
    """A row per video, its frames from left to right."""
    rows = pictures.strip(videos.swapaxes(0, 1), values, columns=columns or 12)
    return pictures.save_png(path, rows)


def _video_loop(path: Name, videos: np.ndarray, values: Range, columns: int | None) -> Path:
    """All videos play side by side."""
    pixels = pictures.to_pixels(videos, values)
    frames = [pictures.grid(pixels[:, k], columns) for k in range(pixels.shape[1])]
    return pictures.save_gif(path, frames)


def _points(path: Name, points: np.ndarray, values: Range, columns: int | None) -> Path:
    return plots.scatter(path, points)


def _molecules(path: Name, samples: np.ndarray, values: Range, columns: int | None) -> Path:
    figure = plots.molecule_figure(samples[: plots.PANELS], columns=columns or 4)
    return plots.save(path, figure)


def _image_strip(path: Name, states: np.ndarray, times: np.ndarray, values: Range) -> Path:
    return pictures.save_png(path, pictures.strip(states, values))


def _image_flight(path: Name, states: np.ndarray, times: np.ndarray, values: Range) -> Path:
    chosen = states[pictures.pick(len(states), FRAMES)]
    return pictures.save_gif(path, [pictures.grid(pictures.to_pixels(x, values)) for x in chosen])


def _video_strip(path: Name, states: np.ndarray, times: np.ndarray, values: Range) -> Path:
    """The middle frame of each video at each time: a page has only two directions."""
    return _image_strip(path, states[:, :, states.shape[2] // 2], times, values)


def _point_paths(path: Name, states: np.ndarray, times: np.ndarray, values: Range) -> Path:
    return plots.flow_path(path, states, times)


def _point_flight(path: Name, states: np.ndarray, times: np.ndarray, values: Range) -> Path:
    """The dots move from noise to data, the time above them."""
    pictures.require_finite(states, "states")
    page = plots.figure(4.2, 4.5)
    (axes,) = page.axes
    plots.square(axes, states.reshape(-1, 2))
    dots = plots.dots(axes, states[0], plots.BLUE)
    frames = []
    for k in pictures.pick(len(states), FRAMES):
        dots.set_offsets(states[k])
        axes.set_title(f"t = {times[k]:.2f}", color=plots.INK, fontsize=11)
        frames.append(_pixels(page))
        page.set_layout_engine("none")  # laid out once: nothing moves but the dots
    return pictures.save_gif(path, frames)


def _pixels(page: "Figure") -> np.ndarray:
    """The drawn Figure as uint8 (H, W, 3)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(page)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _molecule_strip(path: Name, states: np.ndarray, times: np.ndarray, values: Range) -> Path:
    """A row per molecule, seen at every time from where its last state looks flattest."""
    pictures.require_finite(states, "states")
    chosen = states[pictures.pick(len(states), 6), : plots.PANELS // 2].swapaxes(0, 1)
    views = [plots.flat_view(row[-1]) for row in chosen for _ in row]
    cells = chosen.reshape(-1, *chosen.shape[2:])
    return plots.save(path, plots.molecule_figure(cells, columns=chosen.shape[1], views=views))


ARRAYS = (".npy", ".npz")
ENDINGS = (".png", ".gif", *ARRAYS)

SAMPLES: dict[tuple[str, str], Callable[..., Path]] = {
    ("images", ".png"): _image_grid,
    ("videos", ".png"): _video_rows,
    ("videos", ".gif"): _video_loop,
    ("points", ".png"): _points,
    ("molecules", ".png"): _molecules,
}

TRAJECTORIES: dict[tuple[str, str], Callable[..., Path]] = {
    ("images", ".png"): _image_strip,
    ("images", ".gif"): _image_flight,
    ("videos", ".png"): _video_strip,
    ("points", ".png"): _point_paths,
    ("points", ".gif"): _point_flight,
    ("molecules", ".png"): _molecule_strip,
}
