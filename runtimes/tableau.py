"""A whole sampler run as a table of numbers: traced from a solver once, run anywhere.

Row k belongs to the k-th network call. It reads a few state slots and replaces them:

    out   = network(sum_i input[i] * slot[i], time, guided)
    slots = [sum_i update[j][i] * [*slots, out, noise][i]  for each new slot j]

Schedules, conversions, charts, guidance flags and noise scales have all become numbers (see `trace`).
`run` is the loop of ten lines that any language can have; `dense` is the table as the array that the
sampler inside an ONNX graph takes:

    dense[k][0]     = [input ..., time, guided, (draw)]
    dense[k][1 + j] = [update[j] on the slots ..., on out, (on the noise), 0]
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .choices import quoted

MOST_ROWS, MOST_SLOTS = 40_000, 16  # 10,000 steps of a solver with four calls
Weights = tuple[tuple[int, float], ...]  # (index, weight) of every nonzero term


@dataclass(frozen=True)
class Row:
    """One network call. Index len(slots) in `update` means the output, the one after it the noise.

    draw: which step's noise is drawn, or None. ends_step: whether slot 0 now holds a state to show.
    """

    time: float
    guided: bool
    input: Weights
    update: tuple[Weights, ...]
    draw: int | None
    ends_step: bool


@dataclass(frozen=True)
class Tableau:
    """The rows of a run, and `slots`, the number of states alive at once."""

    rows: tuple[Row, ...]
    slots: int

    @property
    def calls(self) -> int:
        """Network evaluations of a run (one of 2B rows where guided)."""
        return len(self.rows)

    @property
    def noisy(self) -> bool:
        """Whether noise is drawn on the way."""
        return any(row.draw is not None for row in self.rows)

    @property
    def ends(self) -> tuple[int, ...]:
        """The rows after which slot 0 is a state to show, one per step."""
        return tuple(k for k, row in enumerate(self.rows) if row.ends_step)


def run(
    tableau: Tableau,
    network: Callable[[Any, float, bool], Any],
    x: Any,
    draw: Callable[[int], Any] | None = None,
) -> Iterator[tuple[Row, Any]]:
    """Yield (row, state) after every step, from the state x at the first time.

    network(x, time, guided) -> prediction; draw(k): the noise of step k, needed by noisy tableaus.
    """
    slots = [x]
    for row in tableau.rows:
        terms = [*slots, network(combine(row.input, slots), row.time, row.guided)]
        if row.draw is not None:
            if draw is None:
                raise ValueError(
                    "draw: expected a source of noise for this solver, got none; give one"
                )
            terms.append(draw(row.draw))
        slots = [combine(weights, terms) for weights in row.update]
        if row.ends_step:
            yield row, slots[0]


def combine(weights: Weights, terms: list[Any]) -> Any:
    """sum_i weight_i * terms[i]; a lone term of weight 1 is passed on untouched, no term is zero."""
    total = None
    for index, weight in weights:
        term = terms[index] if weight == 1.0 else terms[index] * weight
        total = term if total is None else total + term
    return terms[0] * 0.0 if total is None else total


@lru_cache(maxsize=64)
def dense(tableau: Tableau, *, before: int = 0) -> NDArray[np.float32]:
    """float32 (rows, slots + 1, slots + 2 + n), n = 1 where noise is drawn: see the top of this file.

    draw is the number of a row's noise in `noise.noise`, step + 1, counted on from step `before`.
    """
    slots = tableau.slots
    array = np.zeros((tableau.calls, slots + 1, slots + 2 + tableau.noisy), np.float32)
    for k, row in enumerate(tableau.rows):
        for index, weight in row.input:
            array[k, 0, index] = weight
        array[k, 0, slots : slots + 2] = row.time, row.guided
        if row.draw is not None:
            array[k, 0, -1] = before + row.draw + 1
        place = _places(tableau, k)
        for j, weights in enumerate(row.update):
            for index, weight in weights:
                array[k, 1 + j, place(index)] = weight
    array.flags.writeable = False  # shared by all who ask
    return array


def _places(tableau: Tableau, k: int) -> Callable[[int], int]:
    """Where an index of row k's update stands: its slots are as many as the row before left."""
    alive = len(tableau.rows[k - 1].update) if k else 1
    return lambda index: index if index < alive else index - alive + tableau.slots


def from_dense(array: NDArray[np.float32], ends: Sequence[int]) -> Tableau:
    """The tableau whose `dense` is this checked array; ends: the rows after which slot 0 is shown.

    A slot is alive for as long as a later row reads it. Of the slots that no row has written, which
    are zero, nothing is kept; of a row that writes one more state than is read, neither.
    """
    slots = array.shape[1] - 1
    head, update = array[:, 0], array[:, 1:]
    alive = [1, *(_read(array[k], slots) for k in range(1, len(array))), 1]
    rows = []
    for k, (now, then) in enumerate(pairwise(alive)):
        places = [*range(now), slots, *([slots + 1] if array.shape[2] == slots + 3 else [])]
        draw = int(head[k, slots + 2]) if array.shape[2] == slots + 3 else 0
        rows.append(
            Row(
                time=float(head[k, slots]),
                guided=bool(head[k, slots + 1]),
                input=_terms(head[k], [*range(now)]),
                update=tuple(
                    _terms(update[k, j], places[: now + 1 + (draw > 0)]) for j in range(then)
                ),
                draw=draw - 1 if draw else None,
                ends_step=k in ends,
            )
        )
    return Tableau(tuple(rows), max(alive))


def _read(row: NDArray[np.float32], slots: int) -> int:
    """How many slots a row reads: one more than the last that weighs anything in it, 1 at least."""
    used = np.flatnonzero(np.any(row[:, :slots] != 0.0, axis=0))
    return int(used[-1]) + 1 if len(used) else 1


def _terms(weights: NDArray[np.float32], places: list[int]) -> Weights:
    """The weights other than zero at these places, numbered in their order."""
    return tuple((i, float(weights[p])) for i, p in enumerate(places) if weights[p] != 0.0)


def check_dense(array: object) -> NDArray[np.float32]:
    """The array, if it is a tableau as `dense` makes them. Raises ValueError saying what is wrong."""
    if not isinstance(array, np.ndarray) or array.dtype != np.float32 or array.ndim != 3:
        got = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else quoted(array)
        raise ValueError(
            f"tableau: expected float32 (rows, slots + 1, slots + 2 or 3), got {got}; "
            "take one of the model's own"
        )
    rows, slots = array.shape[0], array.shape[1] - 1
    if not (0 < rows <= MOST_ROWS and 0 < slots <= MOST_SLOTS) or array.shape[2] - slots not in (
        2,
        3,
    ):
        raise ValueError(
            f"tableau: expected 1 to {MOST_ROWS} rows of 1 to {MOST_SLOTS} slots and 2 or 3 columns more "
            f"than slots, got {array.shape}; take one of the model's own"
        )
    head = array[:, 0]
    whole = np.isin(head[:, slots + 1], (0, 1)).all() and (head[:, slots + 2 :] % 1 == 0).all()
    if not (np.isfinite(array).all() and whole and (head[:, slots:] >= 0).all()):
        raise ValueError(
            "tableau: expected finite numbers, guided 0 or 1 and whole draws, got others; "
            "take one of the model's own"
        )
    return array
