from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtimes.flow import flow
from runtimes.grids import END, START, trim
from runtimes.predictions import PREDICTIONS, ends, input_scale, is_singular
from runtimes.schedules import SCHEDULES

from .problems import MIXTURE, ROUND, TILTED, edm_factors, starts

kinds = pytest.mark.parametrize("kind", PREDICTIONS)
schedules = pytest.mark.parametrize("schedule", SCHEDULES)
safe = st.floats(START, 1 - END)


@kinds
@schedules
@given(t=safe)
def test_exact_output_gives_the_exact_ends(kind, schedule, t):
    scales, x = SCHEDULES[schedule](t), starts(5)
    out = MIXTURE.output(kind, x, scales)
    at = ends(kind, scales)
    data, noise = MIXTURE.posterior(x, scales.alpha, scales.sigma)
    np.testing.assert_allclose(x * at.data_x + out * at.data_p, data, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(x * at.noise_x + out * at.noise_p, noise, rtol=1e-9, atol=1e-9)
    assert all(type(value) is float for value in at)


@cache
def within(schedule):
    """What the trimming leaves of [0, 1]: of `edm` less than of the others."""
    return trim(np.array([0.0, 1.0]), SCHEDULES[schedule], "score").tolist()


@kinds
@pytest.mark.parametrize("other", PREDICTIONS)
@schedules
@settings(max_examples=25)
@given(t=safe)
def test_conversion_cycle(kind, other, schedule, t):
    """kind -> ends -> other -> ends -> kind gives back any prediction, trained or not."""
    scales = SCHEDULES[schedule](float(np.clip(t, *within(schedule))))
    x, p = starts(4), starts(4, seed=9)
    there = _through(kind, other, scales, x, p)
    back = _through(other, kind, scales, x, there)
    np.testing.assert_allclose(back, p, rtol=1e-9, atol=1e-8 * np.abs(there).max())


def _through(kind, other, scales, x, p):
    at = ends(kind, scales)
    c, d = (float(value) for value in PREDICTIONS[other](scales))
    return c * (x * at.data_x + p * at.data_p) + d * (x * at.noise_x + p * at.noise_p)


@schedules
def test_velocity_target_is_the_rate_of_the_path(schedule):
    data, noise = starts(6), starts(6, seed=8)
    h = 1e-6
    for t in (0.05, 0.4, 0.93):
        after, before = (SCHEDULES[schedule](t + d) for d in (h, -h))
        rate = ((after.alpha - before.alpha) * data + (after.sigma - before.sigma) * noise) / (
            2 * h
        )
        c, d = PREDICTIONS["velocity"](SCHEDULES[schedule](t))
        np.testing.assert_allclose(c * data + d * noise, rate, rtol=1e-6, atol=1e-8)


@schedules
def test_v_target_is_the_path_a_quarter_turn_on(schedule):
    """With alpha = sin a, sigma = cos a, v is -dx/da (Salimans & Ho 2022, appendix D)."""
    data, noise = starts(6), starts(6, seed=8)
    scales = SCHEDULES[schedule](0.3)
    size = np.hypot(scales.alpha, scales.sigma)
    angle, h = np.arctan2(scales.alpha, scales.sigma), 1e-6

    def at(a):
        return size * (np.sin(a) * data + np.cos(a) * noise)

    c, d = PREDICTIONS["v"](scales)
    rate = (at(angle + h) - at(angle - h)) / (2 * h)
    np.testing.assert_allclose(c * data + d * noise, -rate, rtol=1e-6, atol=1e-8)


@schedules
@pytest.mark.parametrize("problem", [ROUND, TILTED, MIXTURE], ids=["round", "tilted", "mixture"])
@pytest.mark.parametrize("t", [0.1, 0.5, 0.9])
def test_score_is_the_gradient_of_the_log_density(schedule, problem, t):
    scales = SCHEDULES[schedule](t)
    dims = 3 if problem is TILTED else 2
    x, h = starts(6, dims), 1e-5
    gradient = np.stack(
        [
            problem.log_density(x + h * e, *scales[:2])
            - problem.log_density(x - h * e, *scales[:2])
            for e in np.eye(dims)
        ],
        axis=1,
    ) / (2 * h)
    at = ends("velocity", scales)
    noise = x * at.noise_x + problem.velocity(x, scales) * at.noise_p
    c, d = PREDICTIONS["score"](scales)
    assert float(c) == 0
    np.testing.assert_allclose(float(d) * noise, gradient, rtol=1e-6, atol=1e-6)


@schedules
@given(t=safe)
def test_edm_is_the_published_preconditioning(schedule, t):
    """Karras et al. 2022, eq. 7 with table 1: data = c_skip y + c_out F(c_in y), y = data + level noise."""
    scales, x, answer = SCHEDULES[schedule](t), starts(5), starts(5, seed=8)
    y = x / scales.alpha
    skip, out, show = edm_factors(float(scales.sigma / scales.alpha))
    at = ends("edm", scales)
    np.testing.assert_allclose(
        x * at.data_x + answer * at.data_p, skip * y + out * answer, rtol=1e-12, atol=1e-12
    )
    np.testing.assert_allclose(x * at.input, show * y, rtol=1e-12)


@schedules
@pytest.mark.parametrize("t", [0.0, 0.2, 0.7, 1.0])
def test_edm_shows_and_asks_unit_variance(schedule, t):
    """For data of deviation 0.5 (Karras et al. 2022, appendix B.6), at both ends too."""
    scales = SCHEDULES[schedule](t)
    c, d = PREDICTIONS["edm"](scales)
    assert 0.25 * c**2 + d**2 == pytest.approx(1, rel=1e-12)
    shown = float(input_scale("edm", scales)) * np.array([0.5 * scales.alpha, scales.sigma])
    assert np.hypot(*shown) == pytest.approx(1, rel=1e-12)


@schedules
def test_the_others_show_x_itself(schedule):
    t = np.linspace(0, 1, 5)
    for kind in PREDICTIONS.keys() - {"edm"}:
        np.testing.assert_array_equal(input_scale(kind, SCHEDULES[schedule](t)), np.ones(5))


@schedules
@pytest.mark.parametrize("solver", ["euler", "ancestral"])
def test_the_network_is_shown_what_its_prediction_wants(solver, schedule):
    """In solvers that follow the field and in those that follow the two ends: same states, any kind."""
    grid = np.linspace(0.2, 0.8, 5)
    states = [
        list(
            flow(
                solver,
                MIXTURE.network(kind, SCHEDULES[schedule]),
                starts(4),
                grid,
                schedule=schedule,
                prediction=kind,
                draw=lambda k: starts(4, seed=k),
            )
        )
        for kind in PREDICTIONS
    ]
    for other in states[1:]:
        np.testing.assert_allclose(other, states[0], rtol=1e-10, atol=1e-10)


# (at the noise, at the data): where the prediction leaves an end open
USUAL = {
    "velocity": (False, False),
    "noise": (True, False),
    "data": (False, True),
    "score": (True, True),
    "v": (False, False),
    "edm": (False, False),
}
SOME_DATA = {"noise": (False, False), "score": (False, True)}  # alpha(0) > 0
SINGULAR = {
    "linear": USUAL,
    "cosine": USUAL,
    "shifted": USUAL,
    "vp": {**USUAL, **SOME_DATA, "velocity": (False, True)},  # d_sigma is -infinity at the data
    "discrete": {**USUAL, **SOME_DATA, "velocity": (False, True)},
    "stable_diffusion": {**USUAL, **SOME_DATA, "velocity": (False, True)},
    "edm": {**USUAL, **SOME_DATA},
    "polynomial": {**USUAL, "velocity": (True, False)},  # the path starts with no speed at all
}


@kinds
@schedules
def test_ends_are_finite_or_refused_in_words(kind, schedule):
    for t, singular in zip((0.0, 1.0), SINGULAR[schedule][kind], strict=True):
        scales = SCHEDULES[schedule](t)
        assert is_singular(kind, scales) == singular
        if singular:
            with pytest.raises(ValueError, match=f"prediction '{kind}'.*trim the grid"):
                ends(kind, scales)
        else:
            assert np.isfinite(ends(kind, scales)).all()


@kinds
@schedules
def test_rows_take_many_times(kind, schedule):
    """Training asks for one row per sample."""
    t = np.linspace(0.1, 0.9, 5)
    many = PREDICTIONS[kind](SCHEDULES[schedule](t))
    for k in range(5):
        one = PREDICTIONS[kind](SCHEDULES[schedule](float(t[k])))
        for row, value in zip(many, one, strict=True):
            assert np.shape(row) == (5,)
            assert float(value) == row[k]
