"""The average is the one computed by hand, in any framework's arrays."""

import mlx.core as mx
import numpy as np
import pytest
import torch

from toolkit import ema


def test_decay_warms_up_to_its_value():
    assert [ema.decay_at(step, 0.5) for step in (0, 1, 2, 7, 8, 100)] == [
        0.1,
        2 / 11,
        0.25,
        8 / 17,
        0.5,
        0.5,
    ]


def test_average_by_hand():
    """Weights 3, 6, 4 after a start at 1, with decays 0.1, 2/11 and 0.25."""
    average = 1.0
    for step, value in enumerate((3.0, 6.0, 4.0)):
        average = ema.update(average, value, ema.decay_at(step, 0.999))
    first = 0.1 + 0.9 * 3
    second = first * 2 / 11 + 6 * 9 / 11
    assert average == pytest.approx(0.25 * second + 0.75 * 4)


def test_long_average_of_a_constant_is_that_constant_and_forgets_as_it_says():
    average = 0.0
    for step in range(20_000):
        average = ema.update(average, 2.0, ema.decay_at(step, 0.999))
    assert average == pytest.approx(2.0)
    for step in range(20_000, 20_693):
        average = ema.update(average, 0.0, ema.decay_at(step, 0.999))
    assert average == pytest.approx(1.0, rel=1e-3)  # half-life ln 2 / 0.001 = 693 steps


@pytest.mark.parametrize("array", [np.asarray, torch.from_numpy, mx.array])
def test_arrays_keep_their_framework_and_type_and_are_not_changed(array):
    mine, theirs = array(np.ones(3, np.float32)), array(np.full(3, 2.0, np.float32))
    out = ema.update(mine, theirs, 0.25)
    assert type(out) is type(mine)
    assert out.dtype == mine.dtype
    assert out.tolist() == [1.75] * 3
    assert mine.tolist() == [1.0] * 3
