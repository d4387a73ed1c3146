from itertools import pairwise

import numpy as np
import pytest

import runtimes
from runtimes.guidance import autoguided, check, guided, mixed, plus_plus, spread
from runtimes.noise import noise, seed_rows
from runtimes.schedules import SCHEDULES
from runtimes.spec import Condition, Spec
from runtimes.tableau import run
from runtimes.trace import trace

from .problems import MIXTURE, TILTED, Gaussian, Mixture, starts

X = starts(5)
LABEL, NULL = np.arange(5), np.full(5, 9)


def counted(rows):
    """A network that notes how many rows it is asked for and answers something nonlinear."""

    def network(x, t, condition):
        rows.append(len(x))
        return np.tanh(x * t) + condition[:, None] ** 2

    return network


@pytest.mark.parametrize("weight", [0.0, 1.0, 2.5, -3.0])
def test_uncond_plus_w_times_the_difference(weight):
    rows = []
    network = counted(rows)
    cond, uncond = network(X, 0.4, LABEL), network(X, 0.4, NULL)
    out = guided(network, LABEL, NULL, weight, np.concatenate)(X, 0.4, True)
    np.testing.assert_allclose(out, uncond + weight * (cond - uncond), rtol=1e-13)
    assert rows == [5, 5, 10]


def test_off_is_one_plain_call():
    rows = []
    network = counted(rows)
    out = guided(network, LABEL, NULL, 7.0, np.concatenate)(X, 0.4, False)
    np.testing.assert_array_equal(out, network(X, 0.4, LABEL))
    assert rows == [5, 5]


def test_without_a_condition():
    call = guided(lambda x, t, condition: (x, t, condition), None, None, 1.0, np.concatenate)
    assert call("x", 0.5, False) == ("x", 0.5, None)


def test_rows_of_a_run_outside_the_interval_are_plain():
    rows = []
    call = guided(counted(rows), LABEL, NULL, 2.0, np.concatenate)
    table = trace("euler", (0.0, 0.25, 0.5, 0.75, 1.0), guided=(0.2, 0.6))
    list(run(table, call, X))
    assert rows == [5, 10, 10, 5]


def test_combining_before_conversion_is_combining_after_it():
    """Guidance of the velocity is guidance of the data and noise it implies: conversions are linear."""
    from runtimes.predictions import ends
    from runtimes.schedules import SCHEDULES

    at = ends("velocity", SCHEDULES["cosine"](0.4))
    cond, uncond = starts(5, seed=1), starts(5, seed=2)
    both = uncond + 3.0 * (cond - uncond)
    data = [X * at.data_x + p * at.data_p for p in (cond, uncond, both)]
    np.testing.assert_allclose(data[1] + 3.0 * (data[0] - data[1]), data[2], rtol=1e-12)


class Labelled:
    """Label 0 is one law, the null label 1 another; float64 inside."""

    def __init__(self, cond, uncond, **words):
        self.laws = (cond, uncond)
        self.spec = Spec("pair", (2,), condition=Condition("label", classes=1), **words)

    def network(self, x, t, condition):
        scales = SCHEDULES[self.spec.schedule](t)
        outs = [law.output(self.spec.prediction, x.astype(float), scales) for law in self.laws]
        return np.where((condition == 0)[:, None], *outs)


class Bare(Labelled):
    """One law, no condition."""

    def __init__(self, law, dims=3):
        self.law, self.spec = law, Spec("bare", (dims,))

    def network(self, x, t, condition):
        return self.law.output("velocity", x.astype(float), SCHEDULES["linear"](t))


NARROW = Mixture(means=MIXTURE.means[:2])


@pytest.mark.parametrize(
    ("schedule", "prediction"), [("linear", "velocity"), ("cosine", "noise"), ("vp", "data")]
)
@pytest.mark.parametrize("strength", [0.0, 0.6, 1.0])
def test_cfgpp_is_ddim_with_guided_data_and_unconditional_noise(schedule, prediction, strength):
    """Algorithm 2 of Chung et al. as it stands there, against Euler under the weight of `plus_plus`."""
    rule, times = SCHEDULES[schedule], (0.02, 0.2, 0.5, 0.6, 0.99)
    x = starts(6)
    model = Labelled(NARROW, MIXTURE, schedule=schedule, prediction=prediction)
    for t, s in pairwise(times):
        now, after = rule(t), rule(s)
        (cond, _), (uncond, noise_of) = (
            law.posterior(x, now.alpha, now.sigma) for law in (NARROW, MIXTURE)
        )
        x = after.alpha * (uncond + strength * (cond - uncond)) + after.sigma * noise_of
    table = trace("euler", times, schedule=schedule, prediction=prediction, guided=(0, 1))
    weight = plus_plus(strength, times, rule)
    call = guided(model.network, np.zeros(6, int), np.ones(6, int), weight, np.concatenate)
    *_, (_, end) = run(table, call, starts(6))
    np.testing.assert_allclose(end, x, rtol=1e-10)


def test_cfgpp_in_a_sample_goes_down_to_the_last_interval():
    """Its weight there is the strength itself: the data is clean, so no noise is left to replace."""
    model, n = Labelled(NARROW, MIXTURE), 5
    x = noise(seed_rows(3, n), (2,), 0).astype(float)
    grid = [0.0, 0.3, 0.8, 1.0]
    for t, s in pairwise(grid):
        (cond, _), (uncond, noise_of) = (law.posterior(x, t, 1 - t) for law in (NARROW, MIXTURE))
        x = s * (uncond + 0.4 * (cond - uncond)) + (1 - s) * noise_of
    got = runtimes.sample(model, n, label=0, cfgpp=0.4, grid=grid, solver="euler", seed=3)
    np.testing.assert_allclose(got, x, atol=1e-5)


def test_rescaled_has_the_spread_of_the_unguided_prediction():
    cond, uncond = (starts(4, 12, seed).reshape(4, 2, 3, 2) + seed for seed in (1, 2))
    full, none, half = (mixed(cond, uncond, 5.0, r) for r in (1.0, 0.0, 0.5))
    np.testing.assert_allclose(spread(full), cond.std((1, 2, 3), keepdims=True), rtol=1e-10)
    np.testing.assert_allclose(none, uncond + 5.0 * (cond - uncond), rtol=1e-12)
    np.testing.assert_allclose(half, 0.5 * (full + none), rtol=1e-12)
    ratio = full / none  # one positive factor for each sample
    np.testing.assert_allclose(ratio, np.broadcast_to(ratio[:, :1, :1, :1], ratio.shape))
    assert (ratio > 0).all()


def test_a_prediction_without_spread_is_left_alone():
    flat = np.full((2, 5), 3.0)
    np.testing.assert_allclose(mixed(flat, flat, 4.0, 1.0), flat)


def test_rescaling_is_the_same_in_every_framework():
    mx, torch = pytest.importorskip("mlx.core"), pytest.importorskip("torch")
    pair = [starts(3, 8, seed).astype(np.float32).reshape(3, 2, 4) for seed in (1, 2)]
    expected = mixed(*pair, 3.0, 0.7)
    for put in (torch.from_numpy, mx.array):
        got = mixed(*(put(one) for one in pair), 3.0, 0.7)
        assert type(got) is type(put(pair[0]))
        np.testing.assert_allclose(np.asarray(got), expected, rtol=1e-5)


@pytest.mark.parametrize("weight", [0.0, 1.0, 2.5])
def test_autoguidance_between_two_gaussians_samples_the_extrapolated_one(weight):
    """Equal covariances: the field is affine in the mean, so w and 1 - w mix the means exactly."""
    far = Gaussian(TILTED.mean + np.array([0.5, -1.0, 0.2]), TILTED.cov)
    aim = Gaussian(weight * TILTED.mean + (1 - weight) * far.mean, TILTED.cov)
    x = noise(seed_rows(4, 6), (3,), 0)
    options = {"guidance": weight, "solver": "rk4", "steps": 60, "grid": "uniform", "seed": 4}
    got = runtimes.sample(Bare(TILTED), 6, guide=Bare(far), **options)
    exact = aim.flow_map(x, SCHEDULES["linear"](0.0), SCHEDULES["linear"](1.0))
    np.testing.assert_allclose(got, exact, atol=2e-5)


def test_autoguidance_asks_the_worse_network_only_where_it_is_on():
    times = []

    def worse(x, t, condition):
        times.append(t)
        return x

    call = autoguided(lambda x, t, condition: -x, worse, None, 2.0)
    table = trace("euler", (0.0, 0.25, 0.5, 0.75, 1.0), guided=(0.2, 0.6))
    *_, (_, end) = run(table, call, X)
    assert times == pytest.approx([0.25, 0.5])
    np.testing.assert_allclose(end, X * 0.75**2 * 0.25**2, rtol=1e-12)  # -x * 2 - x = -3 x


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        ({"cfgpp": 1.5}, "cfgpp: expected a number from 0 to 1, got 1.5"),
        ({"cfgpp": float("nan")}, "cfgpp: expected a number from 0 to 1"),
        ({"cfgpp": 0.5, "guidance": 2.0}, "cfgpp: expected neither guidance nor guide"),
        ({"rescale": -0.1, "guidance": 2.0}, "rescale: expected a number from 0 to 1"),
        ({"rescale": "much"}, "rescale: expected a number from 0 to 1"),
        ({"guide": Bare(TILTED), "guidance": 2.0}, "guide: expected a model of shape"),
        ({"guide": Labelled(NARROW, MIXTURE)}, "guidance: expected a weight beside guide"),
    ],
)
def test_variants_that_do_not_add_up(request_, says):
    with pytest.raises(ValueError, match=says):
        runtimes.sample(Labelled(NARROW, MIXTURE), 2, label=0, **request_)


def test_cfgpp_needs_a_condition():
    with pytest.raises(ValueError, match="cfgpp: expected none for a model without conditions"):
        runtimes.sample(Bare(TILTED), 2, cfgpp=1.0)


@pytest.mark.parametrize(
    "weight", [float("nan"), float("inf"), -float("inf"), 1e39, 10_001, -1e5, "3", None, [2.0], 2j]
)
def test_bad_weights(weight):
    with pytest.raises(ValueError, match=r"guidance: expected a number within \+-10000"):
        check(weight, (0.0, 1.0))


@pytest.mark.parametrize("weight", [0, 1, -2.5, 1e4, np.float32(2), np.int64(3)])
def test_good_weights(weight):
    check(weight, (0.0, 1.0))
    check(weight, [0.3, 0.3])


@pytest.mark.parametrize(
    "interval",
    [
        (0.6, 0.4),
        (-0.1, 1),
        (0, 1.1),
        (float("nan"), 1),
        (0, float("nan")),
        (0, float("inf")),
        (0.5,),
        (0, 0.5, 1),
        ("0", "1"),
        None,
        0.5,
        "ab",
    ],
)
def test_bad_intervals(interval):
    with pytest.raises(ValueError, match="interval: expected"):
        check(2.0, interval)
