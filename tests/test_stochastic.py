import numpy as np
import pytest

from runtimes.flow import flow
from runtimes.schedules import SCHEDULES
from runtimes.solvers import SOLVERS

from .problems import MIXTURE, ROUND, slope, starts

NOISY = [name for name, solver in SOLVERS.items() if solver.noisy]
schedules = pytest.mark.parametrize("schedule", SCHEDULES)
solvers = pytest.mark.parametrize("name", NOISY)


def affine(name, schedule, grid, eta, problem=ROUND):
    """The whole run as x_end = A x + b + sum_k F_k z_k, read off exactly by probing it.

    One batch: a row of zeros, one row per unit of x and one per unit of every step's noise.
    """
    dims, steps = len(problem.mean), len(grid) - 1
    x = np.zeros((1 + dims + steps * dims, dims))
    x[1 : 1 + dims] = np.eye(dims)

    def draw(k):
        z = np.zeros_like(x)
        first = 1 + dims + k * dims
        z[first : first + dims] = np.eye(dims)
        return z

    network = problem.network("v", SCHEDULES[schedule])
    options = {"schedule": schedule, "prediction": "v", "eta": eta}
    *_, end = flow(name, network, x, grid, draw=draw, **options)
    units = end[1:] - end[0]
    return units[:dims].T, end[0], units[dims:]


def end_law(name, schedule, grid, eta, problem=ROUND):
    """Mean and covariance at the end, from the exact law at the start."""
    turn, shift, noises = affine(name, schedule, grid, eta, problem)
    mean, cov = problem.law(*SCHEDULES[schedule](grid[0])[:2])
    return turn @ mean + shift, turn @ cov @ turn.T + noises.T @ noises


@solvers
@schedules
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_weak_order_without_monte_carlo(name, schedule, eta):
    low, high = 0.1, 0.9
    exact_mean, exact_cov = ROUND.law(*SCHEDULES[schedule](high)[:2])
    steps, means, covs = (64, 128, 256), [], []
    for n in steps:
        mean, cov = end_law(name, schedule, np.linspace(low, high, n + 1), eta)
        means.append(np.abs(mean - exact_mean).max())
        covs.append(np.abs(cov - exact_cov).max())
    assert slope(steps, covs) == pytest.approx(SOLVERS[name].order, abs=0.1)
    # the ancestral step keeps the mean exactly: no slope to fit to round-off
    assert max(means) < 1e-12 or slope(steps, means) == pytest.approx(1, abs=0.1)


@solvers
@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("eta", [0.5, 1.0, 2.0])
def test_the_final_law_is_that_of_the_data(name, schedule, eta):
    """Over the whole path, and closer with more steps."""
    apart = []
    for n in (100, 400):
        mean, cov = end_law(name, schedule, np.linspace(0, 1, n + 1), eta)
        apart.append(max(np.abs(mean - ROUND.mean).max(), np.abs(cov - ROUND.cov).max()))
    assert apart[1] < apart[0] / 2
    assert apart[1] < 0.1


@pytest.mark.parametrize("eta", [1.0, 3.0, 10.0])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_ancestral_keeps_the_noise_level_of_a_known_point(eta, schedule):
    """Data that is one point: any eta must give exactly the law alpha point + sigma N(0, I)."""
    low, high, point = 0.1, 0.8, np.array([0.4, -0.3])
    rule = SCHEDULES[schedule]
    x = np.vstack([np.zeros(2), np.eye(2), np.zeros((4, 2))])

    def draw(k):
        z = np.zeros_like(x)
        z[3 + k] = [1.0, 0.0]
        return z

    *_, end = flow(
        "ancestral",
        lambda x, t: x * 0 + point,
        x,
        np.linspace(low, high, 5),
        schedule=schedule,
        prediction="data",
        draw=draw,
        eta=eta,
    )
    start, after = rule(low), rule(high)
    units = (end[1:] - end[0])[:, 0]
    variance = units[0] ** 2 * start.sigma**2 + np.sum(units[2:] ** 2)
    assert variance == pytest.approx(after.sigma**2, rel=1e-12)
    mean = end[0] + (end[1:3] - end[0]).T @ (start.alpha * point)
    np.testing.assert_allclose(mean, after.alpha * point, atol=1e-12)


@schedules
def test_ancestral_is_ddim_without_noise(schedule):
    grid = np.linspace(0.05, 0.95, 9)
    options = {"schedule": schedule, "prediction": "v"}
    network = MIXTURE.network("v", SCHEDULES[schedule])
    ddim = list(flow("euler", network, starts(), grid, **options))
    quiet = list(flow("ancestral", network, starts(), grid, eta=0.0, **options))
    np.testing.assert_allclose(quiet, ddim, atol=1e-12)


def test_ancestral_is_ddpm_at_full_strength():
    """The posterior of x_s given x_t and the data, by Bayes' rule on two Gaussians."""
    now, after = SCHEDULES["vp"](0.4), SCHEDULES["vp"](0.5)
    data, x = np.array([[0.3, -0.8]]), starts(1)
    # x_t = ratio x_s + sqrt(rest) z, and x_s ~ N(alpha_s data, sigma_s^2)
    ratio = now.alpha / after.alpha
    rest = now.sigma**2 - ratio**2 * after.sigma**2
    variance = 1 / (1 / after.sigma**2 + ratio**2 / rest)
    mean = variance * (after.alpha * data / after.sigma**2 + ratio * x / rest)
    for z in (np.zeros((1, 2)), np.ones((1, 2))):
        (got,) = flow(
            "ancestral",
            lambda x, t: data,
            x,
            [0.4, 0.5],
            schedule="vp",
            prediction="data",
            draw=lambda k, z=z: z,
        )
        np.testing.assert_allclose(got, mean + np.sqrt(variance) * z, rtol=1e-12)


@schedules
@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_strong_order_of_euler_maruyama(schedule, eta):
    """Additive noise: order 1 along the same Brownian path, coarse increments = sums of fine ones."""
    finest, low, high, paths = 1024, 0.1, 0.9, 128
    fine = np.random.default_rng(2).standard_normal((finest, paths, 2))
    network = MIXTURE.network("v", SCHEDULES[schedule])

    def end(n):
        group = finest // n
        options = {"schedule": schedule, "prediction": "v", "eta": eta}
        *_, x = flow(
            "euler_maruyama",
            network,
            starts(paths),
            np.linspace(low, high, n + 1),
            draw=lambda k: fine[k * group : (k + 1) * group].sum(0) / np.sqrt(group),
            **options,
        )
        return x

    exact, steps = end(finest), (16, 32, 64)
    errors = [np.sqrt(np.mean((end(n) - exact) ** 2)) for n in steps]
    assert slope(steps, errors) == pytest.approx(1, abs=0.15)


@solvers
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_noise_is_drawn_only_where_it_is_used(name, eta):
    drawn = []

    def draw(k):
        drawn.append(k)
        return starts(2)

    list(flow(name, lambda x, t: -x, starts(2), np.linspace(0, 1, 5), draw=draw, eta=eta))
    assert drawn == ([0, 1, 2] if eta else [])  # none onto sigma = 0


@pytest.mark.parametrize(
    ("name", "eta"), [("ancestral", 1.0), ("ancestral", 0.3), ("euler_maruyama", 0.0)]
)
def test_no_noise_is_left_at_the_data(name, eta):
    """With the exact velocity towards one point, the last state is that point, whatever was drawn."""
    point = np.array([0.4, -0.3])
    *_, end = flow(
        name,
        lambda x, t: (point - x) / (1 - t),
        starts(),
        np.linspace(0, 1, 9),
        draw=lambda k: starts(seed=k),
        eta=eta,
    )
    np.testing.assert_allclose(end, np.broadcast_to(point, end.shape), atol=1e-12)
