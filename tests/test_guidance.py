import numpy as np
import pytest

from runtimes.guidance import check, guided
from runtimes.tableau import run
from runtimes.trace import trace

from .problems import starts

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
