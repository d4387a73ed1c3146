"""log p(x) = log N(x_0; 0, sigma_0^2 I) + D log(m_0 / m_1) - integral of div_y dy/dr from r_0 to r_1.

The instantaneous change of variables (Chen et al. 2018, theorem 1; Song et al. 2021, eq. 39). From the
data x = m_1 y the ODE is followed back to the noise x_0 = m_0 y_0, whose density is known: samples
start at noise * sigma_0. Whatever alpha_0 the schedule has, this is the density of what the ODE
draws. Dividing by m changes a density by m^D, and with dy/dr = on_y y + on_out network(shown y, t)

    div_y dy/dr = D on_y + on_out shown trace(J),    J = the network's derivative by what it is shown.

The trace is exact, D products J e_d with the unit vectors, or Hutchinson's: v . J v with v = +-1 has
mean trace(J) and is exact when J is diagonal. It needs a network that says J v beside its prediction:
a file of the form `likelihood`, or a framework's module.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from . import grids
from .adaptive import PAIRS, Floats, Rows, column, solve
from .choices import choose, is_number
from .conditions import (
    MOST_BYTES,
    Context,
    Label,
    conditions,
    fits,
    one_array,
    spec_of,
    whole,
)
from .integrate import MOST_CALLS, Ode, check_tolerances, listed, ode_along, states
from .noise import seed_rows, signs, uniforms
from .sample import MOST_SAMPLES, Sampleable
from .schedules import named
from .work import BATCH

EXACT_UP_TO = 16  # numbers in a sample: up to here the trace is exact unless probes are asked for
MOST_PROBES = 1000

Single = NDArray[np.float32]
Product = Callable[[Single, Floats, Rows, Single], tuple[Single, Single]]
Trace = Callable[[Product, Single, Floats, Rows], tuple[Single, Floats]]


class Differentiable(Sampleable, Protocol):
    """A network that also says how its prediction changes along a direction."""

    def product(
        self, x: Single, t: float | Single, condition: NDArray[Any] | None, probe: Single
    ) -> tuple[Single, Single]:
        """(prediction, J probe), each float32 (B, *shape)."""


@dataclass(frozen=True)
class Likelihood:
    """Per row, n in all: log p(x) in nats (float64), the noise x came from, and what it cost.

    log_density is of x at `time`, 1 unless the prediction is singular there. calls: of the network,
    products counted singly. probes: 0 for the exact trace.
    """

    log_density: Floats
    noise: Single
    time: float
    calls: NDArray[np.int64]
    accepted: NDArray[np.int64]
    rejected: NDArray[np.int64]
    probes: int


def likelihood(
    model: Differentiable,
    data: Single,
    *,
    probes: int | None = None,
    method: str = "dopri5",
    rtol: float = 1e-5,
    atol: float = 1e-5,
    times: Sequence[float] = (0.0, 1.0),
    label: Label | None = None,
    context: Context | None = None,
    chart: str = "straight",
    seed: int = 0,
    most_calls: int = MOST_CALLS,
    batch: int = BATCH,
    progress: Callable[[int, int], None] | None = None,
) -> Likelihood:
    """log p(x) of every row of data, float32 (n, *shape); a row does not depend on the others.

    probes: 0 for the exact trace, else +-1 vectors per row, 1 to 1000, whose mean is taken; None is
    exact for up to 16 numbers in a sample and one probe beyond. Row i's come from seed + i. times:
    (start, end) of the path whose samples the density is of. most_calls: of the field, each of which
    is D or `probes` products. label, context: as for samples, but one or n of them; there is no
    guidance. The integral is one of the D + 1 numbers over which a step's error is taken. The rest as
    in `integrate`. Raises ValueError for a bad argument and FloatingPointError where a row does not arrive.
    """
    spec = spec_of("model", model)
    data = one_array("data", data)
    n = whole("n", len(data) if data.ndim else 0, 1, MOST_SAMPLES)
    x = states("data", data, n, spec.shape)
    counted = isinstance(label, list | tuple) or getattr(label, "ndim", 0) > 0
    if counted and len(label) not in (1, n):  # type: ignore[arg-type]
        raise ValueError(
            f"label: expected one for all or one for each of {n} rows, got {len(label)}; "  # type: ignore[arg-type]
            "data has its own labels, which do not take turns"
        )
    size = math.prod(spec.shape)
    probes = (0 if size <= EXACT_UP_TO else 1) if probes is None else probes
    probes = whole("probes", probes, 0, MOST_PROBES)
    whole("batch", batch, 1, MOST_SAMPLES)
    whole("most_calls", most_calls, 1, 10**9)
    check_tolerances(rtol, atol)
    fits("n", min(batch, n) * max(probes, 1), spec.shape, MOST_BYTES)
    pair, schedule = PAIRS[choose("method", method, PAIRS)], named(spec.schedule)
    asked = grids.trim(grids.make(listed(times), None, schedule), schedule, spec.prediction)
    start, end = float(asked[0]), float(asked[-1])
    ode, clocks = ode_along(spec, chart, (end, start))
    known, seeds = conditions(spec, n, label, context), seed_rows(seed, n)

    found, costs = np.empty((n, size + 1)), np.empty((3, n), np.int64)
    for first in range(0, n, batch):
        part = slice(first, min(first + batch, n))
        trace = exact if probes == 0 else hutchinson(seeds[part], spec.shape, probes)
        local = None if known is None else known[part]
        flat = x[part].reshape(-1, size) / ode.m(end)
        done = solve(
            augmented(ode, spec.shape, _product(model, local), trace),
            np.concatenate([flat, np.zeros((len(flat), 1))], axis=1),
            clocks,
            pair=pair,
            rtol=rtol,
            atol=atol,
            most_calls=most_calls,
            time=ode.time,
            first=first,
        )
        found[part], costs[:, part] = done.path[-1], (done.calls, done.accepted, done.rejected)
        if progress is not None:
            progress(part.stop, n)
    origin, grown = found[:, :-1] * ode.m(start), found[:, -1]
    sigma = float(schedule(start).sigma)
    scale = size * math.log(ode.m(start) / ode.m(end))
    costs[0] *= probes or size
    return Likelihood(
        normal(origin, sigma) + scale + grown,
        origin.astype(np.float32).reshape(x.shape),
        end,
        costs[0],
        costs[1],
        costs[2],
        probes,
    )


def normal(x: Floats, sigma: float) -> Floats:
    """log N(x; 0, sigma^2 I) of every row: -D/2 log(2 pi sigma^2) - |x|^2 / (2 sigma^2)."""
    each: Floats = np.sum(np.square(x / sigma), axis=1)
    density: Floats = -0.5 * each - 0.5 * x.shape[1] * math.log(2.0 * math.pi * sigma**2)
    return density


def augmented(
    ode: Ode, shape: tuple[int, ...], product: Product, trace: Trace
) -> Callable[[Floats, Floats, Rows], Floats]:
    """d/dr (y, l) = (dy/dr, div_y dy/dr) on rows (b, D + 1): followed backwards, l ends at -integral."""

    def field(y: Floats, r: Floats, rows: Rows) -> Floats:
        t, shown, on_y, on_out = ode.rates(r)
        flat = y[:, :-1]
        with np.errstate(over="ignore"):
            x = (flat * shown[:, None]).astype(np.float32).reshape(-1, *shape)
        out, traced = trace(product, x, t, rows)
        slope = flat * on_y[:, None] + out.reshape(flat.shape) * on_out[:, None]
        growth = flat.shape[1] * on_y + on_out * shown * traced
        return np.concatenate([slope, column(growth, slope)], axis=1)

    return field


def exact(product: Product, x: Single, t: Floats, rows: Rows) -> tuple[Single, Floats]:
    """trace(J) = sum_d e_d . J e_d: one product per number in a sample."""
    total, size = np.zeros(len(x)), math.prod(x.shape[1:])
    for d in range(size):
        probe = np.zeros((len(x), size), np.float32)
        probe[:, d] = 1.0
        out, moved = product(x, t, rows, probe.reshape(x.shape))
        total += moved.reshape(len(x), size)[:, d]
    return out, total


def hutchinson(seeds: NDArray[np.int64], shape: tuple[int, ...], probes: int) -> Trace:
    """trace(J) ~ mean over k of v_k . J v_k, v_k = +-1 and the same along a row's whole path.

    Hutchinson 1990; Grathwohl et al. 2019, eq. 7.
    """
    directions = [signs(seeds, shape, k) for k in range(probes)]

    def trace(product: Product, x: Single, t: Floats, rows: Rows) -> tuple[Single, Floats]:
        total = np.zeros(len(x))
        for probe in directions:
            out, moved = product(x, t, rows, probe[rows])
            dots = probe[rows].astype(np.float64) * moved
            total += np.sum(dots.reshape(len(x), -1), axis=1)
        return out, total / probes

    return trace


def dequantised(data: Single, step: float, seed: int) -> Single:
    """x + step (u - 1/2), u uniform in (0, 1) from seed + i: grey levels as the cells they stand for.

    With p the model's density, E[log p(x + step u)] + D log(step) is at most the log-probability of the
    cell (Theis et al. 2016, eq. 5), so bits per dimension from it are never too good.
    """
    if not (is_number(step) and 0.0 < step < math.inf):
        raise ValueError(
            f"step: expected the distance of two grey levels, got {step!r}; try 2/255"
        )
    shaken = uniforms(seed_rows(seed, len(data)), data.shape[1:]) * np.float32(step)
    return data + shaken


def bits_per_dimension(log_density: Floats, size: int, step: float = 1.0) -> Floats:
    """-(log p(x) + D log(step)) / (D log 2): of cells of that width; step = 1 is the density's own."""
    return -(log_density / size + math.log(step)) / math.log(2.0)


def _product(model: Differentiable, condition: NDArray[Any] | None) -> Product:
    """The model's product for some of the rows whose condition this is."""

    def product(x: Single, t: Floats, rows: Rows, probe: Single) -> tuple[Single, Single]:
        given = None if condition is None else condition[rows]
        return model.product(x, t.astype(np.float32), given, probe)

    return product
