from functools import lru_cache

import numpy as np
import pytest
from scipy.linalg import expm

from runtimes.charts import CHARTS
from runtimes.flow import flow
from runtimes.grids import GRIDS
from runtimes.predictions import PREDICTIONS
from runtimes.schedules import SCHEDULES, time_of_ratio
from runtimes.solvers import SOLVERS
from runtimes.tableau import run
from runtimes.trace import trace

from .problems import MIXTURE, ROUND, SHEAR, TILTED, WAYS, slope, starts

ODE = [name for name, solver in SOLVERS.items() if not solver.noisy]
FIELD = [name for name, solver in SOLVERS.items() if solver.follows == "field"]
NOISY = [name for name, solver in SOLVERS.items() if solver.noisy]
schedules = pytest.mark.parametrize("schedule", SCHEDULES)
solvers = pytest.mark.parametrize("name", ODE)
fields = pytest.mark.parametrize("name", FIELD)
every = pytest.mark.parametrize("name", SOLVERS)
LOW, HIGH = 0.3, 0.8  # smooth in every chart and schedule: slopes settle early
STEPS = {1: (64, 192), 2: (96, 288), 3: (32, 96), 4: (24, 48)}


def last(name, network, x, grid, **options):
    *_, end = flow(name, network, x, grid, **options)
    return end


def squeezed(grid, steps, schedule):
    return LOW + (HIGH - LOW) * GRIDS[grid](steps, schedule)


@lru_cache
def reference(schedule, low, high):
    """The flow of the mixture from `low` to `high` to 1e-11, in the path's own variables."""
    network = MIXTURE.network("v", SCHEDULES[schedule])
    options = {"schedule": schedule, "prediction": "v", "chart": "path"}
    return last("rk4", network, starts(), np.linspace(low, high, 1025), **options)


def steps_for(name, most=256):
    """Two numbers of steps between which the slope has settled: a long memory needs more."""
    return (most // 2, most) if name in ("ab3", "ab4") else STEPS[SOLVERS[name].order]


def measured_slope(name, schedule, chart, grid_of, exact, most=256):
    steps, errors = steps_for(name, most), []
    network = MIXTURE.network("v", SCHEDULES[schedule])
    for n in steps:
        options = {"schedule": schedule, "prediction": "v", "chart": chart}
        error = last(name, network, starts(), grid_of(n), **options) - exact
        errors.append(np.sqrt(np.mean(error**2)))
    return slope(steps, errors)


def margin(name):
    return 0.2 if SOLVERS[name].order == 4 else 0.1


@fields
@schedules
@pytest.mark.parametrize("chart", CHARTS)
def test_order_on_the_mixture(name, schedule, chart):
    got = measured_slope(
        name,
        schedule,
        chart,
        lambda n: squeezed("uniform", n, SCHEDULES[schedule]),
        reference(schedule, LOW, HIGH),
    )
    assert got == pytest.approx(SOLVERS[name].order, abs=margin(name))


@fields
@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("chart", ["straight", "path"])
def test_order_on_the_whole_path(name, schedule, chart):
    got = measured_slope(
        name,
        schedule,
        chart,
        lambda n: np.linspace(0, 1, n + 1),
        reference(schedule, 0.0, 1.0),
        most=1024,
    )
    assert got == pytest.approx(SOLVERS[name].order, abs=margin(name))


@fields
def test_order_on_a_shifted_grid(name):
    got = measured_slope(
        name,
        "linear",
        "straight",
        lambda n: squeezed("shifted", n, SCHEDULES["linear"]),
        reference("linear", LOW, HIGH),
    )
    assert got == pytest.approx(SOLVERS[name].order, abs=margin(name))


@fields
@pytest.mark.parametrize("schedule", ["linear", "vp"])
def test_order_on_a_karras_grid(name, schedule):
    """Its noise levels are a smooth map of k / steps between the two ends it sets by hand."""
    rule = SCHEDULES[schedule]
    low, high = (float(time_of_ratio(rule, ratio)) for ratio in (1 / 80, 1 / 0.002))
    exact = reference(schedule, low, high) if schedule == "linear" else vp_end(low, high)
    got = measured_slope(
        name,
        schedule,
        "straight",
        lambda n: np.array([low, *GRIDS["karras"](n + 1, rule)[1:-1]]),
        exact,
    )
    assert got == pytest.approx(SOLVERS[name].order, abs=margin(name))


@lru_cache
def vp_end(low, high):
    """vp's rates are steep at the data, so its reference walks the straight chart instead."""
    grid = GRIDS["karras"](513, SCHEDULES["vp"])[1:-1]
    network = MIXTURE.network("v", SCHEDULES["vp"])
    return last("rk4", network, starts(), [low, *grid], schedule="vp", prediction="v")


@fields
@schedules
@pytest.mark.parametrize("problem", [ROUND, TILTED], ids=["round", "tilted"])
def test_gaussian_closed_form(name, schedule, problem):
    """One-sided: on a Gaussian a solver may be better than its order (midpoint is)."""
    rule = SCHEDULES[schedule]
    x = starts(16, len(problem.mean))
    exact = problem.flow_map(x, rule(LOW), rule(HIGH))
    steps, errors = steps_for(name), []
    for n in steps:
        grid = np.linspace(LOW, HIGH, n + 1)
        options = {"schedule": schedule, "prediction": "data"}
        end = last(name, problem.network("data", rule), x, grid, **options)
        errors.append(np.abs(end - exact).max())
    assert slope(steps, errors) > SOLVERS[name].order - 0.2
    assert errors[-1] < 0.05


@fields
def test_linear_equation_against_expm(name):
    exact = starts(8, 3) @ expm(1.5 * SHEAR).T
    steps, errors = steps_for(name), []
    for n in steps:
        grid = np.linspace(0, 1.5, n + 1)
        *_, end = SOLVERS[name].steps(lambda y, t: y @ SHEAR.T, starts(8, 3), grid.tolist())
        errors.append(np.abs(end - exact).max())
    assert slope(steps, errors) == pytest.approx(SOLVERS[name].order, abs=margin(name))
    assert errors[-1] < 0.2


# Exactness: fields that depend on t alone, polynomials of this degree


# for which degree of a field in t a solver is exact, and from which step on
EXACT = {
    "euler": (0, 0),
    "midpoint": (1, 0),
    "heun": (1, 0),
    "ralston": (1, 0),
    "heun3": (2, 0),
    "rk4": (3, 0),
    "ab2": (1, 1),
    "ab3": (2, 2),
    "ab4": (3, 3),
}


@fields
def test_exact_for_polynomials(name):
    degree, first = EXACT[name]
    grid = [0.0, 0.1, 0.35, 0.4, 1.0, 1.1, 1.5]
    factors = np.array([1.3, -0.7, 2.1, 0.4])[: degree + 1]

    def whole(t):
        return sum(f * t ** (k + 1) / (k + 1) for k, f in enumerate(factors))

    def field(y, t):
        return y * 0.0 + sum(f * t**k for k, f in enumerate(factors))

    states = [0.0, *(float(y[0]) for y in SOLVERS[name].steps(field, np.zeros(1), grid))]
    moved, due = np.diff(states), np.diff([whole(t) for t in grid])
    np.testing.assert_allclose(moved[first:], due[first:], rtol=0, atol=1e-12)


@schedules
def test_euler_needs_one_step_for_a_constant_denoiser(schedule):
    point, x = np.array([0.7, -0.2]), starts(5)
    end = last(
        "euler", lambda x, t: x * 0 + point, x, [LOW, HIGH], schedule=schedule, prediction="data"
    )
    now, after = SCHEDULES[schedule](LOW), SCHEDULES[schedule](HIGH)
    noise = (x - now.alpha * point) / now.sigma
    np.testing.assert_allclose(end, after.alpha * point + after.sigma * noise, atol=1e-12)


def test_euler_product_formula():
    """Two trajectories on a Gaussian differ by prod(1 + h a(t_k)), a = (t s^2 - (1-t)) / sigma_t^2."""
    grid = np.linspace(0, 1, 11)
    x, y = starts(2), starts(2, seed=5)
    network = ROUND.network("velocity", SCHEDULES["linear"])
    apart = last("euler", network, x, grid) - last("euler", network, y, grid)
    square, t = np.diag(ROUND.cov), grid[:-1, None]
    a = (t * square - (1 - t)) / ((1 - t) ** 2 + t**2 * square)
    np.testing.assert_allclose(apart, (x - y) * np.prod(1 + 0.1 * a, 0), rtol=1e-13)


@schedules
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_samples_do_not_depend_on_the_prediction(schedule, prediction):
    grid = np.linspace(LOW, HIGH, 6)
    ends = [
        last(
            "heun",
            MIXTURE.network(kind, SCHEDULES[schedule]),
            starts(),
            grid,
            schedule=schedule,
            prediction=kind,
        )
        for kind in ("v", prediction)
    ]
    np.testing.assert_allclose(ends[0], ends[1], rtol=1e-10, atol=1e-10)


def test_samples_do_not_depend_on_the_schedule():
    """vp rescaled to linear at matching ratios alpha / sigma: the straight chart sees no difference."""
    vp, linear = SCHEDULES["vp"], SCHEDULES["linear"]
    grid = np.linspace(0.05, 0.9, 9)
    scales = vp(grid)
    matching = scales.alpha / (scales.alpha + scales.sigma)
    m = float((scales.alpha + scales.sigma)[0]), float((scales.alpha + scales.sigma)[-1])
    x = starts()
    end = last("rk4", MIXTURE.network("data", linear), x, matching, prediction="data")
    other = last(
        "rk4", MIXTURE.network("data", vp), x * m[0], grid, schedule="vp", prediction="data"
    )
    np.testing.assert_allclose(other / m[1], end, atol=1e-11)


# Calls, stops and frameworks


@every
def test_calls_are_counted(name):
    calls = []

    def network(x, t):
        calls.append(t)
        return -x

    states = list(
        flow(name, network, starts(3), np.linspace(0.1, 0.9, 6), draw=lambda k: starts(3))
    )
    assert len(states) == 5
    assert len(calls) == 5 * SOLVERS[name].calls + SOLVERS[name].extra
    assert 0.1 <= min(calls) <= max(calls) <= 0.9
    assert all(type(t) is float for t in calls)


@every
def test_no_call_after_an_early_stop(name):
    calls, draws = [], []

    def network(x, t):
        calls.append(t)
        return -x

    def draw(k):
        draws.append(k)
        return starts(3)

    run = flow(name, network, starts(3), np.linspace(0.1, 0.9, 6), draw=draw)
    assert not calls  # nothing happens before it is asked for
    next(run)
    next(run)
    run.close()
    assert len(calls) == 2 * SOLVERS[name].calls + SOLVERS[name].extra
    assert draws == ([0, 1] if SOLVERS[name].noisy else [])


@every
def test_the_start_is_left_alone(name):
    x = starts(3)
    list(flow(name, lambda x, t: -x, x, [0.1, 0.5, 0.9], draw=lambda k: starts(3)))
    np.testing.assert_array_equal(x, starts(3))


def frameworks(name):
    """(from float64 numpy, array type, dtype); torch and mlx are slow to import, so only here."""
    if name == "numpy":
        return lambda a: a.astype(np.float32), np.ndarray, np.float32
    if name == "torch":
        import torch

        return lambda a: torch.tensor(a, dtype=torch.float32), torch.Tensor, torch.float32
    import mlx.core as mx

    return lambda a: mx.array(a.astype(np.float32)), mx.array, mx.float32


@pytest.mark.parametrize(("name", "chart"), WAYS)
@pytest.mark.parametrize("framework", ["numpy", "torch", "mlx"])
@pytest.mark.parametrize("schedule", ["linear", "vp"])
def test_framework_and_dtype_are_kept(name, framework, schedule, chart):
    """The same float32 numbers come out of every framework, through `flow` and through the tableau."""
    make, kind, dtype = frameworks(framework)
    grid = np.linspace(0.1, 0.9, 4)
    options = {"schedule": schedule, "prediction": "v", "chart": chart}
    exact = last(
        name,
        lambda x, t: x * (-0.5 * t),
        starts(3),
        grid,
        draw=lambda k: starts(3, seed=k),
        **options,
    )

    def draw(k):
        return make(starts(3, seed=k))

    def network(x, t):
        assert isinstance(x, kind)
        assert x.dtype == dtype
        return x * (-0.5 * t)

    states = list(flow(name, network, make(starts(3)), grid, draw=draw, **options))
    table = trace(name, tuple(grid.tolist()), **options)
    states += [x for _, x in run(table, lambda x, t, on: network(x, t), make(starts(3)), draw)]
    assert len(states) == 6
    for x in states:
        assert isinstance(x, kind)
        assert x.dtype == dtype
    for x in (states[2], states[5]):
        np.testing.assert_allclose(np.asarray(x), exact, rtol=2e-5, atol=2e-5)


@every
def test_torch_device_and_gradients(name):
    import torch

    x = starts(3).astype(np.float32)
    grid = np.linspace(0.1, 0.9, 4)

    def end(network, x):
        return last(name, network, x, grid, draw=lambda k: torch.ones_like(x))

    with torch.no_grad():
        weight = torch.ones(1, requires_grad=True)
        assert not end(lambda x, t: x * weight, torch.tensor(x)).requires_grad
    assert torch.is_grad_enabled()
    assert end(lambda x, t: -x, torch.empty(3, 2, device="meta")).device.type == "meta"
    end(lambda x, t: x * weight, torch.tensor(x)).sum().backward()
    assert weight.grad is not None  # a caller who wants gradients gets them
