from decimal import Decimal, getcontext

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtimes.schedules import SCHEDULES, time_of_ratio

getcontext().prec = 60
names = pytest.mark.parametrize("name", SCHEDULES)
# what alpha(0) is: the path of "vp" starts with a rest of data, exp(-(19.9 / 4 + 0.1 / 2))
ALPHA_0 = {"vp": np.exp(-5.025)}


def _sin(x):
    term, total, k = x, x, 1
    while abs(term) > Decimal(10) ** -58:
        term *= -x * x / ((k + 1) * (k + 2))
        k += 2
        total += term
    return total


PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494")


def _vp_log(t):
    u = 1 - t
    return -(Decimal("19.9") * u * u / 4 + Decimal("0.1") * u / 2)


# alpha and sigma with 60 digits, from the papers
PRECISE = {
    "linear": lambda t: (t, 1 - t),
    "cosine": lambda t: (_sin(PI * t / 2), _sin(PI * (1 - t) / 2)),
    "vp": lambda t: (_vp_log(t).exp(), (1 - (2 * _vp_log(t)).exp()).sqrt()),
}
TIMES = [1e-9, 1e-6, 1e-3, 0.1, 0.37, 0.5, 0.9, 0.999, 1 - 1e-6, 1 - 2**-30]


@names
def test_ends(name):
    start, end = SCHEDULES[name](0.0), SCHEDULES[name](1.0)
    assert float(start.alpha) == pytest.approx(ALPHA_0.get(name, 0.0), abs=1e-15)
    assert float(start.alpha) ** 2 + float(start.sigma) ** 2 == pytest.approx(1, abs=1e-15)
    assert (float(end.alpha), float(end.sigma)) == (1.0, 0.0)
    if name not in ALPHA_0:
        assert (float(start.alpha), float(start.sigma)) == (0.0, 1.0)


@names
@pytest.mark.parametrize("t", TIMES)
def test_values_and_rates_in_high_precision(name, t):
    """Central differences over 1e-25 with 60 digits: good to 1e-30, also 1e-9 from the ends."""
    at, h = Decimal(t), Decimal(10) ** -25
    alpha, sigma = PRECISE[name](at)
    (a1, s1), (a0, s0) = PRECISE[name](at + h), PRECISE[name](at - h)
    exact = (alpha, sigma, (a1 - a0) / (2 * h), (s1 - s0) / (2 * h))
    for got, want in zip(SCHEDULES[name](t), exact, strict=True):
        assert float(got) == pytest.approx(float(want), rel=1e-12)


@names
def test_rates_against_central_differences(name):
    t, h = np.linspace(0.02, 0.98, 97), 1e-6
    now, after, before = (SCHEDULES[name](t + d) for d in (0, h, -h))
    np.testing.assert_allclose(now.d_alpha, (after.alpha - before.alpha) / (2 * h), rtol=1e-7)
    np.testing.assert_allclose(now.d_sigma, (after.sigma - before.sigma) / (2 * h), rtol=1e-7)


@names
def test_monotone_and_vectorised(name):
    t = np.linspace(0, 1, 4001)
    many = SCHEDULES[name](t)
    assert np.all(np.diff(many.alpha) > 0)
    assert np.all(np.diff(many.sigma) < 0)
    for k in (0, 1234, 4000):
        for row, one in zip(many, SCHEDULES[name](float(t[k])), strict=True):
            assert row.dtype == np.float64
            assert float(one) == row[k]


@names
@given(t=st.floats(1e-6, 1 - 1e-6))
def test_time_of_ratio_is_the_inverse(name, t):
    scales = SCHEDULES[name](t)
    assert time_of_ratio(SCHEDULES[name], float(scales.alpha / scales.sigma)) == pytest.approx(
        t, abs=1e-13
    )


@names
def test_time_of_ratio_at_the_ends(name):
    assert time_of_ratio(SCHEDULES[name], 0.0) == pytest.approx(0, abs=1e-15)
    assert time_of_ratio(SCHEDULES[name], float("inf")) == 1.0
    assert time_of_ratio(SCHEDULES[name], 1e300) == pytest.approx(1, abs=1e-15)
