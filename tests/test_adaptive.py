from functools import lru_cache
from itertools import pairwise

import numpy as np
import pytest
from scipy.integrate import RK23, RK45, solve_ivp

from runtimes.adaptive import PAIRS, between, solve, step
from runtimes.schedules import linear

from .problems import MIXTURE, SHEAR, slope, starts

pairs = pytest.mark.parametrize("name", PAIRS)
SCIPY = {"dopri5": RK45, "bosh3": RK23}
BETWEEN = {"dopri5": 4, "bosh3": 3}  # orders of the states between two steps
OPTIONS = {"rtol": 1e-5, "atol": 1e-5, "most_calls": 5000}


def velocity(y, t):
    """The mixture's, one row at a time: BLAS rounds a row differently beside others."""
    return MIXTURE.velocity(y[None], linear(t))[0]


def field(y, clocks, rows):
    return np.stack([velocity(row, t) for row, t in zip(y, clocks, strict=True)])


def everywhere(f):
    """A field (y, t) of one clock as one of many."""
    return lambda y, clocks, rows: np.stack([f(a, t) for a, t in zip(y, clocks, strict=True)])


def shear(y, t):
    return SHEAR @ y * np.cos(t)


@lru_cache
def exact(start, end):
    """The mixture's flow to 1e-12, by scipy's method of order 8."""
    runs = [
        solve_ivp(lambda t, y: velocity(y, t), (start, end), x, "DOP853", rtol=1e-12, atol=1e-12)
        for x in starts(12)
    ]
    return np.stack([run.y[:, -1] for run in runs])


def fixed(name, count, theta=None):
    """count equal steps of the mixture over 0.3..0.8: the end, or the worst state between two."""
    pair, y, rows = PAIRS[name], starts(12), np.arange(12)
    grid = np.linspace(0.3, 0.8, count + 1)
    k = field(y, np.full(12, grid[0]), rows)
    for r, s in pairwise(grid):
        start, (y, stages) = y, step(pair, field, y, k, np.full(12, r), np.full(12, s), rows)
        k = stages[-1]
    h = np.full(12, grid[-1] - grid[-2])
    return y, start, stages, h


def root(error):
    return np.sqrt(np.mean(error**2))


# Coefficients


@pairs
def test_order_of_both_formulas(name):
    """The state is of the pair's order; the state less the error is of the order below."""
    pair, sizes = PAIRS[name], (6, 12)
    reference = fixed("dopri5", 200)[0]
    ends = [fixed(name, count) for count in sizes]
    errors = [root(end[0] - reference) for end in ends]
    assert slope(sizes, errors) == pytest.approx(pair.order, abs=0.25)
    shorter = (1 / 16, 1 / 32)
    local = []
    for h in shorter:
        y, rows, r = starts(12), np.arange(12), np.full(12, 0.5)
        _, stages = step(pair, field, y, field(y, r, rows), r, r + h, rows)
        local.append(root(h * sum(e * k for e, k in zip(pair.e, stages, strict=True))))
    # one step of order p - 1 is wrong by h^p
    assert -slope(shorter, local) == pytest.approx(pair.order, abs=0.3)


@pairs
def test_coefficients_are_those_of_scipy(name):
    """Written down there by other people, from the same papers."""
    pair, other = PAIRS[name], SCIPY[name]
    for mine, row in zip(pair.a[:-1], other.A[1:], strict=True):
        np.testing.assert_allclose(mine, row[: len(mine)], rtol=1e-15)
    np.testing.assert_allclose(pair.a[-1], other.B, rtol=1e-15)
    np.testing.assert_allclose(pair.c[:-1], other.C[1:], rtol=1e-15)
    np.testing.assert_allclose(np.abs(pair.e), np.abs(other.E), rtol=1e-14)


@pairs
def test_order_of_the_states_between(name):
    """In the middle of one step from the exact state: wrong by h^(p + 1)."""
    pair, errors, sizes = PAIRS[name], [], (1 / 4, 1 / 8)
    for h in sizes:
        y, rows, r = starts(12), np.arange(12), np.full(12, 0.5)
        y_s, stages = step(pair, field, y, field(y, r, rows), r, r + h, rows)
        there = between(pair, np.full(12, 0.4), y, y_s, stages, np.full(12, h))
        fine = fine_steps(y, 0.5, 0.5 + 0.4 * h)
        errors.append(root(there - fine))
    assert -slope(sizes, errors) == pytest.approx(BETWEEN[name] + 1, abs=0.35)


def fine_steps(y, start, end):
    return solve(
        field, y, [start, end], pair=PAIRS["dopri5"], rtol=1e-12, atol=1e-12, most_calls=10**5
    ).path[-1]


@pairs
def test_between_meets_both_ends_with_both_rates(name):
    pair, h = PAIRS[name], np.full(12, 0.1)
    y, rows, r = starts(12), np.arange(12), np.full(12, 0.5)
    y_s, stages = step(pair, field, y, field(y, r, rows), r, r + h, rows)

    def at(theta):
        return between(pair, np.full(12, theta), y, y_s, stages, h)

    np.testing.assert_array_equal(at(0.0), y)
    np.testing.assert_allclose(at(1.0), y_s, rtol=1e-14)
    tiny = 1e-6
    np.testing.assert_allclose((at(tiny) - y) / (tiny * 0.1), stages[0], atol=1e-4)
    np.testing.assert_allclose((y_s - at(1 - tiny)) / (tiny * 0.1), stages[-1], atol=1e-4)


# Against scipy, row by row, at equal tolerance


@pairs
@pytest.mark.parametrize("tolerance", [1e-3, 1e-5, 1e-7])
def test_no_worse_than_scipy_for_the_same_tolerance(name, tolerance):
    """scipy runs every row alone. Mean error within 1.5 times its own, mean calls within 1.1 times."""
    options = {"rtol": tolerance, "atol": tolerance}
    mine = solve(field, starts(12), [0, 1], pair=PAIRS[name], most_calls=5000, **options)
    theirs = [
        solve_ivp(lambda t, y: velocity(y, t), (0, 1), x, SCIPY[name], **options)
        for x in starts(12)
    ]
    end = np.stack([run.y[:, -1] for run in theirs])
    error, other = (
        np.linalg.norm(e - exact(0.0, 1.0), axis=1).mean() for e in (mine.path[-1], end)
    )
    assert error < 1.5 * other
    assert error < 100 * tolerance
    assert mine.calls.mean() < 1.1 * np.mean([run.nfev for run in theirs])


@pairs
def test_calls_and_steps_add_up(name):
    seen = np.zeros(12, int)

    def counted(y, clocks, rows):
        seen[rows] += 1
        return field(y, clocks, rows)

    run = solve(counted, starts(12), [0, 1], pair=PAIRS[name], **OPTIONS)
    np.testing.assert_array_equal(run.calls, seen)
    np.testing.assert_array_equal(run.calls, 2 + PAIRS[name].calls * (run.accepted + run.rejected))
    assert len(set(run.calls.tolist())) > 1  # rows go their own ways


@pairs
def test_error_falls_with_the_tolerance(name):
    """On a linear field with a bump in t that forces rejections."""

    def bump(y, t):
        return SHEAR @ y + np.exp(-(((t - 0.5) / 0.04) ** 2))

    def end(tolerance):
        return solve(
            everywhere(bump),
            starts(3, 3),
            [0, 1],
            pair=PAIRS[name],
            rtol=tolerance,
            atol=tolerance,
            most_calls=10**5,
        )

    fine, errors = end(1e-11), []
    for tolerance in (1e-4, 1e-6, 1e-8):
        run = end(tolerance)
        errors.append(np.abs(run.path[-1] - fine.path[-1]).max())
        assert errors[-1] < 30 * tolerance
    assert end(1e-6).rejected.min() > 0


# Rows


@pairs
def test_row_alone_or_beside_others_is_the_same_to_the_last_bit(name):
    marks = [0.0, 0.21, 0.5, 1.0]
    together = solve(field, starts(12), marks, pair=PAIRS[name], **OPTIONS)
    for row in range(12):
        alone = solve(field, starts(12)[row : row + 1], marks, pair=PAIRS[name], **OPTIONS)
        np.testing.assert_array_equal(together.path[:, row : row + 1], alone.path)
        assert (together.calls[row], together.rejected[row]) == (alone.calls[0], alone.rejected[0])


def test_a_hard_row_costs_its_neighbours_nothing():
    rate = np.array([1.0, 200.0, 1.0])

    def hard(y, clocks, rows):
        return -rate[rows, None] * y

    run = solve(hard, np.ones((3, 2)), [0, 1], pair=PAIRS["dopri5"], **OPTIONS)
    assert run.calls[0] == run.calls[2] < run.calls[1] / 5
    np.testing.assert_allclose(run.path[-1, :, 0], np.exp(-rate), atol=1e-4)


@pairs
def test_images_too(name):
    """Any shape: a field that acts on each number alone gives a flat row's answer."""
    y = starts(3, 12)
    options = {"pair": PAIRS[name], **OPTIONS}

    def wave(y, clocks, rows):
        return np.sin(y) * np.cos(clocks).reshape(-1, *[1] * (y.ndim - 1))

    flat = solve(wave, y, [0, 0.5, 1], **options)
    deep = solve(wave, y.reshape(3, 2, 2, 3), [0, 0.5, 1], **options)
    assert deep.path.shape == (2, 3, 2, 2, 3)
    np.testing.assert_array_equal(deep.path.reshape(2, 3, 12), flat.path)


# Directions and marks


@pairs
def test_back_to_where_it_came_from(name):
    options = {"pair": PAIRS[name], "rtol": 1e-8, "atol": 1e-8, "most_calls": 10**5}
    there = solve(field, starts(12), [0, 0.3, 1], **options).path
    back = solve(field, there[-1], [1, 0.3, 0], **options).path
    np.testing.assert_allclose(back[-1], starts(12), atol=1e-6)
    np.testing.assert_allclose(back[0], there[0], atol=1e-6)


@pairs
def test_marks_change_no_step_and_are_as_good_as_the_end(name):
    marks = [0.0, 0.1, 0.1000001, 0.37, 0.62, 0.9, 1.0]
    plain = solve(field, starts(12), [0, 1], pair=PAIRS[name], **OPTIONS)
    marked = solve(field, starts(12), marks, pair=PAIRS[name], **OPTIONS)
    np.testing.assert_array_equal(plain.path[-1], marked.path[-1])
    np.testing.assert_array_equal(plain.calls, marked.calls)
    for mark, state in zip(marks[1:], marked.path, strict=True):
        assert np.abs(state - exact(0.0, mark)).max() < 1e-3


# What goes wrong


@pytest.mark.parametrize("most", [1, 2, 20])
def test_budget_is_never_passed(most):
    calls = np.zeros(12, int)

    def counted(y, clocks, rows):
        calls[rows] += 1
        return field(y, clocks, rows)

    with pytest.raises(FloatingPointError, match=f"within {most} network calls") as caught:
        solve(
            counted,
            starts(12),
            [0, 1],
            pair=PAIRS["dopri5"],
            rtol=1e-9,
            atol=1e-9,
            most_calls=most,
        )
    assert calls.max() <= max(most, 2)
    assert "\n" not in str(caught.value)


def test_nan_at_the_start_and_on_the_way():
    def bad(limit):
        def nan_beyond(y, clocks, rows):
            late = (clocks >= limit) & (rows == 4)
            return np.where(late[:, None], np.nan, field(y, clocks, rows))

        return nan_beyond

    with pytest.raises(FloatingPointError, match=r"step 1, t = 0: .* NaN .* in sample 7;"):
        solve(bad(0.0), starts(6), [0, 1], pair=PAIRS["dopri5"], first=3, **OPTIONS)
    with pytest.raises(FloatingPointError, match=r"t = 0\.7: .* got NaN or infinity in sample 4;"):
        solve(bad(0.7), starts(6), [0, 1], pair=PAIRS["dopri5"], **OPTIONS)


def test_blow_up_is_named_not_endless():
    """dy/dt = y^2 from 1 is infinite at t = 1."""
    with pytest.raises(FloatingPointError, match=r"t = 1: .* in sample 0"):
        solve(lambda y, t, rows: y * y, np.ones((1, 1)), [0, 2], pair=PAIRS["bosh3"], **OPTIONS)
