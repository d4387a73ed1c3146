import numpy as np
import pytest

from runtimes.solvers import SOLVERS
from runtimes.tableau import Row, Tableau, combine, dense, from_dense, run
from runtimes.trace import trace

from .problems import starts


def test_a_table_by_hand():
    """Two slots, a network of 10 x + t: every number below is worked out on paper."""
    rows = (
        # slots [2] -> out = 10 * (3 * 2) + 0.5 = 60.5 -> slots [2 + 60.5, 2 * 2]
        Row(0.5, False, ((0, 3.0),), (((0, 1.0), (1, 1.0)), ((0, 2.0),)), None, False),
        # slots [62.5, 4] -> out = 10 * (62.5 - 4) + 1 = 586, noise 7 -> [4 + 0.5 * 586 + 2 * 7]
        Row(1.0, True, ((0, 1.0), (1, -1.0)), (((1, 1.0), (2, 0.5), (3, 2.0)),), 5, True),
    )
    seen = []

    def network(x, t, on):
        seen.append((float(x[0]), t, on))
        return 10 * x + t

    def draw(k):
        assert k == 5
        return np.array([7.0])

    ((row, x),) = run(Tableau(rows, 2), network, np.array([2.0]), draw)
    assert seen == [(6.0, 0.5, False), (58.5, 1.0, True)]
    assert (row, x[0]) == (rows[1], 311.0)


def test_it_stops_when_its_caller_does():
    calls = []

    def network(x, t, on):
        calls.append(t)
        return -x

    states = run(trace("heun", (0.0, 0.5, 1.0)), network, starts(2))
    assert not calls
    next(states)
    states.close()
    assert len(calls) == 2


def test_a_noisy_table_needs_noise():
    table = trace("ancestral", (0.1, 0.5, 0.9))
    with pytest.raises(ValueError, match="draw: expected a source of noise"):
        list(run(table, lambda x, t, on: -x, starts(2)))


def test_combine():
    x, y = np.array([1.0]), np.array([10.0])
    assert combine(((0, 1.0),), [x, y]) is x
    assert combine(((0, 2.0), (1, -1.0)), [x, y])[0] == -8.0
    assert combine((), [x, y])[0] == 0.0
    assert (x[0], y[0]) == (1.0, 10.0)


def test_the_identity_table_is_the_network():
    """What an exported sampler offers to those who want the raw network."""
    row = Row(0.3, False, ((0, 1.0),), (((1, 1.0),),), None, True)
    ((_, out),) = run(Tableau((row,), 1), lambda x, t, on: 2 * x + t, starts(2))
    np.testing.assert_array_equal(out, 2 * starts(2) + 0.3)


@pytest.mark.parametrize("guided", [None, (0.3, 0.8)])
@pytest.mark.parametrize("solver", SOLVERS)
def test_an_array_is_read_back_as_the_table_it_was(solver, guided):
    table = trace(solver, tuple(np.linspace(0.02, 0.98, 7)), guided=guided)
    array = dense(table)
    back = from_dense(array, [k for k, row in enumerate(table.rows) if row.ends_step])
    np.testing.assert_array_equal(dense(back), array)
    assert back.slots == table.slots
    for mine, theirs in zip(back.rows, table.rows, strict=True):
        words = ("guided", "draw", "ends_step")
        assert all(getattr(mine, word) == getattr(theirs, word) for word in words)
        assert len(mine.update) == len(theirs.update)
        assert mine.time == np.float32(theirs.time)


def test_slots_that_no_row_has_written_are_zero():
    array = np.array([[[1, 5, 0.5, 0], [1, 7, 2, 0], [0, 3, 0, 0]]], np.float32)
    (row,) = from_dense(array, [0]).rows
    assert row == Row(0.5, False, ((0, 1.0),), (((0, 1.0), (1, 2.0)),), None, True)
