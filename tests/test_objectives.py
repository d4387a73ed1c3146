"""The target is what its name says, the loss is finite, and its minimum is the known one."""

from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
import torch

import runtimes
from export import TorchModel
from runtimes.predictions import PREDICTIONS
from runtimes.schedules import SCHEDULES
from tests.problems import TILTED, edm_factors
from toolkit import objectives, train_torch
from toolkit.data import load
from toolkit.paths import TIME_DRAWS
from toolkit.recipe import default_recipe

# quadrature over t in (0, 1), away from the ends where a float32 number of a target overflows
NODES, QUADRATURE = np.polynomial.legendre.leggauss(40)
NODES, QUADRATURE = 0.5 + 0.5 * NODES, 0.5 * QUADRATURE


def pair(n=64, shape=(3,), seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, *shape)), rng.standard_normal((n, *shape))


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_velocity_target_is_the_slope_of_the_path(schedule):
    data, noise = pair()
    times = np.linspace(0.05, 0.95, 64)
    before, now, after = (
        objectives.row(times + h, schedule, "velocity", 2) for h in (-1e-2, 0.0, 1e-2)
    )
    wide = [objectives.row(times + h, schedule, "velocity", 2) for h in (-2e-2, 2e-2)]
    slope = objectives.point(after, data, noise) - objectives.point(before, data, noise)
    slope2 = objectives.point(wide[1], data, noise) - objectives.point(wide[0], data, noise)
    slope = (8 * slope - slope2) / (12 * 1e-2)  # error of order h^4
    target = objectives.target(now, data, noise)
    assert np.abs(slope - target).max() < 2e-3 * np.abs(target).max()


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_other_targets_are_what_their_names_say(schedule):
    data, noise = pair()
    times = np.linspace(0.05, 0.95, 64)

    def wanted(kind):
        return objectives.target(objectives.row(times, schedule, kind, 2), data, noise)

    row = objectives.row(times, schedule, "noise", 2)
    x = objectives.point(row, data, noise)
    np.testing.assert_array_equal(wanted("noise"), noise)
    np.testing.assert_array_equal(wanted("data"), data)
    # grad_x log N(x; alpha data, sigma^2), and the rotation of (data, noise) by a quarter turn
    np.testing.assert_allclose(wanted("score"), -(x - row.alpha * data) / row.sigma**2, atol=2e-4)
    np.testing.assert_allclose(wanted("v"), row.alpha * noise - row.sigma * data, atol=1e-12)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_every_number_is_finite_for_any_time(schedule, prediction):
    times = np.array([np.nextafter(0, 1), 1e-9, 0.5, 1 - 1e-9, np.nextafter(1, 0)])
    row = objectives.row(times, schedule, prediction, 4)
    for name, values in vars(row).items():
        assert values.dtype == np.float32
        assert values.shape == ((5,) if name == "time" else (5, 1, 1, 1))
        assert np.isfinite(values).all(), name
    data, noise = pair(5, (2, 2, 1))
    wanted = objectives.target(row, data, noise)
    assert 0.0 < objectives.loss(row, 0.0 * wanted, wanted) < 1e3


def test_times_keep_off_an_end_only_where_the_target_is_infinite():
    times = np.array([1e-6, 0.3, 1 - 1e-6])
    for schedule in SCHEDULES:
        kept = objectives.inside(times, schedule, "score")
        assert kept.tolist() == [1e-6, 0.3, 0.999]
        for kind in ("noise", "data", "v"):
            assert objectives.inside(times, schedule, kind).tolist() == times.tolist()
    assert objectives.inside(times, "linear", "velocity").tolist() == times.tolist()
    for schedule in ("vp", "discrete", "stable_diffusion"):
        assert objectives.inside(times, schedule, "velocity").tolist() == [1e-6, 0.3, 0.999]
    for schedule in ("edm", "polynomial", "shifted"):
        assert objectives.inside(times, schedule, "velocity").tolist() == times.tolist()
    kept = objectives.inside(times, "polynomial(0.5)", "velocity")
    assert kept.tolist() == [0.001, 0.3, 1 - 1e-6]


def test_score_is_weighted_like_the_noise():
    """sigma^2 |score - s|^2 = |noise - n|^2 where n = -sigma s."""
    data, noise = pair()
    times = np.linspace(0.01, 0.99, 64)
    row = objectives.row(times, "cosine", "score", 2)
    guess = np.random.default_rng(1).standard_normal(noise.shape)
    mine = objectives.loss(row, -guess / row.sigma, objectives.target(row, data, noise))
    assert mine == pytest.approx(((guess - noise) ** 2).mean(), rel=1e-5)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_edm_loss_is_that_of_the_paper(schedule):
    """Karras et al. 2022, eq. 8 with table 1: lambda |D(y) - data|^2, D = c_skip y + c_out F(c_in y),
    lambda = (level^2 + 0.25) / (0.5 level)^2, y = data + level noise."""
    data, noise = pair()
    times = np.linspace(0.05, 0.95, 64)
    row = objectives.row(times, schedule, "edm", 2)
    alpha, sigma = (value[:, None] for value in SCHEDULES[schedule](times)[:2])
    level = sigma / alpha
    skip, out, show = edm_factors(level)
    y = data + level * noise
    np.testing.assert_allclose(objectives.point(row, data, noise), show * y, rtol=2e-6, atol=1e-6)
    answer = np.random.default_rng(1).standard_normal(data.shape)
    theirs = (level**2 + 0.25) / (0.5 * level) ** 2 * (skip * y + out * answer - data) ** 2
    mine = objectives.loss(row, answer, objectives.target(row, data, noise))
    assert mine == pytest.approx(theirs.mean(), rel=1e-5)


def test_velocity_and_v_are_weighted_down_where_the_noise_is_above_one():
    """On `edm` only: sigma runs from 80 to 0 and crosses 1 on the way; all others stay below."""
    times = np.linspace(0, 1, 9)
    for kind in ("velocity", "v"):
        for schedule in SCHEDULES:
            weight = objectives.row(times, schedule, kind, 1).weight
            sigma = np.maximum(SCHEDULES["edm"](times).sigma, 1) if schedule == "edm" else 1.0
            np.testing.assert_allclose(weight * sigma**2, np.ones(9), rtol=1e-6)


def test_only_edm_scales_what_the_network_is_shown():
    times = np.linspace(0.1, 0.9, 5)
    for kind in PREDICTIONS:
        shown = objectives.row(times, "shifted(2)", kind, 1).input
        assert (shown == 1).all() == (kind != "edm")


@pytest.mark.parametrize("schedule", [*SCHEDULES, "polynomial(3)", "discrete(0.1, 0.3, 0.9)"])
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_a_few_steps_of_training_are_finite(schedule, prediction):
    data, rng = torch.tensor(pair(32)[0], dtype=torch.float32), np.random.default_rng(6)
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.SiLU(), torch.nn.Linear(16, 3))
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-2)
    losses = []
    for _ in range(20):
        row = objectives.row(rng.uniform(size=32), schedule, prediction, 2).to(torch.from_numpy)
        noise = torch.randn(32, 3)
        shown = torch.cat([objectives.point(row, data, noise), row.time[:, None]], 1)
        loss = objectives.loss(row, network(shown), objectives.target(row, data, noise))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert np.isfinite(losses).all()
    assert all(torch.isfinite(weight).all() for weight in network.parameters())


def test_numbers_of_a_schedule_reach_the_recipe_the_spec_and_the_samples(tmp_path):
    data = load("two-moons")
    recipe = replace(default_recipe(data), width=16, depth=1, steps=3, batch=32, warmup=0)
    recipe = replace(recipe, schedule="polynomial(3)", prediction="edm")
    assert len(list(train_torch.train(recipe, data, tmp_path))) == 3
    module, spec = train_torch.load(tmp_path)
    assert (spec.schedule, spec.prediction) == ("polynomial(3)", "edm")
    assert np.isfinite(runtimes.sample(TorchModel(spec, module), 4, steps=3)).all()


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_exact_field_has_the_least_loss(prediction):
    """The posterior mean minimises the mean square: any step away from it costs |step|^2."""
    rng = np.random.default_rng(2)
    times = rng.uniform(0.05, 0.95, 4000)
    data = rng.multivariate_normal(TILTED.mean, TILTED.cov, 4000)
    noise = rng.standard_normal((4000, 3))
    row = objectives.row(times, "linear", prediction, 2)
    x = objectives.point(row, data, noise) / row.input
    wanted = objectives.target(row, data, noise)
    exact = np.concatenate(
        [
            TILTED.output(prediction, x[i : i + 1], SCHEDULES["linear"](t))
            for i, t in enumerate(times)
        ]
    )
    least = objectives.loss(row, exact, wanted)
    for worse in (1.1 * exact, 0.9 * exact, exact + 0.2):
        assert objectives.loss(row, worse, wanted) > least


def test_best_linear_loss_is_the_minimum_for_gaussian_data():
    """Against quadrature of the exact posterior variance of data - noise, dimension by dimension."""
    deviations = np.array([0.3, 1.0, 1.7])
    rng = np.random.default_rng(3)
    draws = rng.standard_normal((4000, 3))
    draws = (draws - draws.mean(0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(draws.T))).T
    data = (draws * deviations).astype(np.float32)  # sample covariance exactly diag(deviations^2)
    variance = 1.0 / ((1 - NODES[:, None]) ** 2 / deviations**2 + NODES[:, None] ** 2)
    minimum = (QUADRATURE @ variance).mean()
    assert objectives.best_linear_loss(data) == pytest.approx(minimum, rel=1e-4)


@pytest.mark.parametrize("name", TIME_DRAWS)
def test_same_loss_on_numpy_torch_and_mlx(name):
    data, noise = (values.astype(np.float32) for values in pair(8, (4, 4, 2)))
    times = TIME_DRAWS[name](8, np.random.default_rng(4))
    losses = []
    for array in (np.asarray, torch.from_numpy, mx.array):
        row = objectives.row(times, "cosine", "velocity", 4).to(array)
        x = objectives.point(row, array(data), array(noise))
        value = objectives.loss(row, x, objectives.target(row, array(data), array(noise)))
        assert type(x) is type(array(data))
        assert x.dtype == array(data).dtype
        losses.append(float(value))
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-6)
