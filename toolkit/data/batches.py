"""rows(step) = places step * batch ... of the permutations of epoch 0, 1, 2, ... laid end to end.

Nothing is remembered between two steps: the step number alone says which rows come next, so a
resumed run continues exactly where it stopped, and every rank finds its share by itself.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from . import Data


@dataclass(frozen=True)
class Order:
    """An endless order of n rows: epoch e is default_rng([seed, e]).permutation(n)."""

    n: int
    seed: int = 0

    def at(self, step: int, batch: int, *, rank: int = 0, world: int = 1) -> NDArray[np.int64]:
        """Row indices of one batch, int64 (batch / world,); a batch may run over an epoch's edge.

        step: >= 0. batch: of all ranks together, 1..n and a multiple of world. rank: 0..world - 1;
        the ranks' slices, one after the other, are the global batch.
        """
        _check(self.n, step, batch, rank, world)
        share = batch // world
        epoch, position = divmod(step * batch + rank * share, self.n)
        rows = _permutation(self.n, self.seed, epoch)[position : position + share]
        if len(rows) < share:
            rest = _permutation(self.n, self.seed, epoch + 1)[: share - len(rows)]
            rows = np.concatenate([rows, rest])
        return rows.copy()


def batches(
    data: "Data", batch: int, *, seed: int = 0, start: int = 0, rank: int = 0, world: int = 1
) -> Iterator[tuple[NDArray[np.float32], NDArray[Any] | None]]:
    """(x, y) of step start, start + 1, ... without end; y is None where data.y is.

    Bad sizes fail here, before the first batch is asked for. See `Order.at` for the arguments.
    """
    order = Order(len(data.x), seed)
    _check(order.n, start, batch, rank, world)
    picks = (order.at(step, batch, rank=rank, world=world) for step in itertools.count(start))
    return ((data.x[rows], None if data.y is None else data.y[rows]) for rows in picks)


def _check(n: int, step: int, batch: int, rank: int, world: int) -> None:
    if batch < 1:
        raise ValueError(f"batch: expected 1 or more, got {batch}; give a larger --batch")
    if n < batch:
        raise ValueError(
            f"data: expected at least {batch} rows for a batch of {batch}, got {n}; "
            f"give --batch {n} or smaller" + ("" if n else " and some data")
        )
    if world < 1 or not 0 <= rank < world:
        raise ValueError(
            f"rank: expected 0..world - 1, got rank {rank} of world {world}; number ranks from 0"
        )
    if batch % world:
        raise ValueError(
            f"batch: expected a multiple of the {world} ranks, got {batch}; "
            f"give --batch {batch - batch % world or world}"
        )
    if step < 0:
        raise ValueError(f"step: expected 0 or more, got {step}; count steps from 0")


@lru_cache(maxsize=4)  # an epoch is many steps: shuffle once, not once per step
def _permutation(n: int, seed: int, epoch: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, epoch]).permutation(n)
