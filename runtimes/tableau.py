"""A whole sampler run as a table of numbers: traced from a solver once, run anywhere.

Row k belongs to the k-th network call. It reads a few state slots and replaces them:

    out   = network(sum_i input[i] * slot[i], time, guided)
    slots = [sum_i update[j][i] * [*slots, out, noise][i]  for each new slot j]

Schedules, conversions, charts, guidance flags and noise scales have all become numbers (see `trace`).
`run` is the loop of ten lines that any language can have.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

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
