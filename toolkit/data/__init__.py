"""Data sets as numpy arrays: load("digits"), load("two-moons"), load("mine.npz").

Every set arrives as one frozen `Data`: float32, channels last, and with some rows held out that
training never sees, wherever there are enough. The order of batches is in `batches.py`; noise
added in training (dequantisation) is the trainer's.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtimes.choices import choose
from runtimes.spec import Spec

from .arrays import SUFFIXES, held_out_rows, read
from .batches import Order, batches
from .digits import STEP, digits
from .toys import TOYS

__all__ = ["DATA", "Data", "Order", "batches", "load", "of_model"]


@dataclass(frozen=True, eq=False)
class Data:
    """Rows x with labels or contexts y, and what a model must know about them.

    x: float32 (n, *shape), channels last. y: int64 (n,) labels, float32 (n, D) or (n, L, D)
    contexts, or None. classes: number of labels, 0 without labels. value_range: (-1, 1) for images
    and the like, None if unbounded. held_out: rows of the same kind kept from training, None when
    there are too few. step: spacing of the value grid, None for continuous values; a trainer may
    dequantise by +- step / 2.
    """

    name: str
    x: NDArray[np.float32]
    y: NDArray[Any] | None = None
    classes: int = 0
    value_range: tuple[float, float] | None = None
    label_names: tuple[str, ...] = ()
    held_out: "Data | None" = None
    step: float | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one row."""
        return self.x.shape[1:]

    @property
    def condition(self) -> str:
        """`none`, `label` or `context`: the kind of y."""
        if self.y is None:
            return "none"
        return "label" if self.classes else "context"


def load(name_or_path: str | os.PathLike[str], *, seed: int = 0) -> Data:
    """The set of that name, or the arrays in a .npz or .npy file.

    seed: of the draw, for the generated 2-D sets; digits and files have one fixed split.
    """
    text = os.fspath(name_or_path)
    if text in DATA:
        return DATA[text](text, seed)
    path = Path(text)
    looks_like_path = bool(text) and (
        path.suffix.lower() in SUFFIXES or len(path.parts) > 1 or path.exists()
    )
    if not looks_like_path:
        choose("data (a name, or a path ending in .npz or .npy)", text, DATA)
    return _from_file(path)


def of_model(spec: Spec, asked: str | None) -> Data | None:
    """The set asked for, else the built-in one a model says it was trained on; None if it says another.

    Only what the caller asked for may be a path: a stranger's model names no file to open.
    """
    trained_on = str(spec.training.get("data", spec.name))
    if asked is None and trained_on not in DATA:
        return None
    return load(trained_on if asked is None else asked)


def _digits(name: str, seed: int) -> Data:
    """The fixed halves of scikit-learn's digits; no randomness, so `seed` changes nothing."""
    train, held_out = digits()
    names = tuple(str(digit) for digit in range(10))
    return _pair(
        name, train, held_out, classes=10, value_range=(-1.0, 1.0), names=names, step=STEP
    )


def _toy(name: str, seed: int) -> Data:
    """20,000 points of a generated set and 5,000 held out, from two independent streams."""
    x, held_out = (
        TOYS[name](rows, np.random.default_rng([seed, stream]))
        for stream, rows in enumerate((20_000, 5_000))
    )
    return _pair(name, (x, None), (held_out, None))


def _from_file(path: Path) -> Data:
    """The user's rows; a tenth of them held out when there are 1,000 or more."""
    x, y = read(path)
    classes = int(y.max()) + 1 if y is not None and y.dtype == np.int64 else 0
    bounded = x.ndim >= 3 and bool(x.min() >= -1) and bool(x.max() <= 1)
    value_range = (-1.0, 1.0) if bounded else None
    train, kept = held_out_rows(len(x))
    if not len(kept):
        return Data(path.stem, x, y, classes=classes, value_range=value_range)
    halves = ((x[rows], None if y is None else y[rows]) for rows in (train, kept))
    return _pair(path.stem, *halves, classes=classes, value_range=value_range)


def _pair(
    name: str,
    train: tuple[NDArray[np.float32], NDArray[Any] | None],
    held_out: tuple[NDArray[np.float32], NDArray[Any] | None],
    *,
    classes: int = 0,
    value_range: tuple[float, float] | None = None,
    names: tuple[str, ...] = (),
    step: float | None = None,
) -> Data:
    """Two parts of one set as a Data that carries its held-out Data."""
    kept = Data(name, *held_out, classes, value_range, names, None, step)
    return Data(name, *train, classes, value_range, names, kept, step)


DATA: dict[str, Callable[[str, int], Data]] = {
    "digits": _digits,
    "two-moons": _toy,
    "eight-gaussians": _toy,
    "checkerboard": _toy,
    "spiral": _toy,
    "gaussian-mixture": _toy,
}
