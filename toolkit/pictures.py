"""Samples as pixels: uint8 (H, W, C) arrays, PNG and GIF files. Needs only numpy and Pillow.

Shapes: images (n, H, W, C), states (steps + 1, n, H, W, C), pixels and frames uint8.
C = 1 is grey, 3 is RGB, 4 is RGB with opacity; of any other C the first channel is shown.
"""

import io
import math
import os
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from runtimes.files import write_whole

if TYPE_CHECKING:
    from PIL.Image import Image

WIDTH = 600  # pixels: small pictures are enlarged until a grid is about this wide
BACKGROUND = 255  # white: a grid sits on a page
SHORTEST = 20  # ms: browsers play a GIF frame that is shorter at 100 ms


def to_pixels(images: np.ndarray, value_range: tuple[float, float] = (-1.0, 1.0)) -> np.ndarray:
    """pixel = round(255 (x - low) / (high - low)), values outside the range clipped; uint8.

    value_range: (low, high), low < high, the values shown as black and white.
    """
    low, high = (float(value) for value in value_range)
    if not low < high:
        raise ValueError(
            f"value_range: expected low < high, got ({low:g}, {high:g}); images are usually (-1, 1)"
        )
    x = np.asarray(images, np.float32)
    require_finite(x, "images")
    # halves in float64: a stranger's range may be as wide or as narrow as numbers go
    half = max(high / 2 - low / 2, np.finfo(np.float64).tiny)
    x = np.clip(np.asarray(x, np.float64), low, high)  # before the scaling, which could overflow
    return np.rint((x / 2 - low / 2) / half * 255.0).astype(np.uint8)


def require_finite(x: np.ndarray, name: str) -> None:
    """Refuse NaN and infinity: a picture of them would look like a picture of something."""
    bad = x.size - int(np.isfinite(x).sum())
    if bad:
        raise ValueError(
            f"{name}: expected finite numbers, got {bad} of {x.size} NaN or infinite;"
            " save them as .npy to look at them"
        )


def grid(images: np.ndarray, columns: int | None = None, gap: int = 2) -> np.ndarray:
    """Tile uint8 images (n, H, W, C) row by row into one picture (H', W', C), about 600 wide.

    columns: >= 1, None for a near-square tiling. gap: pixels between and around, >= 0.
    Small images are enlarged by a whole number, every pixel a sharp square.
    """
    images = _shown(images)
    n, height, width, channels = images.shape
    columns = _near_square(n) if columns is None else columns
    if columns < 1 or gap < 0:
        raise ValueError(
            f"grid: expected columns >= 1 and gap >= 0, got {columns} and {gap}; leave them out"
        )
    columns = min(columns, n)
    rows = math.ceil(n / columns)
    # a tall grid (one column, many rows) is enlarged less, so that it still fits a page
    zoom = max(1, min(WIDTH // (columns * width), 2 * WIDTH // (rows * height)))
    images = images.repeat(zoom, axis=1).repeat(zoom, axis=2)
    down, right = zoom * height + gap, zoom * width + gap
    page = np.full((rows * down + gap, columns * right + gap, channels), BACKGROUND, np.uint8)
    for k, image in enumerate(images):
        top, left = gap + k // columns * down, gap + k % columns * right
        page[top : top + down - gap, left : left + right - gap] = image
    return page


def strip(
    states: np.ndarray,
    value_range: tuple[float, float] = (-1.0, 1.0),
    *,
    columns: int = 12,
    rows: int = 8,
) -> np.ndarray:
    """States (steps + 1, n, H, W, C) as one picture: a row per sample, noise left, data right.

    The first `rows` samples are shown at up to `columns` evenly picked times, both ends included.
    """
    if np.ndim(states) != 5:
        raise ValueError(
            f"states: expected (steps + 1, n, H, W, C), got {np.shape(states)}; stack the states"
        )
    if columns < 2 or rows < 1:
        raise ValueError(
            f"strip: expected columns >= 2 and rows >= 1, got {columns} and {rows}; leave them out"
        )
    states = np.asarray(states)
    chosen = states[pick(len(states), columns), :rows]  # (columns, rows, H, W, C)
    cells = chosen.swapaxes(0, 1).reshape(-1, *states.shape[2:])
    return grid(to_pixels(cells, value_range), columns=len(chosen))


def pick(count: int, most: int) -> np.ndarray:
    """Indices of up to `most` of `count` things, evenly spread, the first and last included."""
    return np.rint(np.linspace(0, count - 1, min(count, most))).astype(np.int64)


def save_png(path: str | os.PathLike[str], pixels: np.ndarray) -> Path:
    """Write uint8 pixels (H, W, C), C = 1, 3 or 4, as a PNG that decodes to the same numbers."""
    require_ending(path, ".png")
    return write_whole(path, png(pixels))


def png(pixels: np.ndarray) -> bytes:
    """The bytes of that PNG."""
    pixels = _shown(np.asarray(pixels)[None])[0]
    buffer = io.BytesIO()
    _pillow().fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(
        buffer, format="PNG", optimize=True
    )
    return buffer.getvalue()


def save_gif(
    path: str | os.PathLike[str],
    frames: np.ndarray | Sequence[np.ndarray],
    seconds: float = 3.0,
) -> Path:
    """Write uint8 frames (T, H, W, C) as a GIF that loops for ever and rests a second at its end.

    seconds: > 0, one round without the rest. A frame of up to 256 colours is kept exactly, one
    of more gets the best 256; a frame lasts a whole number of 10 ms, at least 20 ms.
    """
    require_ending(path, ".gif")
    if not 0 < seconds < math.inf:
        raise ValueError(f"seconds: expected > 0, got {seconds:g}; 3 suits most samplings")
    frames = _shown(np.stack(list(frames)) if len(frames) else np.empty((0, 1, 1, 1), np.uint8))
    each = max(SHORTEST, 10 * round(100 * seconds / len(frames)))
    durations = [each] * (len(frames) - 1) + [each + 1000]
    first, *rest = [_gif_frame(frame) for frame in frames]
    buffer = io.BytesIO()
    first.save(buffer, format="GIF", save_all=True, append_images=rest, duration=durations, loop=0)
    return write_whole(path, buffer.getvalue())


def require_ending(path: str | os.PathLike[str], ending: str) -> None:
    """Refuse a name that promises another format than the one written."""
    got = Path(path).suffix
    if got.lower() != ending:
        raise ValueError(f"{path}: expected a name ending in {ending}, got {got!r}; rename it")


def _near_square(n: int) -> int:
    """ceil(sqrt(n)) columns, or up to half as many more where that fills the last row."""
    near = math.isqrt(max(n - 1, 0)) + 1
    return next((c for c in range(near, near * 3 // 2 + 1) if n % c == 0), near)


def _shown(images: np.ndarray) -> np.ndarray:
    """uint8 (n, H, W, C) with C = 1, 3 or 4; everything else is refused or cut to one channel."""
    images = np.asarray(images)
    if images.ndim != 4 or images.dtype != np.uint8:
        raise ValueError(
            f"pixels: expected uint8 (H, W, C) each, got {images.dtype} {images.shape[1:]};"
            " call to_pixels first, channels last"
        )
    if 0 in images.shape:
        raise ValueError(f"pixels: expected at least one picture, got {images.shape}; ask for one")
    return images if images.shape[-1] in (1, 3, 4) else images[..., :1]


def _gif_frame(frame: np.ndarray) -> "Image":
    """Grey as it is; colour with its exact palette where 256 entries suffice."""
    image = _pillow()
    if frame.shape[-1] == 1:
        return image.fromarray(frame[..., 0])
    if frame.shape[-1] == 4:  # a GIF has no half transparency: lay it on the background
        opacity = frame[..., 3:] / 255.0
        frame = np.rint(frame[..., :3] * opacity + BACKGROUND * (1 - opacity)).astype(np.uint8)
    height, width, _ = frame.shape
    packed = frame.reshape(-1, 3) @ np.array([1 << 16, 1 << 8, 1])  # one number per colour
    colours, index = np.unique(packed, return_inverse=True)
    if len(colours) > 256:
        picture = image.fromarray(frame)
        return picture.quantize(256, image.Quantize.MEDIANCUT, dither=image.Dither.NONE)
    picture = image.fromarray(index.reshape(height, width).astype(np.uint8))
    picture.putpalette(
        np.stack([colours >> 16, colours >> 8, colours], -1).astype(np.uint8).tobytes()
    )
    return picture


def _pillow() -> ModuleType:
    """PIL.Image, or one line that says how to get it."""
    try:
        from PIL import Image
    except ImportError as error:
        raise ValueError(
            'pictures: expected Pillow, got none; pip install "toolkit[pictures]", or write .npy'
        ) from error
    return Image
