import time
from itertools import pairwise

import numpy as np
import pytest

from runtimes.flow import flow
from runtimes.predictions import PREDICTIONS
from runtimes.schedules import SCHEDULES
from runtimes.solvers import SOLVERS
from runtimes.tableau import run
from runtimes.trace import trace

from .problems import MIXTURE, WAYS, starts

solvers = pytest.mark.parametrize("name", SOLVERS)
TIMES = (0.05, 0.2, 0.5, 0.6, 0.95)
#           slots alive at once, network calls per step
COSTS = {
    "euler": (1, 1),
    "midpoint": (2, 2),
    "heun": (2, 2),
    "ralston": (2, 2),
    "heun3": (3, 3),
    "rk4": (4, 4),
    "ab2": (2, 1),
    "ab3": (3, 1),
    "ab4": (4, 1),
    "dpmpp_2s": (2, 2),
    "dpmpp_2m": (2, 1),
    "dpmpp_3m": (3, 1),
    "unipc2": (3, 1),
    "unipc3": (4, 1),
    "deis2": (2, 1),
    "deis3": (3, 1),
    "edm_heun": (2, 2),
    "euler_maruyama": (1, 1),
    "stochastic_heun": (2, 2),
    "ancestral": (1, 1),
    "sde_dpmpp_2m": (2, 1),
    "edm_churn": (2, 2),
    "langevin": (1, 2),
}
# noisy: after which of a step's calls noise is drawn, and in how many of four steps inside the path
DRAWS = {
    "euler_maruyama": (0, 4),
    "stochastic_heun": (0, 4),
    "ancestral": (0, 4),
    "sde_dpmpp_2m": (0, 4),
    "edm_churn": (1, 3),  # for the step that comes next
    "langevin": (1, 4),
}


@pytest.mark.parametrize(("name", "chart"), WAYS)
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_tableau_is_the_run(name, schedule, prediction, chart):
    options = {"schedule": schedule, "prediction": prediction, "chart": chart, "eta": 0.7}
    options["diffusion"] = "bridge"
    network = MIXTURE.network(prediction, SCHEDULES[schedule])
    x = starts(6)

    def draw(k):
        return starts(6, seed=100 + k)

    want = list(flow(name, network, x, TIMES, draw=draw, **options))
    table = trace(name, TIMES, **options)
    got = [state for _, state in run(table, lambda x, t, on: network(x, t), x, draw)]
    # rounding is relative to what was added up: where a clock leaps, weights of ab4 reach thousands
    sums = [slot for row in table.rows for slot in (row.input, *row.update)]
    largest = max(abs(weight) for slot in sums for _, weight in slot)
    np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12 * max(largest, 1.0))


@solvers
def test_slots_and_calls(name):
    slots, calls = COSTS[name]
    table = trace(name, TIMES)
    assert table.slots == slots
    assert table.calls == len(table.rows) == calls * 4 + SOLVERS[name].extra
    assert SOLVERS[name].calls == calls


@solvers
def test_past_is_how_far_back_a_step_looks(name):
    """What is kept from one step to the next beside the state: that many earlier outputs."""
    times = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]
    table = trace(name, tuple(times), eta=0.0)
    ends = [k for k, row in enumerate(table.rows) if row.ends_step]
    # the slots after a step, but for its state (and the corrected one UniPC sets out from), are its past
    kept = len(table.rows[ends[-2]].update) - 1 - name.startswith("unipc")
    assert kept == SOLVERS[name].past


@solvers
def test_rows_are_well_formed(name):
    """Indices point at what is there; a step ends after its last call; draws carry the step."""
    table = trace(name, TIMES, eta=1.0)
    calls, (drawing, draws) = SOLVERS[name].calls, DRAWS.get(name, (0, 0))
    assert SOLVERS[name].noisy == (draws > 0)
    # a start costs its extra calls in the steps it takes
    length = {"ab3": [2, 1, 1, 1], "ab4": [3, 3, 1, 1]}.get(name, [calls] * 4)
    shown = [int(k) - 1 for k in np.cumsum(length)]
    alive = 1
    for k, row in enumerate(table.rows):
        assert {index for index, _ in row.input} <= set(range(alive))
        terms = alive + 1 + (row.draw is not None)
        assert all({index for index, _ in slot} <= set(range(terms)) for slot in row.update)
        assert all(weight != 0 for slot in (row.input, *row.update) for _, weight in slot)
        step, call = divmod(k, calls)
        assert row.draw == (step if call == drawing and step < draws else None)
        assert row.ends_step == (k in shown)
        assert TIMES[0] <= row.time <= TIMES[-1]
        alive = len(row.update)
    assert alive == 1


def test_times_of_the_rows():
    midpoint = [row.time for row in trace("midpoint", (0.0, 0.5, 1.0)).rows]
    assert midpoint == pytest.approx([0, 0.25, 0.5, 0.75])
    heun = [row.time for row in trace("heun", (0.0, 0.5, 1.0)).rows]
    assert heun == [0, 0.5, 0.5, 1.0]
    assert [row.time for row in trace("euler", TIMES).rows] == list(TIMES[:-1])


def test_one_euler_step_by_hand():
    """x + (s - t) velocity on the linear schedule: slot 0 * 1 + output * h."""
    (row,) = trace("euler", (0.25, 0.5), chart="path").rows
    assert row.input == ((0, 1.0),)
    (update,) = row.update
    assert dict(update) == pytest.approx({0: 1.0, 1: 0.25}, abs=1e-15)


def test_noisy_rows_without_noise():
    assert all(row.draw is None for row in trace("ancestral", TIMES, eta=0.0).rows)
    draws = [row.draw for row in trace("euler_maruyama", (0.0, 0.5, 0.8, 1.0)).rows]
    assert draws == [0, 1, None]


@pytest.mark.parametrize(
    ("interval", "on"),
    [
        (None, [0, 0, 0, 0]),
        ((0.0, 1.0), [1, 1, 1, 1]),
        ((0.2, 0.5), [0, 1, 1, 0]),
        ((0.21, 0.49), [0, 0, 0, 0]),
        ((0.05, 0.05), [1, 0, 0, 0]),
    ],
)
def test_guided_rows_follow_the_interval(interval, on):
    rows = trace("euler", TIMES, guided=interval).rows
    assert [row.guided for row in rows] == [bool(flag) for flag in on]


@pytest.mark.parametrize("times", [(0.0, 1.0), (0.0, 0.5, 1.0)])
@pytest.mark.parametrize(
    ("name", "chart"),
    [("euler_maruyama", "straight"), ("stochastic_heun", "path"), ("heun", "path")],
)
def test_a_field_of_zeros_at_the_start_is_a_sum_of_nothing(name, chart, times):
    """The rates of a polynomial path vanish at t = 0, and with them every weight of what is known there."""
    options = {"schedule": "polynomial", "prediction": "v", "chart": chart}
    network, x = MIXTURE.network("v", SCHEDULES["polynomial"]), starts(3)

    def draw(k):
        return starts(3, seed=100 + k)

    table = trace(name, times, **options)
    got = [state for _, state in run(table, lambda x, t, on: network(x, t), x, draw)]
    want = list(flow(name, network, x, times, draw=draw, **options))
    np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["rk4", "ab4", "dpmpp_2s", "unipc3", "ancestral"])
def test_a_long_run_is_traced_quickly(name):
    start = time.perf_counter()
    table = trace(name, tuple(np.linspace(0.001, 0.999, 1001).tolist()))
    assert table.calls == 1000 * SOLVERS[name].calls + SOLVERS[name].extra
    assert time.perf_counter() - start < 5


def test_two_draws_for_one_call_are_refused(monkeypatch):
    def greedy(ends, x, grid, scales, draw, eta):
        data, noise = ends(x, grid[0])
        yield data + noise + draw(0) + draw(1)

    monkeypatch.setitem(
        SOLVERS, "greedy", type(SOLVERS["ancestral"])(greedy, 1, 1, follows="noise")
    )
    with pytest.raises(ValueError, match="one draw of noise after each call"):
        trace("greedy", (0.1, 0.9))


def test_a_new_solver_needs_no_help(monkeypatch):
    """Plain three-step Adams-Bashforth, even steps: one call a step, three slots, found by the tracer."""

    def adams(field, y, grid):
        past = []
        for t, s in pairwise(grid):
            past = [field(y, t), *past[:2]]
            weights = {1: (1,), 2: (1.5, -0.5), 3: (23 / 12, -16 / 12, 5 / 12)}[len(past)]
            for k, weight in zip(past, weights, strict=True):
                y = y + k * (weight * (s - t))
            yield y

    monkeypatch.setitem(SOLVERS, "adams", type(SOLVERS["euler"])(adams, order=2, calls=1))
    times = tuple(np.linspace(0.1, 0.9, 9).tolist())
    network = MIXTURE.network("velocity", SCHEDULES["linear"])
    table = trace("adams", times)
    want = list(flow("adams", network, starts(4), times))
    got = [x for _, x in run(table, lambda x, t, on: network(x, t), starts(4))]
    np.testing.assert_allclose(got, want, atol=1e-12)
    assert (table.slots, table.calls) == (3, 8)
