import numpy as np
import pytest

from runtimes.grids import END, GRIDS, MOST_STEPS, START, make, trim
from runtimes.predictions import PREDICTIONS, ends, is_singular
from runtimes.schedules import SCHEDULES

grids = pytest.mark.parametrize("name", GRIDS)
schedules = pytest.mark.parametrize("schedule", SCHEDULES)


@grids
@schedules
@pytest.mark.parametrize("steps", [1, 2, 3, 7, 50, 1000])
def test_increases_from_noise_to_data(name, schedule, steps):
    grid = make(name, steps, SCHEDULES[schedule])
    assert grid.dtype == np.float64
    assert grid.shape == (steps + 1,)
    assert (grid[0], grid[-1]) == (0.0, 1.0)
    assert np.all(np.diff(grid) > 0)
    np.testing.assert_array_equal(make(grid, None, SCHEDULES[schedule]), grid)


def test_most_steps_still_increase():
    grid = make("shifted", MOST_STEPS, SCHEDULES["linear"])
    assert len(grid) == 10_001
    assert np.all(np.diff(grid) > 0)


def test_shifted_against_the_paper():
    """Esser et al. 2024, eq. 23: t' = m t / (1 + (m - 1) t) in their time, 1 - ours, m = 3."""
    grid = make("shifted", 4, SCHEDULES["linear"])
    theirs = [3 * u / (1 + 2 * u) for u in (1, 0.75, 0.5, 0.25, 0)]
    np.testing.assert_allclose(1 - grid, theirs, atol=1e-15)


@schedules
def test_karras_against_the_paper(schedule):
    """Karras et al. 2022, table 1: the noise levels fall evenly in the seventh root."""
    grid = make("karras", 10, SCHEDULES[schedule])
    scales = SCHEDULES[schedule](grid[1:-1])
    roots = (scales.sigma / scales.alpha) ** (1 / 7)
    even = 80 ** (1 / 7) + np.arange(1, 10) / 9 * (0.002 ** (1 / 7) - 80 ** (1 / 7))
    np.testing.assert_allclose(roots, even, rtol=1e-9)


@schedules
def test_log_snr_is_even(schedule):
    grid = make("log_snr", 10, SCHEDULES[schedule])
    scales = SCHEDULES[schedule](grid[1:-1])
    gaps = np.diff(np.log(scales.alpha / scales.sigma))
    np.testing.assert_allclose(gaps, np.log(80 * 500) / 10, rtol=1e-9)


@pytest.mark.parametrize("steps", [0, -1, 10**9, 2.5, "ten", True, None, float("nan")])
def test_bad_steps(steps):
    with pytest.raises(ValueError, match="steps: expected a whole number from 1 to 10000"):
        make("uniform", steps, SCHEDULES["linear"])


def test_numpy_steps():
    assert len(make("uniform", np.int64(4), SCHEDULES["linear"])) == 5


@pytest.mark.parametrize(
    "own",
    [
        [0, 0.5, 0.5, 1],
        [0, 0.7, 0.3, 1],
        [1, 0],
        [-0.1, 1],
        [0, 1.1],
        [0, float("nan"), 1],
        [float("nan"), float("nan")],
        [0],
        [],
        0.5,
        [[0, 1]],
        [[0], [0, 1]],
        ["a", "b"],
        [None, 1],
        {0: 1},
        [0, float("inf")],
    ],
)
def test_bad_own_times(own):
    with pytest.raises(ValueError, match="grid: expected"):
        make(own, None, SCHEDULES["linear"])


def test_unknown_name():
    with pytest.raises(ValueError, match=r"grid: .*'unifrom'; did you mean 'uniform'"):
        make("unifrom", 4, SCHEDULES["linear"])


@pytest.mark.parametrize("prediction", PREDICTIONS)
@schedules
def test_trim(schedule, prediction):
    """After it the ends are finite; what was fine stays as it was, to the bit."""
    grid = make("uniform", 8, SCHEDULES[schedule])
    out = trim(grid, SCHEDULES[schedule], prediction)
    singular = [is_singular(prediction, SCHEDULES[schedule](t)) for t in (0.0, 1.0)]
    assert out[0] == (START if singular[0] else 0.0)
    assert out[-1] == pytest.approx(1 - END if singular[1] else 1.0, abs=1e-15)
    np.testing.assert_allclose(np.diff(out), (out[-1] - out[0]) / 8, rtol=1e-12)
    assert all(np.isfinite(ends(prediction, SCHEDULES[schedule](t))).all() for t in out)
    inside = np.array([0.1, 0.2, 0.9])
    np.testing.assert_array_equal(trim(inside, SCHEDULES[schedule], prediction), inside)


def test_trim_of_own_times():
    linear = SCHEDULES["linear"]
    np.testing.assert_allclose(trim(np.array([0, 0.5]), linear, "noise"), [START, 0.5])
    np.testing.assert_allclose(trim(np.array([0.5, 1]), linear, "data"), [0.5, 1 - END])
    with pytest.raises(ValueError, match="grid: expected times between"):
        trim(np.array([0.9995, 1.0]), linear, "data")
