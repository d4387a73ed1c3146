import numpy as np
import pytest
from scipy import stats

from runtimes.grids import END, GRIDS, MOST_STEPS, START, make, trim
from runtimes.predictions import PREDICTIONS, ends, is_singular
from runtimes.schedules import SCHEDULES, time_of_ratio

grids = pytest.mark.parametrize("name", GRIDS)
schedules = pytest.mark.parametrize("schedule", SCHEDULES)


@grids
@schedules
@pytest.mark.parametrize("steps", [1, 2, 3, 7, 50, 1000])
def test_increases_from_noise_to_data(name, schedule, steps):
    grid = make(name, steps, SCHEDULES[schedule])
    assert grid.dtype == np.float64
    assert grid.shape == (steps + 1,)
    # "leading" starts at index (steps - 1) (1000 // steps) of 0..999, whose t is 1 - (index + 1) / 1000
    late = 1 - ((steps - 1) * (1000 // steps) + 1) / 1000 if name == "leading" else 0.0
    assert (grid[0], grid[-1]) == (late, 1.0)
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
    top = most_noise(schedule)
    even = top ** (1 / 7) + np.arange(1, 10) / 9 * (0.002 ** (1 / 7) - top ** (1 / 7))
    np.testing.assert_allclose(roots, even, rtol=1e-9)
    assert grid[0] == 0


def test_karras_with_another_rho():
    """Even in sigma itself for rho = 1, whose last level is 0.002."""
    levels = np.array([80.0, 80 - 79.998 / 3, 80 - 2 * 79.998 / 3, 0.002])
    grid = make("karras(1)", 4, SCHEDULES["linear"])
    np.testing.assert_allclose(grid, [0, *(1 / (1 + levels[1:])), 1], atol=1e-12)
    np.testing.assert_array_equal(
        make("karras(7)", 9, SCHEDULES["vp"]), make("karras", 9, SCHEDULES["vp"])
    )


def test_the_edm_schedule_is_made_for_even_steps():
    """Its own uniform grid is that of Karras et al. 2022, but for the 0.002 taken off at both ends."""
    sigma = SCHEDULES["edm"](make("uniform", 9, SCHEDULES["edm"])).sigma
    even = 80.002 ** (1 / 7) + np.arange(10) / 9 * (0.002 ** (1 / 7) - 80.002 ** (1 / 7))
    np.testing.assert_allclose(sigma, even**7 - 0.002, atol=1e-12)


def most_noise(schedule):
    """Where a grid of noise levels starts: at 80, or at the schedule's own largest."""
    kept = np.prod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)
    return np.sqrt(1 / kept - 1) if schedule == "stable_diffusion" else 80.0


@schedules
def test_cosine_is_even_in_the_angle(schedule):
    """And so uniform on the schedule of that name (Nichol & Dhariwal 2021)."""
    scales = SCHEDULES[schedule](make("cosine", 10, SCHEDULES[schedule])[:-1])
    turns = np.diff(np.append(np.arctan2(scales.alpha, scales.sigma), np.pi / 2))
    np.testing.assert_allclose(turns, turns[0], rtol=1e-9)
    if schedule == "cosine":
        np.testing.assert_allclose(make("cosine", 10, SCHEDULES["cosine"]), np.linspace(0, 1, 11))


@pytest.mark.parametrize(
    ("name", "a", "b"),
    [
        ("beta", 0.6, 0.6),
        ("beta(0.5, 0.5)", 0.5, 0.5),
        ("beta(1, 1)", 1, 1),
        ("beta(2.5, 0.7)", 2.5, 0.7),
        ("beta(0.2, 4)", 0.2, 4),
        ("beta(10, 10)", 10, 10),
    ],
)
def test_beta_against_scipy(name, a, b):
    grid = make(name, 50, SCHEDULES["linear"])
    np.testing.assert_allclose(grid, stats.beta.ppf(np.linspace(0, 1, 51), a, b), atol=1e-12)
    even = stats.beta.cdf(grid[1:-1], a, b)
    np.testing.assert_allclose(even, np.arange(1, 50) / 50, rtol=1e-9)


@pytest.mark.parametrize("steps", [1, 3, 7, 10, 50, 999, 1000])
def test_index_grids_against_the_paper(steps):
    """Lin et al. 2023, table 2, as its code-like formulas count: indices 1..1000, backwards here."""
    leading = np.arange(1, 1001, 1000 // steps)[:steps]
    trailing = np.round(np.flip(np.arange(1000, 0, -1000 / steps)))
    for name, theirs in (("leading", leading), ("trailing", trailing)):
        grid = make(name, steps, SCHEDULES["discrete"])
        np.testing.assert_allclose(grid, [*(1 - theirs[::-1] / 1000), 1.0], atol=1e-15)


def test_index_grids_in_the_paper():
    """Lin et al. 2023, table 2: 10 of 1000."""
    assert (1000 * (1 - make("leading", 10, None))).round(9).tolist() == [
        901, 801, 701, 601, 501, 401, 301, 201, 101, 1, 0,
    ]  # fmt: skip
    assert (1000 * (1 - make("trailing", 10, None))).round(9).tolist() == [
        1000, 900, 800, 700, 600, 500, 400, 300, 200, 100, 0,
    ]  # fmt: skip
    np.testing.assert_allclose(make("trailing(4)", 4, None), [0, 0.25, 0.5, 0.75, 1])


@pytest.mark.parametrize(
    ("name", "steps", "message"),
    [
        ("karas(5)", 5, "did you mean 'karras'"),
        ("karras(5, 6)", 5, r"expected karras\(rho=7\) with numbers"),
        ("uniform(5)", 5, "expected 'uniform' without numbers"),
        ("karras(1e-9)", 5, "grid: expected strictly increasing"),
        ("trailing", 1001, "grid: expected strictly increasing .* take fewer steps"),
        ("leading", 1001, "grid: expected strictly increasing .* take fewer steps"),
        ("beta(11, 1)", 5, "expected beta"),
    ],
)
def test_bad_numbers_in_a_name(name, steps, message):
    with pytest.raises(ValueError, match=message) as caught:
        make(name, steps, SCHEDULES["linear"])
    assert "\n" not in str(caught.value)


@schedules
def test_log_snr_is_even(schedule):
    grid = make("log_snr", 10, SCHEDULES[schedule])
    scales = SCHEDULES[schedule](grid[1:-1])
    gaps = np.diff(np.log(scales.alpha / scales.sigma))
    np.testing.assert_allclose(gaps, np.log(most_noise(schedule) * 500) / 10, rtol=1e-9)


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
    # further in on paths that linger at their end
    low = {"polynomial": np.sqrt(0.01 / 1.01), "shifted": 0.03 / 1.03}.get(schedule, START)
    high = float(time_of_ratio(SCHEDULES["edm"], 1000)) if schedule == "edm" else 1 - END
    exact = 0.0 if low == START else 1e-15
    assert out[0] == pytest.approx(low if singular[0] else 0.0, abs=exact, rel=0)
    assert out[-1] == pytest.approx(high if singular[1] else 1.0, abs=1e-15)
    np.testing.assert_allclose(np.diff(out), (out[-1] - out[0]) / 8, rtol=1e-12)
    assert all(np.isfinite(ends(prediction, SCHEDULES[schedule](t))).all() for t in out)
    inside = np.array([0.1, 0.2, 0.9])
    np.testing.assert_array_equal(trim(inside, SCHEDULES[schedule], prediction), inside)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@schedules
def test_trimmed_ends_keep_enough_of_both(schedule, prediction):
    """A prediction off by 1e-7 moves the end it is bad at by 1e-4 at most, whatever the schedule."""
    grid = trim(np.array([0.0, 1.0]), SCHEDULES[schedule], prediction)
    low, high = (SCHEDULES[schedule](t) for t in grid)
    assert grid[0] == 0 or low.alpha >= 0.99e-2 * low.sigma
    assert grid[-1] == 1 or high.sigma >= 0.99e-3 * high.alpha


def test_trim_of_own_times():
    linear = SCHEDULES["linear"]
    np.testing.assert_allclose(trim(np.array([0, 0.5]), linear, "noise"), [START, 0.5])
    np.testing.assert_allclose(trim(np.array([0.5, 1]), linear, "data"), [0.5, 1 - END])
    with pytest.raises(ValueError, match="grid: expected times between"):
        trim(np.array([0.9995, 1.0]), linear, "data")
    with pytest.raises(ValueError, match=r"times between 0\.01 and 1 for prediction 'noise'"):
        trim(np.array([0, 0.005]), linear, "noise")
