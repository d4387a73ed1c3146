import numpy as np
import pytest
from scipy.interpolate import CubicSpline, RectBivariateSpline

from runtimes.flow import flow
from runtimes.grids import GRIDS
from runtimes.schedules import SCHEDULES
from runtimes.solvers import SOLVERS
from runtimes.stochastic import DIFFUSIONS
from runtimes.tableau import combine
from runtimes.trace import trace

from .problems import MIXTURE, ROUND, Mixture, slope, starts

NOISY = [name for name, solver in SOLVERS.items() if solver.noisy]
FREE = [name for name, solver in SOLVERS.items() if solver.follows == "diffusion"]
schedules = pytest.mark.parametrize("schedule", SCHEDULES)
solvers = pytest.mark.parametrize("name", NOISY)
free = pytest.mark.parametrize("name", FREE)
diffusions = pytest.mark.parametrize("diffusion", DIFFUSIONS)
STEPS = {1: (64, 128, 256), 2: (256, 512)}  # EDM's churn is capped below 97 steps


def affine(name, schedule, grid, eta, problem=ROUND, diffusion="sigma"):
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
    options = {"schedule": schedule, "prediction": "v", "eta": eta, "diffusion": diffusion}
    *_, end = flow(name, network, x, grid, draw=draw, **options)
    units = end[1:] - end[0]
    return units[:dims].T, end[0], units[dims:]


def end_law(name, schedule, grid, eta, problem=ROUND, diffusion="sigma"):
    """Mean and covariance at the end, from the exact law at the start."""
    turn, shift, noises = affine(name, schedule, grid, eta, problem, diffusion)
    mean, cov = problem.law(*SCHEDULES[schedule](grid[0])[:2])
    return turn @ mean + shift, turn @ cov @ turn.T + noises.T @ noises


def assert_weak_order(name, schedule, eta, diffusion="sigma"):
    low, high, order = 0.1, 0.9, SOLVERS[name].order
    exact_mean, exact_cov = ROUND.law(*SCHEDULES[schedule](high)[:2])
    steps, means, covs = STEPS[order], [], []
    for n in steps:
        grid = np.linspace(low, high, n + 1)
        mean, cov = end_law(name, schedule, grid, eta, diffusion=diffusion)
        means.append(np.abs(mean - exact_mean).max())
        covs.append(np.abs(cov - exact_cov).max())
    assert slope(steps, covs) == pytest.approx(order, abs=0.1)
    # a step that starts from alpha data + sigma noise keeps the mean: no slope to fit to round-off
    assert max(means) < 1e-12 or slope(steps, means) == pytest.approx(order, abs=0.1)


@solvers
@schedules
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_weak_order_without_monte_carlo(name, schedule, eta):
    assert_weak_order(name, schedule, eta)


def test_one_step_by_hand():
    """From t = 0.25 over h = 0.04 with data 2 and noise -1: by default g^2 = 2 eta^2 sigma."""
    move = {"zero": 0.12, "constant": 0.12 + 0.04 * 0.25 / 0.75, "sigma": 0.12 + 0.04 * 0.25}
    move |= {"variance": 0.12 + 0.04 * 0.25 * 0.75, "bridge": 0.12 + 0.04 * 0.25 * 0.25}
    spread = {"zero": 0.0, "constant": 2.0, "sigma": 1.5, "variance": 1.125, "bridge": 0.375}
    assert set(move) == set(spread) == set(DIFFUSIONS)

    def end(z, **options):
        x = np.array([0.25 * 2 - 0.75])
        network, draw = (lambda x, t: x * 0 + 3.0), (lambda k: np.array([z]))
        options |= {"draw": draw, "eta": 0.5}
        (end,) = flow("euler_maruyama", network, x, [0.25, 0.29], **options)
        return float(end[0])

    for name in DIFFUSIONS:
        still = end(0.0, diffusion=name)
        assert still + 0.25 == pytest.approx(move[name], rel=1e-12)
        assert (end(1.0, diffusion=name) - still) ** 2 == pytest.approx(
            0.25 * spread[name] * 0.04, rel=1e-12
        )
    assert end(1.0) == end(1.0, diffusion="sigma")


@free
@diffusions
@pytest.mark.parametrize("schedule", ["linear", "vp"])
def test_weak_order_with_every_diffusion(name, diffusion, schedule):
    assert_weak_order(name, schedule, 0.8, diffusion)


# A nonlinear field, still without Monte Carlo: E cos(x_end) by u_k(state) = E u_{k+1}(step(state, z)),
# backwards over a fine grid of states, the expectations over z as Gauss-Hermite sums

LINE = Mixture(np.array([[-1.1], [0.2], [1.3]]))
ONE_STATE = [name for name in NOISY if name not in ("sde_dpmpp_2m", "edm_churn")]
ETAS = pytest.mark.parametrize("eta", [0.5, 1.0])


def gauss_hermite(count):
    nodes, weights = np.polynomial.hermite_e.hermegauss(count)
    return nodes, weights / weights.sum()


def assert_weak_order_on_the_line(name, expected):
    """expected(grid) -> E cos(x_end) from the exact law at grid[0], against its closed form."""
    low, high, steps = 0.1, 0.9, (32, 64)
    variance = high**2 * LINE.variance + (1 - high) ** 2
    exact = np.mean(np.cos(high * LINE.means)) * np.exp(-0.5 * variance)
    errors = [abs(expected(np.linspace(low, high, n + 1)) - exact) for n in steps]
    assert slope(steps, errors) == pytest.approx(SOLVERS[name].order, abs=0.1)


def over_the_law(x, u, t):
    density = np.exp(LINE.log_density(x[:, None], t, 1 - t))
    return density @ u * (x[1] - x[0])


@pytest.mark.parametrize("name", ONE_STATE)
@ETAS
def test_weak_order_on_a_mixture(name, eta):
    x, (nodes, weights) = np.linspace(-7, 7, 601), gauss_hermite(12)
    many, z = np.tile(x, 12)[:, None], np.repeat(nodes, len(x))[:, None]
    network, options = LINE.network("v", SCHEDULES["linear"]), {"prediction": "v", "eta": eta}

    def expected(grid):
        u = np.cos(x)
        for t, s in zip(grid[-2::-1], grid[:0:-1], strict=True):
            (end,) = flow(name, network, many, [t, s], draw=lambda k: z, **options)
            u = weights @ CubicSpline(x, u)(np.clip(end[:, 0], -7, 7)).reshape(12, -1)
        return over_the_law(x, u, grid[0])

    assert_weak_order_on_the_line(name, expected)


@ETAS
def test_weak_order_of_the_multistep_solver_on_a_mixture(eta):
    """Its state is (x, data of the step before): the two slots of its tableau, hence a plane."""
    x, data, (nodes, weights) = (
        np.linspace(-7, 7, 121),
        np.linspace(-2.6, 2.6, 41),
        gauss_hermite(6),
    )
    plane = [axis.ravel() for axis in np.meshgrid(x, data, indexing="ij")]
    network, line = LINE.network("data", SCHEDULES["linear"]), np.linspace(-7, 7, 601)

    def step(row, slots, u):
        out = network(combine(row.input, slots)[:, None], row.time)[:, 0]
        return sum(
            weight * u(*(combine(w, [*slots, out, z + 0 * out]) for w in row.update))
            for z, weight in zip(nodes, weights, strict=True)
        )

    def expected(grid):
        rows = trace("sde_dpmpp_2m", tuple(grid.tolist()), prediction="data", eta=eta).rows
        u = np.cos
        for row in rows[:0:-1]:
            spline = RectBivariateSpline(x, data, step(row, plane, u).reshape(121, 41))
            u = lambda a, b, of=spline.ev: of(np.clip(a, -7, 7), np.clip(b, -2.6, 2.6))  # noqa: E731
        return over_the_law(line, step(rows[0], [line], u), grid[0])

    assert_weak_order_on_the_line("sde_dpmpp_2m", expected)


@solvers
@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("eta", [0.5, 1.0, 2.0])
def test_the_final_law_is_that_of_the_data(name, schedule, eta):
    assert_law_of_the_data(name, schedule, eta)


@free
@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("diffusion", [*DIFFUSIONS, lambda scales: 3 * float(scales.alpha)])
def test_every_diffusion_has_the_same_marginals(name, schedule, diffusion):
    assert_law_of_the_data(name, schedule, 1.0, diffusion)


def assert_law_of_the_data(name, schedule, eta, diffusion="sigma"):
    """Over the whole path, and closer with more steps."""
    apart = []
    for n in (100, 400):
        mean, cov = end_law(name, schedule, np.linspace(0, 1, n + 1), eta, diffusion=diffusion)
        apart.append(max(np.abs(mean - ROUND.mean).max(), np.abs(cov - ROUND.cov).max()))
    assert apart[1] < apart[0] / 2
    assert apart[1] < 0.1


EXACT_FOR_A_POINT = [name for name in NOISY if name not in FREE]


@pytest.mark.parametrize("name", EXACT_FOR_A_POINT)
@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0, 3.0, 10.0])
@schedules
def test_the_noise_level_of_a_known_point_is_kept(name, eta, schedule):
    """Data that is one point: any eta must give exactly the law alpha point + sigma N(0, I)."""
    low, high, point = 0.1, 0.8, np.array([0.4, -0.3])
    rule = SCHEDULES[schedule]
    x = np.vstack([np.zeros(2), np.eye(2), np.zeros((4, 2))])

    def draw(k):
        z = np.zeros_like(x)
        z[3 + k] = [1.0, 0.0]
        return z

    *_, end = flow(
        name,
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


QUIET = {  # eta = 0: the deterministic solver each becomes, and its chart
    "euler_maruyama": ("euler", "path"),
    "stochastic_heun": ("heun", "path"),
    "ancestral": ("euler", "straight"),
    "sde_dpmpp_2m": ("dpmpp_2m", "straight"),
    "edm_churn": ("edm_heun", "straight"),
    "langevin": ("euler", "noise"),
}


@pytest.mark.parametrize("name", QUIET)
@schedules
def test_the_deterministic_limit(name, schedule):
    grid = np.linspace(0.05, 0.95, 9)
    options = {"schedule": schedule, "prediction": "v"}
    network = MIXTURE.network("v", SCHEDULES[schedule])
    solver, chart = QUIET[name]
    loud = list(flow(solver, network, starts(), grid, chart=chart, **options))
    quiet = list(flow(name, network, starts(), grid, eta=0.0, **options))
    np.testing.assert_allclose(quiet, loud, atol=1e-12)


@free
@diffusions
def test_a_diffusion_of_zero_is_the_deterministic_limit(name, diffusion):
    network, grid = MIXTURE.network("v", SCHEDULES["vp"]), np.linspace(0.05, 0.95, 5)
    options = {"schedule": "vp", "prediction": "v", "draw": lambda k: starts(seed=k)}
    ends = [
        list(flow(name, network, starts(), grid, eta=eta, diffusion=g, **options))
        for eta, g in ((0.0, diffusion), (1.0, "zero"), (1.0, lambda scales: 0.0))
    ]
    np.testing.assert_array_equal(ends[0], ends[1])
    np.testing.assert_array_equal(ends[0], ends[2])


@free
@pytest.mark.parametrize("square", [-1e-9, float("nan"), float("inf")])
def test_a_diffusion_that_is_none(name, square):
    with pytest.raises(
        ValueError, match=r"diffusion: expected a finite g\^2 >= 0, got .* t = 0.25"
    ):
        list(
            flow(
                name,
                lambda x, t: -x,
                starts(),
                [0.1, 0.25, 0.4, 0.6],
                draw=lambda k: starts(seed=k),
                diffusion=lambda scales: square if scales.alpha == 0.25 else 1.0,
            )
        )


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


@free
@schedules
@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_strong_order(name, schedule, eta):
    """Additive noise: order 1 along the same Brownian path, coarse increments = sums of fine ones."""
    finest, low, high, paths = 2048, 0.1, 0.9, 256
    fine = np.random.default_rng(2).standard_normal((finest, paths, 2))
    network = MIXTURE.network("v", SCHEDULES[schedule])

    def end(n):
        group = finest // n
        options = {"schedule": schedule, "prediction": "v", "eta": eta}
        *_, x = flow(
            name,
            network,
            starts(paths),
            np.linspace(low, high, n + 1),
            draw=lambda k: fine[k * group : (k + 1) * group].sum(0) / np.sqrt(group),
            **options,
        )
        return x

    exact, steps = end(finest), (16, 32, 64)
    errors = [np.sqrt(np.mean((end(n) - exact) ** 2)) for n in steps]
    assert slope(steps, errors) == pytest.approx(1, abs=0.1)


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
    ("name", "eta"),
    [
        *[(name, eta) for name in EXACT_FOR_A_POINT for eta in (0.3, 1.0)],
        *[(n, 0.0) for n in FREE],
    ],
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


# Whole paths: alpha = 0 at one end, sigma = 0 and infinite rates at the other


@solvers
@schedules
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("eta", [0.0, 1.0, 10.0])
def test_the_whole_path_is_finite(name, schedule, grid, eta):
    network = MIXTURE.network("v", SCHEDULES[schedule])
    for steps in (1, 2, 12):
        times = GRIDS[grid](steps, SCHEDULES[schedule])
        options = {"schedule": schedule, "prediction": "v", "eta": eta}
        states = list(
            flow(name, network, starts(), times, draw=lambda k: starts(seed=k), **options)
        )
        assert len(states) == steps
        assert np.isfinite(states).all()


# calls that 6 steps over the whole path take: at full strength and without noise
CALLS = {
    "euler_maruyama": (6, 6),
    "stochastic_heun": (11, 11),  # none at sigma = 0
    "ancestral": (6, 6),
    "sde_dpmpp_2m": (6, 6),
    "edm_churn": (10, 10),  # nor a second one from alpha = 0
    "langevin": (11, 6),  # and a corrector that does nothing is not computed
}


@solvers
def test_calls_over_the_whole_path(name):
    for eta, count in zip((1.0, 0.0), CALLS[name], strict=True):
        calls = []

        def network(x, t, calls=calls):
            calls.append(t)
            return -x

        draw, grid = (lambda k: starts(2, seed=k)), np.linspace(0, 1, 7)
        list(flow(name, network, starts(2), grid, draw=draw, eta=eta))
        assert len(calls) == count
        assert max(calls) < 1.0


def test_churn_lifts_the_noise_ratio_within_its_limits():
    """It at most doubles the variance, from 0.05 to 50 only, never above the start (Karras et al. 2022)."""
    ratios = np.array([60.0, 55.0, 45.0, 44.0, 1.0, 0.3, 0.06, 0.04, 0.01])
    grid, calls, drawn = 1 / (1 + ratios), [], []

    def network(x, t):
        calls.append(1 / t - 1)
        return -x

    def draw(k):
        drawn.append(k)
        return starts(2)

    list(flow("edm_churn", network, starts(2), grid, draw=draw))
    assert drawn == [1, 2, 3, 4, 5]
    lifted = ratios[:-1] * [1, 1, 0, 0, *[2**0.5] * 3, 1]
    lifted[2:4] = 60.0
    np.testing.assert_allclose(calls[::2], lifted, rtol=1e-12)
    np.testing.assert_allclose(calls[1::2], ratios[1:], rtol=1e-12)
    calls.clear()
    list(flow("edm_churn", network, starts(2), grid, draw=draw, eta=0.02))
    lifted = ratios[:-1] * [1, 1, 1.1, 1.1, 1.1, 1.1, 1.1, 1]  # 40 * 0.02 over 8 steps
    np.testing.assert_allclose(calls[::2], lifted, rtol=1e-12)


def test_langevin_corrects_by_the_score():
    """x + epsilon score + sqrt(2 epsilon) z to first order in epsilon, after one step of DDIM."""
    rule, t, s, z = SCHEDULES["cosine"], 0.6, 0.6001, starts(seed=9)
    options = {"schedule": "cosine", "prediction": "score"}
    network = MIXTURE.network("score", rule)
    (ddim,) = flow("euler", network, starts(), [t, s], **options)
    (moved,) = flow("langevin", network, starts(), [t, s], draw=lambda k: z, **options)
    (still,) = flow("langevin", network, starts(), [t, s], draw=lambda k: z * 0, **options)
    score = MIXTURE.score(ddim, *(float(value) for value in rule(s)[:2]))
    epsilon = np.mean((still - ddim) / score)
    np.testing.assert_allclose(still - ddim, epsilon * score, rtol=1e-7)
    np.testing.assert_allclose(moved - still, np.sqrt(2 * epsilon) * z, rtol=1e-3)
    # the continuous limit: sigma^2 times the step of log(alpha / sigma)
    clock = np.log(np.tan(np.pi / 2 * s)) - np.log(np.tan(np.pi / 2 * t))
    assert epsilon == pytest.approx(np.cos(np.pi / 2 * s) ** 2 * clock, rel=1e-3)
