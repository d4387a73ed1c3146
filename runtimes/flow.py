"""One run of a solver on a network: conversions and charts folded around a plain generator.

    network(x, t) -> prediction,     t a Python float, x scaled where `predictions.INPUTS` says so

What comes out are the states x after every step, in the path's own variables, on whatever arrays
went in: numpy, torch, MLX, or the symbols of `trace.trace`.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any

from .charts import Point, closed, time_at
from .charts import point_at as chart_point
from .predictions import ends as ends_at
from .schedules import Scales, Times, named
from .solvers import SOLVERS
from .stochastic import DIFFUSIONS, Diffusion

Network = Callable[[Any, float], Any]


def flow(
    solver: str,
    network: Network,
    x: Any,
    times: Sequence[float],
    *,
    schedule: str = "linear",
    prediction: str = "velocity",
    chart: str = "straight",
    draw: Callable[[int], Any] | None = None,
    eta: float = 1.0,
    diffusion: str | Diffusion = "sigma",
) -> Iterator[Any]:
    """The states of one run from x at times[0]: one per interval, the last at times[-1].

    x: the state at times[0], (B, *shape). draw(k): the noise of step k, for noisy solvers only.
    chart: the variables in which a solver that follows the field steps; the others use the path's own.
    diffusion: g^2 for a solver that follows one, by name or as a function of Scales; eta^2 multiplies it.
    Raises ValueError where the prediction is singular, the chart infinite or a draw has no source.
    """
    rule = named(schedule)

    recent = lru_cache(maxsize=4)(rule)  # a step asks for the same times in several places

    def scales(t: Times) -> Scales:
        return recent(t) if isinstance(t, float) else rule(t)

    def ends(x: Any, t: float) -> tuple[Any, Any]:
        at = ends_at(prediction, scales(t))
        out = network(x * at.input, t)
        return x * at.data_x + out * at.data_p, x * at.noise_x + out * at.noise_p

    method = SOLVERS[solver]
    grid = [float(t) for t in times]
    if method.follows != "field":
        square = DIFFUSIONS[diffusion] if isinstance(diffusion, str) else diffusion
        noise = (draw or _none, eta)
        more = {"ends": (), "noise": noise, "diffusion": (*noise, square)}[method.follows]
        yield from method.steps(ends, x, grid, scales, *more)
        return

    points = [chart_point(chart, t, scales(t)) for t in grid]
    at_clock = {point.r: point for point in points}

    def point_at(r: float) -> Point:
        if r in at_clock:
            return at_clock[r]
        t = time_at(chart, rule, r)
        return chart_point(chart, t, scales(t))

    def field(y: Any, r: float) -> Any:
        point = point_at(r)
        if not math.isfinite(point.on_data + point.on_noise):
            raise closed(chart, point.t)
        on_y, on_out, shown = rates(prediction, point, scales(point.t))
        return y * on_y + network(y * shown, point.t) * on_out

    states = method.steps(field, x * (1.0 / points[0].m), [point.r for point in points])
    for point, y in zip(points[1:], states, strict=True):
        yield y * point.m


def rates(prediction: str, point: Point, scales: Scales) -> tuple[float, float, float]:
    """(on_y, on_out, shown) of dy/dr = on_y y + on_out network(shown y, t): a chart and both ends put in."""
    at = ends_at(prediction, scales)
    on_x = point.on_data * at.data_x + point.on_noise * at.noise_x
    on_out = point.on_data * at.data_p + point.on_noise * at.noise_p
    return on_x * point.m, on_out, point.m * at.input


def _none(step: int) -> Any:
    raise ValueError(
        f"draw: expected a source of noise for step {step}, got none; give one to `flow`"
    )
