"""Pairings are permutations, optimal transport is optimal, times are distributed as they say."""

import itertools

import numpy as np
import pytest
from scipy import stats

from toolkit.paths import PAIRINGS, TIME_DRAWS, independent, optimal_transport

CDFS = {
    "uniform": lambda t: t,
    "logit_normal": lambda t: stats.norm.cdf(np.log(t) - np.log1p(-t)),
}


def cost(data, noise, permutation):
    return float(((data - noise[permutation]).reshape(len(data), -1) ** 2).sum())


@pytest.mark.parametrize("name", PAIRINGS)
@pytest.mark.parametrize("shape", [(2,), (4, 4, 1)])
def test_pairing_is_a_permutation_that_never_costs_more_than_independent(name, shape):
    rng = np.random.default_rng(1)
    for n in (1, 2, 33):
        data = rng.standard_normal((n, *shape)).astype(np.float32)
        noise = rng.standard_normal((n, *shape)).astype(np.float32)
        permutation = PAIRINGS[name](data, noise, None)
        assert permutation.dtype == np.int64
        assert sorted(permutation) == list(range(n))
        assert cost(data, noise, permutation) <= cost(data, noise, independent(data, noise))


def test_independent_leaves_every_row_its_own_noise():
    rows = np.zeros((5, 2))
    assert independent(rows, rows).tolist() == [0, 1, 2, 3, 4]


def test_optimal_transport_in_one_dimension_pairs_the_sorted_rows():
    rng = np.random.default_rng(2)
    data, noise = rng.standard_normal((50, 1)), rng.standard_normal((50, 1))
    paired = noise[optimal_transport(data, noise)]
    assert np.array_equal(np.argsort(data[:, 0]), np.argsort(paired[:, 0]))


def test_optimal_transport_is_the_cheapest_of_all_permutations():
    rng = np.random.default_rng(3)
    data, noise = rng.standard_normal((6, 3)), rng.standard_normal((6, 3))
    best = min(cost(data, noise, list(one)) for one in itertools.permutations(range(6)))
    assert cost(data, noise, optimal_transport(data, noise)) == pytest.approx(best)


@pytest.mark.parametrize("wide", [False, True])
def test_optimal_transport_never_crosses_groups(wide):
    """Across labels the noise would depend on the label; within them it must still be optimal."""
    rng = np.random.default_rng(4)
    data, noise = rng.standard_normal((40, 2)), rng.standard_normal((40, 2))
    labels = rng.integers(0, 3, 40)
    contexts = rng.standard_normal((3, 2, 5))[labels]
    permutation = optimal_transport(data, noise, contexts if wide else labels)
    assert np.array_equal(labels[permutation], labels)
    for label in range(3):
        rows = np.flatnonzero(labels == label)
        alone = rows[optimal_transport(data[rows], noise[rows])]
        assert np.array_equal(permutation[rows], alone)


def test_optimal_transport_is_not_the_identity():
    rng = np.random.default_rng(5)
    data, noise = rng.standard_normal((64, 2)), rng.standard_normal((64, 2))
    permutation = optimal_transport(data, noise)
    assert cost(data, noise, permutation) < 0.5 * cost(data, noise, np.arange(64))


@pytest.mark.parametrize("name", TIME_DRAWS)
def test_times_are_distributed_as_the_name_says(name):
    times = TIME_DRAWS[name](20_000, np.random.default_rng(6))
    assert times.dtype == np.float64
    assert times.shape == (20_000,)
    assert times.min() > 0.0
    assert times.max() < 1.0
    assert stats.kstest(times, CDFS[name]).pvalue > 1e-3
    other = next(cdf for key, cdf in CDFS.items() if key != name)
    assert stats.kstest(times, other).pvalue < 1e-6


@pytest.mark.parametrize("name", TIME_DRAWS)
def test_times_come_from_the_given_generator_only(name):
    draw = TIME_DRAWS[name]
    assert np.array_equal(draw(9, np.random.default_rng(1)), draw(9, np.random.default_rng(1)))
    assert not np.array_equal(draw(9, np.random.default_rng(1)), draw(9, np.random.default_rng(2)))
