"""Numbers that move with the batch become formulas of it, or are refused."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.sizes import BATCH, BATCHES, Factor, Size, Unfitted, fit, fit_factor, total


@given(st.integers(-50, 50), st.integers(-9, 9).filter(bool))
def test_a_line_is_found(a, b):
    assert fit([a + b * n for n in BATCHES]) == Size(Fraction(a), Fraction(b))


def test_halves_are_exact_where_they_are_whole():
    assert fit([(n + 1) // 2 for n in BATCHES]) == Size(Fraction(1, 2), Fraction(1, 2))


def test_what_stays_is_itself_and_lists_are_taken_apart():
    numbers = [(n, [3, 2 * n], {"eps": 0.1, "mode": "same", "whole": float(n)}) for n in BATCHES]
    double = Size(Fraction(0), Fraction(2))
    assert fit(numbers) == (BATCH, (3, double), {"eps": 0.1, "mode": "same", "whole": BATCH})


@pytest.mark.parametrize(
    "values",
    [
        [n**2 for n in BATCHES],
        [n // 2 + 100 * (n > 15) for n in BATCHES],
        [0.5 * n for n in BATCHES],
        ["a", "b", "c"],
        [True, True, "c"],
        [(1,), (1, 2), (1,)],
    ],
)
def test_no_other_formula_is_guessed(values):
    with pytest.raises(Unfitted):
        fit(values)


@pytest.mark.parametrize("power", [-2.0, -1.0, -0.5, 0.5, 1.0, 2.0])
def test_a_scalar_is_a_power_of_the_batch(power):
    found = fit_factor([0.7 * n**power for n in BATCHES])
    assert (found.power, found.scale) == (power, pytest.approx(0.7))
    assert isinstance(found, Factor)


def test_another_scalar_is_refused():
    with pytest.raises(Unfitted):
        fit_factor([1.0 / (n + 1) for n in BATCHES])


def test_one_size_of_a_product_may_move():
    assert total((2, BATCH, 3)) == Size(Fraction(0), Fraction(6))
    assert total((2, 3)) == 6
    with pytest.raises(ValueError, match="without products of the batch"):
        total((BATCH, BATCH))


def test_words():
    assert [str(size) for size in (BATCH, fit([2 * n + 1 for n in BATCHES]))] == [
        "batch",
        "1 + 2 batch",
    ]
