"""The solvers that follow the two ends; what all solvers promise is in test_solvers.py and test_trace.py."""

import math
from itertools import pairwise

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.linalg import expm

from runtimes.exponential import clock, exact, halved, moments
from runtimes.flow import flow
from runtimes.grids import GRIDS
from runtimes.schedules import SCHEDULES, time_of_ratio
from runtimes.solvers import SOLVERS
from runtimes.trace import trace

from .problems import MIXTURE, ROUND, SHEAR, TILTED, slope, starts
from .test_solvers import HIGH, LOW, last, reference, squeezed

ENDS = [name for name, solver in SOLVERS.items() if solver.follows == "ends"]
# their first step is of a lower order than the rest, and so the run; here the order of the rest
OWN_ORDER = {"dpmpp_3m": 3, "deis3": 3, "unipc3": 4}
solvers = pytest.mark.parametrize("name", ENDS)
schedules = pytest.mark.parametrize("schedule", SCHEDULES)
STEPS = (256, 512)
FINER = {
    "edm": (1024, 2048)
}  # its noise falls by the seventh power: fewer steps do not show an order


def measured_slope(name, schedule, grid_of, steps=STEPS):
    """On the mixture, from LOW to HIGH."""
    network, errors = MIXTURE.network("v", SCHEDULES[schedule]), []
    for n in steps:
        end = last(name, network, starts(), grid_of(n), schedule=schedule, prediction="v")
        errors.append(np.sqrt(np.mean((end - reference(schedule, LOW, HIGH)) ** 2)))
    return slope(steps, errors)


def first_step_of(length, n):
    """n steps from LOW to HIGH, all even but the first."""
    return np.array([LOW, *np.linspace(LOW + length, HIGH, n)])


# Orders


@solvers
@schedules
def test_order_on_the_mixture(name, schedule):
    """Where the start sets the order, it is given a long step: its error must be seen beside the rest."""
    long, steps = 8 if name in OWN_ORDER else 1, FINER.get(schedule, STEPS)
    got = measured_slope(
        name, schedule, lambda n: first_step_of((HIGH - LOW) * long / n, n), steps
    )
    assert got == pytest.approx(SOLVERS[name].order, abs=0.1)


@pytest.mark.parametrize("name", OWN_ORDER)
@schedules
def test_order_of_the_recurrence_itself(name, schedule):
    """A first step of length 1 / n^2 keeps the start's error below all others."""
    got = measured_slope(name, schedule, lambda n: first_step_of(0.5 / n**2, n))
    assert got == pytest.approx(OWN_ORDER[name], abs=0.2 if OWN_ORDER[name] == 4 else 0.1)


@solvers
def test_order_on_uneven_grids(name):
    """Even steps of lambda, and a shifted grid: both smooth maps of k / n."""
    rule = SCHEDULES["linear"]
    low, high = (clock(rule(t)) for t in (LOW, HIGH))

    def even(n):
        inner = time_of_ratio(rule, np.exp(np.linspace(low, high, n + 1)))[1:-1]
        return np.array([LOW, *inner, HIGH])

    assert measured_slope(name, "linear", even) > SOLVERS[name].order - 0.1
    shifted = measured_slope(name, "linear", lambda n: squeezed("shifted", n, rule))
    assert shifted > SOLVERS[name].order - 0.1


@solvers
@schedules
@pytest.mark.parametrize("problem", [ROUND, TILTED], ids=["round", "tilted"])
def test_gaussian_closed_form(name, schedule, problem):
    rule = SCHEDULES[schedule]
    x = starts(16, len(problem.mean))
    want, errors = problem.flow_map(x, rule(LOW), rule(HIGH)), []
    steps = FINER.get(schedule, STEPS)
    for n in steps:
        options = {"schedule": schedule, "prediction": "data"}
        end = last(
            name, problem.network("data", rule), x, np.linspace(LOW, HIGH, n + 1), **options
        )
        errors.append(np.abs(end - want).max())
    assert slope(steps, errors) > SOLVERS[name].order - 0.2
    assert errors[-1] < 1e-3


@solvers
def test_linear_equation_against_expm(name):
    """A velocity SHEAR x, seen as the two ends it implies on the linear path."""
    want, errors = starts(8, 3) @ expm(0.5 * SHEAR).T, []
    for n in STEPS:
        end = last(name, lambda x, t: x @ SHEAR.T, starts(8, 3), np.linspace(0.25, 0.75, n + 1))
        errors.append(np.abs(end - want).max())
    assert slope(STEPS, errors) > SOLVERS[name].order - 0.1
    assert errors[-1] < 1e-3


# The two infinite ends of the clock


@solvers
def test_the_whole_path_converges(name):
    """Its first-order steps are wrong by 1 / n^2; all those beside them together by log n / n^2."""
    network, errors = MIXTURE.network("velocity", SCHEDULES["linear"]), []
    for n in (384, 1536):
        end = last(name, network, starts(), np.linspace(0, 1, n + 1))
        errors.append(np.sqrt(np.mean((end - reference("linear", 0.0, 1.0)) ** 2)))
    assert slope((384, 1536), errors) > 1.5
    assert errors[-1] < 1e-5


@solvers
@schedules
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("steps", [1, 2, 3, 10])
def test_the_whole_path_is_finite_and_ends_at_the_data(name, schedule, grid, steps):
    """Onto sigma = 0 the last step is alpha data, whatever came before."""
    rule, seen = SCHEDULES[schedule], []

    def network(x, t):
        seen.append(MIXTURE.posterior(x, *rule(t)[:2])[0])
        return MIXTURE.output("v", x, rule(t))

    options = {"schedule": schedule, "prediction": "v"}
    states = list(flow(name, network, starts(), GRIDS[grid](steps, rule), **options))
    assert np.isfinite(states).all()
    np.testing.assert_allclose(states[-1], seen[-1], rtol=0, atol=1e-12)


@solvers
@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_from_alpha_zero_the_first_step_is_eulers(name, schedule):
    network, grid = MIXTURE.network("v", SCHEDULES[schedule]), [0.0, 0.3, 0.6]
    first, euler = (
        next(flow(which, network, starts(), grid, schedule=schedule, prediction="v"))
        for which in (name, "euler")
    )
    np.testing.assert_allclose(first, euler, rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", ["edm_heun", "dpmpp_2s"])
@pytest.mark.parametrize(("schedule", "saved"), [("linear", 2), ("vp", 1)])
def test_no_second_call_where_the_clock_is_infinite(name, schedule, saved):
    """vp keeps alpha(0) > 0, so that only its other end saves one."""
    table = trace(name, (0.0, 0.2, 0.5, 0.8, 1.0), schedule=schedule, prediction="v")
    assert table.calls == 8 - saved


@solvers
def test_a_clock_out_of_reach_is_an_infinite_one(name):
    """alpha of 1e-300 at the start, where e^-lambda would overflow."""
    network = MIXTURE.network("v", SCHEDULES["linear"])
    far, zero = (
        list(flow(name, network, starts(), [first, 0.4, 0.7, 1.0], prediction="v"))
        for first in (1e-300, 0.0)
    )
    np.testing.assert_array_equal(far, zero)


@solvers
def test_times_that_the_clock_cannot_tell_apart(name):
    """A clock that stands still is no one's divisor, and neither is a past at the present."""

    def rule(t):
        return SCHEDULES["linear"](np.round(t, 2))

    def ends(x, t):
        return MIXTURE.posterior(x, *rule(t)[:2])

    grid = [0.3, 0.301, 0.6, 0.601, 0.602, 0.9]
    states = list(SOLVERS[name].steps(ends, starts(), grid, rule))
    assert np.isfinite(states).all()
    np.testing.assert_allclose(states[0], starts(), rtol=0, atol=1e-15)


def test_clock():
    scales = SCHEDULES["linear"]
    assert (clock(scales(0.0)), clock(scales(1.0))) == (-math.inf, math.inf)
    assert (clock(scales(0.0), 1), clock(scales(1.0), 1)) == (math.inf, -math.inf)
    assert clock(scales(0.8)) == pytest.approx(math.log(4))
    assert clock(scales(0.8), 1) == pytest.approx(-math.log(4))


# Exactness


@solvers
@schedules
@pytest.mark.parametrize("grid", [[LOW, HIGH], [0.0, 1.0], [0.1, 0.2, 0.7, 0.75, 1.0]])
def test_exact_for_a_constant_denoiser(name, schedule, grid):
    """In one step or many; the noise is constant too, then."""
    point, x, rule = np.array([0.7, -0.2]), starts(5), SCHEDULES[schedule]
    options = {"schedule": schedule, "prediction": "data"}
    # a data prediction is singular at no time but t = 1, which is no call's
    end = last(name, lambda x, t: x * 0 + point, x, grid, **options)
    now, after = rule(grid[0]), rule(grid[-1])
    noise = (x - now.alpha * point) / now.sigma
    np.testing.assert_allclose(end, after.alpha * point + after.sigma * noise, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "which", "degree", "first"),
    [("deis2", 1, 1, 1), ("deis3", 1, 2, 2), ("dpmpp_3m", 0, 2, 2), ("unipc3", 0, 2, 4)],
)
@schedules
def test_exact_for_polynomials_in_the_clock(name, which, degree, first, schedule):
    """An end that is a polynomial in lambda moves x / (other amplitude) by an integral quad knows."""
    rule, factors = SCHEDULES[schedule], np.array([1.3, -0.7, 0.4])[: degree + 1]
    grid = [0.15, 0.2, 0.35, 0.4, 0.6, 0.65, 0.8]

    def polynomial(shown):
        return np.polynomial.polynomial.polyval(shown, factors)

    def ends(x, t):
        """One end is the polynomial, the other what x then leaves for it."""
        scales = rule(t)
        given = polynomial(np.log(scales.alpha / scales.sigma)) + 0 * x
        both = [given, given]
        both[1 - which] = (x - scales[which] * given) / scales[1 - which]
        return tuple(both)

    states = [np.ones(1), *SOLVERS[name].steps(ends, np.ones(1), grid, rule)]
    scaled = [float(x[0] / rule(t)[1 - which]) for x, t in zip(states, grid, strict=True)]
    sign = 1 if which == 0 else -1

    def moved(t, s):
        """The integral of the end over (own / other amplitude) = e^(sign * lambda)."""
        low, high = (float(np.log(rule(u).alpha / rule(u).sigma)) for u in (t, s))
        return quad(
            lambda u: polynomial(u) * sign * np.exp(sign * u), low, high, epsabs=0, epsrel=1e-13
        )[0]

    due = [moved(t, s) for t, s in pairwise(grid)]
    np.testing.assert_allclose(np.diff(scaled)[first:], due[first:], rtol=1e-11, atol=1e-11)


def test_edm_heun_is_exact_for_noise_linear_in_rho():
    """x / alpha then moves by the trapezium, which is its integral."""
    rule, grid = SCHEDULES["linear"], [0.2, 0.3, 0.7, 0.8]

    def ends(x, t):
        scales = rule(t)
        noise = 1.3 - 0.7 * scales.sigma / scales.alpha + 0 * x
        return (x - scales.sigma * noise) / scales.alpha, noise

    states = [np.ones(1), *SOLVERS["edm_heun"].steps(ends, np.ones(1), grid, rule)]
    rho = [(1 - t) / t for t in grid]
    got = [float(x[0]) / t for x, t in zip(states, grid, strict=True)]
    want = [5.0 + 1.3 * (r - 4.0) - 0.35 * (r * r - 16.0) for r in rho]
    np.testing.assert_allclose(got, want, rtol=1e-13)


@pytest.mark.parametrize("h", [1e-6, 0.01, 0.9, 1.1, 5.0, 30.0])
@pytest.mark.parametrize("sign", [1, -1])
def test_moments_against_quadrature(h, sign):
    h = sign * h
    want = [quad(lambda v, j=j: v**j * h * math.exp(h * (v - 1)), 0, 1)[0] for j in range(4)]
    np.testing.assert_allclose(moments(h, 3), want, rtol=1e-9)
    assert all(type(m) is float for m in moments(h, 3))


@pytest.mark.parametrize("rule", [exact, halved])
@pytest.mark.parametrize("offsets", [[], [-0.3], [-0.3, 0.5], [-0.3, -0.9, 0.5]])
def test_weights_are_floats_that_see_polynomials(rule, offsets):
    """sum_i w_i u_i^j is the integral of u^j e^(u - h); a single halved one: to leading order only."""
    h, w = 0.5, rule(0.5, offsets)
    assert all(type(value) is float for value in w)
    for j in range(1, len(offsets) + 1):
        want = quad(lambda u, j=j: u**j * math.exp(u - h), 0, h)[0]
        loose = rule is halved and len(offsets) == 1
        assert np.dot(w, np.power(offsets, j)) == pytest.approx(want, rel=0.1 if loose else 1e-12)


# DDIM


@pytest.mark.parametrize("chart", ["straight", "noise", "data"])
@pytest.mark.parametrize("name", ["euler", *(n for n in ENDS if SOLVERS[n].calls == 1)])
def test_ddim_as_the_paper_writes_it(name, chart):
    """Song, Meng & Ermon 2021, eq. 12, their alpha our alpha^2: all of Euler, the first step of the rest."""
    rule, x = SCHEDULES["vp"], starts()
    grid = np.linspace(0.03, 0.97, 9) if name == "euler" else [0.3, 0.35]
    options = {"schedule": "vp", "prediction": "noise", "chart": chart}
    got = list(flow(name, MIXTURE.network("noise", rule), x, grid, **options))
    for (t, s), state in zip(pairwise(grid), got, strict=True):
        a, a_next = float(rule(t).alpha) ** 2, float(rule(s).alpha) ** 2
        epsilon = MIXTURE.output("noise", x, rule(t))
        predicted = (x - np.sqrt(1 - a) * epsilon) / np.sqrt(a)
        x = np.sqrt(a_next) * predicted + np.sqrt(1 - a_next) * epsilon
        np.testing.assert_allclose(state, x, rtol=0, atol=1e-12)
