"""What training step k sees, from (seed, k) alone: rows, times, dropped conditions, keys for noise.

Nothing is remembered between steps, so a resumed run draws exactly what the uninterrupted one would
have drawn. Every process of a run draws the whole batch and takes its slice, so the numbers do not
depend on how many processes there are.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit import objectives
from toolkit.data import Data, Order
from toolkit.paths import TIME_DRAWS
from toolkit.recipe import Recipe

STREAMS = {"times": 0, "dropout": 1, "noise": 2, "dequantise": 3}


@dataclass(frozen=True)
class Draw:
    """One batch on the host. rows: int64 (B,) of the data; row: its numbers; condition: what the
    network is told, some of it dropped; groups: labels or contexts before that, for the pairing.
    """

    rows: NDArray[np.int64]
    row: objectives.Row
    condition: NDArray[Any] | None
    groups: NDArray[Any] | None


def draw(recipe: Recipe, data: Data, step: int) -> Draw:
    """The whole batch of a step, counted from 0."""
    rows = Order(len(data.x), recipe.seed).at(step, recipe.batch)
    times = TIME_DRAWS[recipe.times](recipe.batch, _rng(recipe, step, "times"))
    numbers = objectives.row(times, recipe.schedule, recipe.prediction, data.x.ndim)
    groups = None if data.y is None else data.y[rows]
    return Draw(rows, numbers, _dropped(recipe, data, step, groups), groups)


def key(recipe: Recipe, step: int, stream: str) -> int:
    """63 bits to seed a framework's own generator with, for numbers drawn on the device."""
    sequence = np.random.SeedSequence([recipe.seed, step, STREAMS[stream]])
    return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))


def _dropped(
    recipe: Recipe, data: Data, step: int, condition: NDArray[Any] | None
) -> NDArray[Any] | None:
    """The condition with a share of `label_dropout` of its rows replaced by the null one."""
    if condition is None:
        return None
    dropped = _rng(recipe, step, "dropout").random(recipe.batch) < recipe.label_dropout
    if data.classes:
        return np.where(dropped, np.int64(data.classes), condition)
    wide = dropped.reshape(-1, *(1,) * (condition.ndim - 1))
    return np.where(wide, np.float32(0.0), condition)


def _rng(recipe: Recipe, step: int, stream: str) -> np.random.Generator:
    return np.random.default_rng([recipe.seed, step, STREAMS[stream]])
