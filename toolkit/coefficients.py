"""The numbers of a fitted run: x_{k+1} = keep_k x_k + sum_j mix_kj p_j, p_k = network(c x_k, t_k).

j runs over the calls so far, the last 16 at most. So up to that many calls this is every linear method
there is (Shaul et al. 2024, "Bespoke Non-Stationary Solvers", theorem 3.2): each classical tableau is one
point of the family, and a fit that starts there can only get better. c is 1 but for networks that are
shown a scaled x (`predictions.INPUTS`).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from runtimes.tableau import MOST_SLOTS, Row, Tableau, run

WINDOW = MOST_SLOTS  # calls looked back on: a slot for each but the newest, and one for x
LOOK = 8  # those that a fit weighs: more are nearly the same field again
TINY = 1e-12


@dataclass(frozen=True)
class Table:
    """times (N,), keep (N,), mix (N, N) with zeros above the diagonal, guided (N,) bool."""

    times: np.ndarray
    keep: np.ndarray
    mix: np.ndarray
    guided: np.ndarray

    @property
    def calls(self) -> int:
        """Network evaluations of a run, a guided one counted once."""
        return len(self.times)

    @property
    def evaluations(self) -> int:
        """Network evaluations of a guided run: a guided call counts two."""
        return self.calls + int(self.guided.sum())


def window(calls: int, back: int = WINDOW) -> np.ndarray:
    """(N, N) bool: the p_j that x_{k+1} may be made of."""
    k, j = np.indices((calls, calls))
    return (j <= k) & (j > k - back)


def from_tableau(tableau: Tableau, shown: Callable[[float], float]) -> Table | None:
    """The table of a classical run without noise, or None where some x_k holds nothing of the noise.

    Exact up to `WINDOW` calls; beyond, what some solvers keep of outputs that are older still, a share
    that shrinks with every step, is left out. The run is made on unit vectors: e_0 in the place of the
    noise, e_{k+1} in that of the k-th output.
    """
    calls = tableau.calls
    unit, inputs = np.eye(calls + 1), []

    def network(x: np.ndarray, t: float, on: bool) -> np.ndarray:
        inputs.append(x / shown(t))
        return unit[len(inputs)]

    (*_, (_, last)) = run(tableau, network, unit[0])
    states = np.array([*inputs, last])  # (N + 1, N + 1): x_k on the noise and on the outputs
    if np.any(np.abs(states[:-1, 0]) < TINY):
        return None
    keep = states[1:, 0] / states[:-1, 0]
    mix = states[1:, 1:] - keep[:, None] * states[:-1, 1:]
    mix = np.where(window(calls) & (np.abs(mix) > TINY), mix, 0.0)
    times, flags = zip(*((row.time, row.guided) for row in tableau.rows), strict=True)
    return Table(np.array(times), keep, mix, np.array(flags))


def to_tableau(table: Table, shown: Callable[[float], float]) -> Tableau:
    """Slot 0 holds x_k, the others the outputs that are still needed, the oldest first."""
    rows: list[Row] = []
    before: list[int] = []
    for k in range(table.calls):
        after = [j for j in range(k + 1) if np.any(table.mix[k + 1 :, j] != 0.0)]
        place = {j: 1 + index for index, j in enumerate(before)} | {k: 1 + len(before)}
        mixed = [(place[j], float(table.mix[k, j])) for j in place if table.mix[k, j] != 0.0]
        time = float(table.times[k])
        rows.append(
            Row(
                time=time,
                guided=bool(table.guided[k]),
                input=((0, shown(time)),),
                update=(
                    ((0, float(table.keep[k])), *mixed),
                    *(((place[j], 1.0),) for j in after),
                ),
                draw=None,
                ends_step=True,
            )
        )
        before = after
    return Tableau(tuple(rows), max(len(row.update) for row in rows))
