"""A fitted tableau by its number of calls: found in a model's metadata, guidance put in, or a warning.

The numbers were chosen for one network, from noise to data (`toolkit.fit`), so they have no part that
starts elsewhere, and no grid, steps or solver to choose beside them.
"""

import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NoReturn

from .conditions import whole
from .tableau import Tableau, from_dense
from .tableaus import FITTED, MOST_CALLS, Fit, Ready


def find(model: Any, calls: int, beside: Mapping[str, object]) -> Ready:
    """The model's fitted tableau of so many calls; beside: the arguments that must be None.

    Raises ValueError for one given beside it, and for a number of calls that the model does not have.
    """
    whole("calls", calls, 2, MOST_CALLS)
    given = ", ".join(name for name, value in beside.items() if value is not None)
    if given:
        raise ValueError(
            f"calls: expected it alone, got {given} beside it; "
            "a fitted tableau holds a whole run: leave one out"
        )
    own: tuple[Ready, ...] = getattr(model, "tableaus", ())
    have = {one.steps: one for one in own if one.solver == FITTED}
    if calls not in have:
        known = ", ".join(map(str, have)) or "none"
        raise ValueError(
            f"calls: expected what this model was fitted for ({known}), got {calls}; "
            "run toolkit fit on its run folder and export it again, or give --steps"
        )
    return have[calls]


def tableau(ready: Ready, weight: float | None, interval: tuple[float, float]) -> Tableau:
    """Its rows, guided where the fit and the interval of t say so; weight None: nowhere."""
    if weight is not None and ready.fit is not None:
        _warn(ready.fit, ready.steps, weight)
    whole_run = from_dense(ready.tensor, ready.ends)
    low, high = interval
    rows = tuple(
        replace(row, guided=row.guided and weight is not None and low <= row.time <= high)
        for row in whole_run.rows
    )
    return replace(whole_run, rows=rows)


def no_part(times: tuple[float, ...]) -> NoReturn:
    """What stands in the place of a trace over other times."""
    raise ValueError(
        "calls: expected a run from noise to data, got one that starts or ends elsewhere, which a fitted "
        "tableau has no rows for; leave calls out, or give solver and steps"
    )


def _warn(fit: Fit, calls: int, weight: float) -> None:
    low, high = fit.guidance
    if low <= weight <= high:
        return
    near = min(fit.off, key=lambda one: abs(one[0] - weight), default=None)
    there = "" if near is None else f"; the error measured at {near[0]:g} is {near[1]:.2g}"
    good = f"{low:g}" if low == high else f"{low:g} to {high:g}"
    warnings.warn(
        f"guidance: {calls} calls were fitted for {good} (error {fit.error:.2g}), "
        f"got {weight:g}{there}",
        stacklevel=4,
    )
