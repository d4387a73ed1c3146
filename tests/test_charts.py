import math
from itertools import pairwise

import numpy as np
import pytest

from runtimes.charts import CHARTS, time_at
from runtimes.flow import flow
from runtimes.schedules import SCHEDULES, named

from .problems import MIXTURE, starts

charts = pytest.mark.parametrize("chart", CHARTS)
schedules = pytest.mark.parametrize("schedule", SCHEDULES)
TIMES = [0.05, 0.3, 0.7, 0.95]
# the chart of each name in words: what its state x / m tends to be made of
CLOCKS = {
    "straight": lambda a, s: a / (a + s),
    "noise": lambda a, s: s / a,
    "data": lambda a, s: a / s,
}


@charts
@schedules
def test_rates_are_the_derivatives_of_the_state_in_the_clock(chart, schedule):
    """dy/dr by central differences of y = (alpha data + sigma noise) / m and of r."""
    data, noise, h = starts(3), starts(3, seed=4), 1e-6

    def at(t):
        scales = SCHEDULES[schedule](t)
        point = CHARTS[chart].point(t, scales)
        return (scales.alpha * data + scales.sigma * noise) / point.m, point.r

    for t in TIMES:
        (y1, r1), (y0, r0) = at(t + h), at(t - h)
        point = CHARTS[chart].point(t, SCHEDULES[schedule](t))
        rate = point.on_data * data + point.on_noise * noise
        np.testing.assert_allclose(rate, (y1 - y0) / (r1 - r0), rtol=1e-6, atol=1e-7)


@charts
@schedules
def test_clock(chart, schedule):
    for t in TIMES:
        scales = SCHEDULES[schedule](t)
        point = CHARTS[chart].point(t, scales)
        wanted = CLOCKS.get(chart, lambda a, s, t=t: t)(float(scales.alpha), float(scales.sigma))
        assert point.r == pytest.approx(wanted, rel=1e-14)
        assert time_at(chart, SCHEDULES[schedule], point.r) == pytest.approx(t, abs=1e-13)
        assert all(type(value) is float for value in vars(point).values())


@schedules
def test_euler_is_ddim_in_every_straight_line_chart(schedule):
    """Song et al. 2021, eq. 12 with eta = 0, written out; < 1e-12 in all three charts."""
    grid, x = np.linspace(0.03, 0.97, 9), starts()
    ddim = x
    for t, s in pairwise(grid):
        now, after = SCHEDULES[schedule](t), SCHEDULES[schedule](s)
        data, noise = MIXTURE.posterior(ddim, now.alpha, now.sigma)
        ddim = after.alpha * data + after.sigma * noise
    for chart in ("straight", "noise", "data"):
        *_, end = flow(
            "euler",
            MIXTURE.network("v", SCHEDULES[schedule]),
            x,
            grid,
            schedule=schedule,
            prediction="v",
            chart=chart,
        )
        assert np.abs(end - ddim).max() < 1e-12


@schedules
@pytest.mark.parametrize("chart", ["straight", "path"])
def test_full_path_is_finite_where_the_rates_are(chart, schedule):
    run = flow(
        "euler",
        lambda x, t: -x,
        starts(2),
        [0, 0.5, 1],
        schedule=schedule,
        prediction="v",
        chart=chart,
    )
    assert np.isfinite(list(run)).all()


@pytest.mark.parametrize("schedule", ["vp", "discrete", "edm"])
def test_noise_chart_holds_the_whole_path_where_some_data_is_there_from_the_start(schedule):
    """alpha(0) > 0: sigma / alpha is finite at both ends (Karras et al. 2022 step in it)."""
    ends = [
        list(
            flow(
                "euler",
                MIXTURE.network("v", SCHEDULES[schedule]),
                starts(4),
                np.linspace(0, 1, 9),
                schedule=schedule,
                prediction="v",
                chart=chart,
            )
        )[-1]
        for chart in ("noise", "straight")
    ]
    np.testing.assert_allclose(*ends, atol=1e-11)


def test_a_schedule_with_its_own_numbers():
    """sigma = 1 - t^3 is the linear path at t^3: the straight chart walks the same states."""
    grid = np.linspace(0.2, 0.9, 6)
    ends = [
        list(
            flow(
                "rk4",
                MIXTURE.network("data", rule),
                starts(4),
                times,
                schedule=name,
                prediction="data",
            )
        )[-1]
        for name, rule, times in (
            ("polynomial(3)", named("polynomial(3)"), grid),
            ("linear", SCHEDULES["linear"], grid**3),
        )
    ]
    np.testing.assert_allclose(*ends, atol=1e-12)
    with pytest.raises(ValueError, match="did you mean 'polynomial'"):
        list(flow("euler", lambda x, t: x, starts(2), grid, schedule="polynomail(3)"))


@pytest.mark.parametrize(
    ("chart", "schedule", "solver", "end"),
    [
        ("noise", "linear", "euler", "t = 0"),
        ("noise", "cosine", "euler", "t = 0"),
        ("data", "linear", "euler", "t = 1"),
        ("data", "vp", "euler", "t = 1"),
        ("data", "edm", "euler", "t = 1"),
        ("data", "polynomial", "euler", "t = 1"),
        ("noise", "shifted", "euler", "t = 0"),
        ("path", "stable_diffusion", "heun", "t = 1"),
        ("path", "vp", "heun", "t = 1"),  # d_sigma is -infinity there
    ],
)
def test_infinite_ends_are_refused_in_words(chart, schedule, solver, end):
    run = flow(
        solver,
        lambda x, t: x,
        starts(2),
        [0, 0.5, 1],
        schedule=schedule,
        prediction="v",
        chart=chart,
    )
    with pytest.raises(ValueError, match=f"chart: .*'{chart}' at {end}"):
        list(run)


def test_straight_clock_at_its_end():
    assert CHARTS["straight"].ratio(1.0) == math.inf
    assert CHARTS["noise"].ratio(0.0) == math.inf
    assert time_at("straight", SCHEDULES["vp"], 1.0) == 1.0
