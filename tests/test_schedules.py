from decimal import Decimal, getcontext
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.interpolate import PchipInterpolator

from runtimes.schedules import (
    SCHEDULES,
    flux_shift,
    named,
    resolution_shift,
    time_of_ratio,
)

getcontext().prec = 60
# a table of one's own, with a jump that a plain spline would overshoot at
WILD = "discrete(0.001, 0.001, 0.4, 0.4, 0.001, 0.02)"
OWN = ["polynomial(3)", "polynomial(0.5)", "shifted(0.4)", "stable_diffusion(0.0015, 0.0195, 50)"]
NAMES = [*SCHEDULES, *OWN]
names = pytest.mark.parametrize("name", NAMES)
ENDS_AT_0 = {  # (alpha, sigma) at t = 0 where they are not (0, 1)
    # the path of "vp" starts with a rest of data, exp(-(19.9 / 4 + 0.1 / 2))
    "vp": (np.exp(-5.025), np.sqrt(-np.expm1(-10.05))),
    "edm": (1.0, 80.0),
}
TABLES = ("discrete", "stable_diffusion")


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


def _betas(first, last, count, root=False):
    """In 60 digits: evenly spaced, or with evenly spaced square roots."""
    low, high = Decimal(first), Decimal(last)
    if root:
        low, high = low.sqrt(), high.sqrt()
    even = [low + (high - low) * k / (count - 1) for k in range(count)]
    return [beta * beta for beta in even] if root else even


@cache
def _moments(name):
    """log alpha^2 at the knots and the second derivatives of the cubic spline through them.

    The textbook's tridiagonal system, where the code iterates on slopes; clamped to the slopes of the
    parabolas through the first and the last three knots.
    """
    betas = _betas(*{
        "discrete": ("1e-4", "0.02", 1000),
        "stable_diffusion": ("0.00085", "0.012", 1000, True),
        "stable_diffusion(0.0015, 0.0195, 50)": ("0.0015", "0.0195", 50, True),
    }[name])  # fmt: skip
    logs = [(1 - beta).ln() for beta in betas]
    knots = [Decimal(0)]
    for log in logs:
        knots.append(knots[-1] + log)
    ends = (3 * logs[0] - logs[1]) / 2, (3 * logs[-1] - logs[-2]) / 2
    right = [logs[0] - ends[0], *(b - a for a, b in pairwise(logs)), ends[1] - logs[-1]]
    middle = [Decimal(2), *[Decimal(4)] * (len(logs) - 1), Decimal(2)]
    right = [6 * value for value in right]
    for k in range(1, len(right)):
        right[k] -= right[k - 1] / middle[k - 1]
        middle[k] -= 1 / middle[k - 1]
    second = [right[-1] / middle[-1]]
    for k in range(len(right) - 2, -1, -1):
        second.insert(0, (right[k] - second[0]) / middle[k])
    return knots, second


def _spline(name, t):
    knots, second = _moments(name)
    n = (1 - t) * (len(knots) - 1)
    k = min(int(n), len(knots) - 2)
    f, g = n - k, k + 1 - n
    log = g * knots[k] + f * knots[k + 1]
    log += ((g**3 - g) * second[k] + (f**3 - f) * second[k + 1]) / 6
    return (log / 2).exp(), (1 - log.exp()).sqrt()


def _edm(t):
    """Karras et al. 2022, eq. 5: the seventh root falls evenly; 0.002 more at both ends, then less."""
    high, low = (Decimal(level) ** (1 / Decimal(7)) for level in ("80.002", "0.002"))
    return Decimal(1), (high + t * (low - high)) ** 7 - Decimal("0.002")


def _shifted(t, shift):
    """Esser et al. 2024, eq. 23 on the linear path."""
    theirs = shift * (1 - t) / (1 + (shift - 1) * (1 - t))
    return 1 - theirs, theirs


# alpha and sigma with 60 digits, from the papers
PRECISE = {
    "linear": lambda t: (t, 1 - t),
    "cosine": lambda t: (_sin(PI * t / 2), _sin(PI * (1 - t) / 2)),
    "vp": lambda t: (_vp_log(t).exp(), (1 - (2 * _vp_log(t)).exp()).sqrt()),
    "edm": _edm,
    "polynomial": lambda t: (t * t, 1 - t * t),
    "polynomial(3)": lambda t: (t**3, 1 - t**3),
    "polynomial(0.5)": lambda t: (t.sqrt(), 1 - t.sqrt()),
    "shifted": lambda t: _shifted(t, 3),
    "shifted(0.4)": lambda t: _shifted(t, Decimal("0.4")),
    **{name: lambda t, name=name: _spline(name, t) for name in NAMES if name.startswith(TABLES)},
}
TIMES = [1e-9, 1e-6, 1e-3, 0.1, 0.37, 0.5, 0.9, 0.999, 1 - 1e-6, 1 - 2**-30]


@names
def test_ends(name):
    start, end = named(name)(0.0), named(name)(1.0)
    assert (float(end.alpha), float(end.sigma)) == (1.0, 0.0)
    if name.startswith(TABLES):
        assert float(start.alpha) ** 2 + float(start.sigma) ** 2 == pytest.approx(1, abs=1e-15)
        assert float(start.alpha) == pytest.approx(float(_spline(name, Decimal(0))[0]), rel=1e-12)
    else:
        wanted = ENDS_AT_0.get(name, (0.0, 1.0))
        exact = 1e-13 if name in ENDS_AT_0 else 0.0
        assert (float(start.alpha), float(start.sigma)) == pytest.approx(wanted, rel=exact, abs=0)


@names
@pytest.mark.parametrize("t", TIMES)
def test_values_and_rates_in_high_precision(name, t):
    """Central differences over 1e-25 with 60 digits: good to 1e-30, also 1e-9 from the ends."""
    at, h = Decimal(t), Decimal(10) ** -25
    alpha, sigma = PRECISE[name](at)
    (a1, s1), (a0, s0) = PRECISE[name](at + h), PRECISE[name](at - h)
    exact = (alpha, sigma, (a1 - a0) / (2 * h), (s1 - s0) / (2 * h))
    for got, want in zip(named(name)(t), exact, strict=True):
        assert float(got) == pytest.approx(float(want), rel=1e-12)


@names
def test_rates_against_central_differences(name):
    t, h = np.linspace(0.02, 0.98, 97), 1e-6
    now, after, before = (named(name)(t + d) for d in (0, h, -h))
    np.testing.assert_allclose(now.d_alpha, (after.alpha - before.alpha) / (2 * h), rtol=1e-7)
    np.testing.assert_allclose(now.d_sigma, (after.sigma - before.sigma) / (2 * h), rtol=1e-7)


@pytest.mark.parametrize("name", [*NAMES, WILD])
def test_monotone_and_vectorised(name):
    t = np.linspace(0, 1, 4001)
    many = named(name)(t)
    assert np.all(np.diff(many.alpha) > 0) or (name == "edm" and np.all(many.alpha == 1))
    assert np.all(np.diff(many.sigma) < 0)
    for k in (0, 1234, 4000):
        for row, one in zip(many, named(name)(float(t[k])), strict=True):
            assert row.dtype == np.float64
            assert float(one) == row[k]


@names
@given(t=st.floats(1e-6, 1 - 1e-6))
def test_time_of_ratio_is_the_inverse(name, t):
    scales = named(name)(t)
    assert time_of_ratio(named(name), float(scales.alpha / scales.sigma)) == pytest.approx(
        t, abs=1e-13
    )


@names
def test_time_of_ratio_at_the_ends(name):
    assert time_of_ratio(named(name), 0.0) == pytest.approx(
        0, abs=1e-15
    )  # or below what it reaches
    assert time_of_ratio(named(name), float("inf")) == 1.0
    assert time_of_ratio(named(name), 1e300) == pytest.approx(1, abs=1e-15)


@names
def test_time_of_ratio_of_many_is_that_of_each(name):
    ratios = np.array([[0.0, 1e-3, 0.7], [1.0, 60.0, np.inf]])
    times = time_of_ratio(named(name), ratios)
    assert times.tolist() == [[time_of_ratio(named(name), r) for r in row] for row in ratios]


# Tables of betas


@pytest.mark.parametrize("name", ["discrete", "stable_diffusion", WILD])
def test_a_table_is_met_at_its_own_times(name):
    """DDPM's product of 1 - beta, Ho et al. 2020, section 2, in the float64 that checkpoints use."""
    betas = {
        "discrete": np.linspace(1e-4, 0.02, 1000),
        "stable_diffusion": np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2,
        WILD: np.array([0.001, 0.001, 0.4, 0.4, 0.001, 0.02]),
    }[name]
    n = np.arange(1, len(betas) + 1)
    scales = named(name)(1.0 - n / len(betas))
    product = np.cumprod(1.0 - betas)
    np.testing.assert_allclose(scales.alpha**2, product, rtol=1e-12)
    np.testing.assert_allclose(scales.sigma**2, 1.0 - product, rtol=1e-10)


def test_tables_against_published_numbers():
    """Lin et al. 2023, table 1: sqrt(alpha bar) at the last index."""
    assert float(named("discrete")(0.0).alpha) == pytest.approx(0.006353, abs=5e-7)
    assert float(named("stable_diffusion")(0.0).alpha) == pytest.approx(0.068265, abs=5e-7)


def test_a_table_written_out_is_the_table():
    text = ", ".join(map(repr, np.linspace(1e-4, 0.02, 1000).tolist()))
    t = np.linspace(0, 1, 77)
    np.testing.assert_array_equal(named(f"discrete({text})")(t), named("discrete")(t))


def test_vp_is_the_limit_of_its_table():
    """beta_k = beta(k / N) / N tends to the path of `vp`, Song et al. 2021, appendix B, as 1 / N."""
    apart = []
    for count in (100, 400):
        k = np.arange(1, count + 1) / count
        text = ",".join(map(repr, ((0.1 + 19.9 * k) / count).tolist()))
        t = np.linspace(0.0, 0.9, 10)
        apart.append(np.abs(named(f"discrete({text})")(t).sigma - named("vp")(t).sigma).max())
    assert apart[1] == pytest.approx(apart[0] / 4, rel=0.1)


def test_a_wild_table_keeps_its_shape():
    """Between knots it stays within the table, as scipy's monotone interpolation does."""
    betas = [0.001, 0.001, 0.4, 0.4, 0.001, 0.02]
    logs = np.concatenate([[0], np.cumsum(np.log1p(-np.array(betas)))])
    t = np.linspace(0, 1, 601)
    got = 2 * np.log(named(WILD)(t).alpha)
    k = np.clip(np.floor(6 * (1 - t)).astype(int), 0, 5)
    assert np.all(got <= logs[k] + 1e-12)
    assert np.all(got >= logs[k + 1] - 1e-12)
    assert np.abs(got - PchipInterpolator(np.arange(7), logs)(6 * (1 - t))).max() < 0.1


# Names with numbers, shifts


def test_a_name_means_its_usual_numbers():
    t = np.linspace(0, 1, 9)
    for name, full in (
        ("polynomial", "polynomial(2)"),
        ("shifted", "shifted(3.0)"),
        ("stable_diffusion", "stable_diffusion(0.00085, 0.012)"),
        ("linear", "shifted(1)"),
        ("linear", "polynomial( 1 )"),
    ):
        np.testing.assert_allclose(named(full)(t), named(name)(t), rtol=1e-15, atol=1e-15)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("linaer", "did you mean 'linear'"),
        ("polynomal(3)", "did you mean 'polynomial'"),
        ("polynomial(3", "did you mean 'polynomial'"),
        ("linear(3)", "expected 'linear' without numbers"),
        ("polynomial()", r"expected polynomial\(n=2\) with numbers"),
        ("polynomial(1,2)", r"expected polynomial\(n=2\) with numbers"),
        ("polynomial(-1)", "with numbers from 1e-09 to 1e"),
        ("polynomial(nan)", "with numbers from"),
        ("polynomial(inf)", "with numbers from"),
        ("polynomial(two)", "with numbers from"),
        ("polynomial(500)", "alpha rises to 1"),
        ("discrete(0.1)", "betas: expected 2 to 10000 numbers between 0 and 1"),
        ("discrete(0.1, 1.0)", "betas: expected"),
        ("discrete(" + "0.1," * 10_000 + "0.1)", "betas: expected"),
        ("stable_diffusion(0.1, 0.2, 1e9)", "count: expected 2 to 10000"),
        ("stable_diffusion(0.1, 2)", "betas: expected"),
        (["linear"], "schedule: expected one of"),
        (None, "schedule: expected one of"),
    ],
)
def test_bad_names_are_one_helpful_line(text, message):
    with pytest.raises(ValueError, match=message) as caught:
        named(text)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 250


def test_shift_of_a_resolution():
    """The root of the ratio of pixels; Flux at the two numbers of tokens that its line goes through."""
    assert resolution_shift(1024 * 1024, 1024 * 1024) == 1.0
    assert resolution_shift(1024 * 1024, 256 * 256) == 4.0
    assert flux_shift(256) == pytest.approx(np.exp(0.5))
    assert flux_shift(4096) == pytest.approx(np.exp(1.15))


def test_shift_keeps_the_noise_of_a_constant_picture():
    """Esser et al. 2024, eqs. 21-23: n pixels at t and m at the shifted time leave the same doubt."""
    t, n, m = 0.3, 16, 144
    small, large = named("linear")(t), named(f"shifted({resolution_shift(m, n)!r})")(t)
    doubt = [float(s.sigma / s.alpha) / np.sqrt(size) for s, size in ((small, n), (large, m))]
    assert doubt[0] == pytest.approx(doubt[1], rel=1e-12)
